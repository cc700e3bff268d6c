"""`inspect`: figures, warnings, picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipelines import DataConfig, InspectConfig, inspect


def test_counts_and_figures(photos: Path, here: Path) -> None:
    found = inspect(InspectConfig(data=DataConfig(data=str(photos)), many=30, few=5))
    assert dict(zip(found.classes, found.counts, strict=True)) == {
        "f.o.u.r": 7,
        "tail": 3,
        "two words": 16,
        "круг": 40,
    }
    assert found.statistics.imbalance_factor == pytest.approx(40 / 3)
    assert found.statistics.groups == ("medium", "few", "medium", "many")
    assert found.splits == {"train": 66, "test": 40}
    assert found.warnings == ()
    assert found.picture is not None
    with Image.open(found.picture) as picture:
        assert picture.size[0] > 500


def test_warns_of_what_will_hurt(photos: Path, here: Path) -> None:
    copy = here / "copy"
    shutil.copytree(photos, copy)
    train, test = copy / "train", copy / "test"
    (train / "empty").mkdir()
    (train / "single").mkdir()
    shutil.copy(train / "круг" / "1.jpg", train / "single" / "a.jpg")  # also the same image in two classes
    shutil.copy(train / "tail" / "0.jpg", test / "tail" / "again.jpg")  # the same image in two splits
    (train / "tail" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    found = inspect(InspectConfig(data=DataConfig(data=str(copy))))
    text = "\n".join(found.warnings)
    assert "1 classes with no training image: empty" in text
    assert "1 classes with one training image: single" in text
    assert "1 images cannot be read" in text
    assert "2 images are in two splits or two classes" in text
    assert list(found.unreadable) == [str(train / "tail" / "broken.jpg")]
    assert sorted(len(group) for group in found.repeated) == [2, 2]


def test_result_is_json(photos: Path, here: Path) -> None:
    found = inspect(InspectConfig(data=DataConfig(data=str(photos)), check_files=False))
    assert json.loads(json.dumps(found.to_dict()))["counts"] == [7, 3, 16, 40]
