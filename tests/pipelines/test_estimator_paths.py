"""The scikit-learn classifier on files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from pipelines import RebalancedImageClassifier
from rebalance.errors import InputError


def quick(**settings: Any) -> RebalancedImageClassifier:
    return RebalancedImageClassifier(
        **{"updates": 4, "batch_size": 32, "augment": "crop", "device": "cpu", "random_state": 0, **settings}
    )


def test_paths(photos: Path) -> None:
    files = sorted(photos.glob("train/*/*.jpg"))
    names = [file.parent.name for file in files]
    frame = pd.DataFrame({"path": map(str, files)})
    model = quick(updates=60, model="small_cnn").fit(frame, names)
    assert model.score(frame, names) > 0.6
    assert model.feature_names_in_.tolist() == ["path"]
    assert model.model_.image_size in (16, 17, 18)
    column = np.array(files, dtype=object).reshape(-1, 1)
    again = quick(updates=60, model="small_cnn").fit(column, names)
    np.testing.assert_array_equal(again.predict_proba(column), model.predict_proba(frame))
    with pytest.raises(InputError, match=r"paths as a list, or as one column .*X\['path'\]"):
        quick().fit(frame.assign(width=16), names)
    with pytest.raises(InputError, match=r"paths, as in fit; got an array of shape \(3, 32\); name the files"):
        again.predict(np.zeros((3, 32)))
    with pytest.raises(InputError, match="paths, as in fit; got a list without paths"):
        again.predict([[1.0]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick().fit(frame, names[1:])


def test_paths_may_be_a_list_in_training_and_after(photos: Path) -> None:
    files = sorted(photos.glob("train/*/*.jpg"))
    names, frame = [file.parent.name for file in files], pd.DataFrame({"path": map(str, files)})
    from_frame = quick(model="small_cnn").fit(frame, names)
    known = from_frame.predict_proba(frame)
    for listed in (files, list(map(str, files)), frame["path"], frame["path"].to_numpy()):
        np.testing.assert_array_equal(from_frame.predict_proba(listed), known)
    for listed in (files, frame["path"]):
        np.testing.assert_array_equal(quick(model="small_cnn").fit(listed, names).predict_proba(files), known)
    assert quick(model="small_cnn").fit(frame["path"], names).feature_names_in_.tolist() == ["path"]


def test_files_that_cannot_be_read_are_refused_or_left_out_and_told(photos: Path) -> None:
    files = sorted(photos.glob("train/*/*.jpg"))
    names = np.array([file.parent.name for file in files])
    paths = ["missing.jpg", *map(str, files[1:])]
    unreadable = r"readable images; got 1 of 66 that cannot be read:\s+cannot decode missing\.jpg"
    small = quick(model="small_cnn", image_size=16, batch_size=20)
    with pytest.raises(InputError, match=unreadable):
        small.fit(paths, names)
    with pytest.warns(UserWarning, match="1 of 66 train images cannot be read and are left out"):
        model = clone(small).set_params(skip_corrupt=True).fit(paths, names)
    assert model.skipped_ == ["missing.jpg"]
    counts = dict(zip(model.classes_, model.model_.description.train_counts, strict=True))
    assert counts == {name: (names[1:] == name).sum() for name in model.classes_}
    whole = small.fit(paths[1:], names[1:])
    assert whole.skipped_ == []
    np.testing.assert_array_equal(whole.predict_proba(files), model.predict_proba(files))
    with pytest.raises(InputError, match=r"readable images; got cannot decode missing\.jpg: No such file"):
        model.predict(paths)
