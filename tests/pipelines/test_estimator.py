from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from pipelines import (
    DataConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalancedImageClassifier,
    TrainConfig,
    load_model,
)
from pipelines.console import log
from pipelines.training import train_in
from rebalance.data.digits import read_digits
from rebalance.data.splits import make_long_tailed
from rebalance.errors import InputError
from rebalance.resampling import FillSampler

TRAIN = make_long_tailed(read_digits(), 50.0).train
IMAGES, LABELS = np.asarray(TRAIN.images), TRAIN.targets
"""305 digits of ten classes, 110 down to 2 images of each."""
GREY = IMAGES[..., 0]
NAMES = np.array(["zero one two three four five six seven eight nine".split()])[0][LABELS]


def quick(**settings: Any) -> RebalancedImageClassifier:
    return RebalancedImageClassifier(
        **{"updates": 4, "batch_size": 32, "augment": "crop", "device": "cpu", "random_state": 0, **settings}
    )


@pytest.fixture(scope="module")
def fitted() -> RebalancedImageClassifier:
    return quick().fit(GREY, NAMES)


def test_it_trains_as_the_command_line_does(tmp_path: Path) -> None:
    settings = {"sampler_rule": "sqrt-inverse", "sampler_schedule": "deferred:0.5", "loss_rule": "effective-number"}
    config = TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(method="ldam_drw", option=("max_margin=0.4",), **settings),  # type: ignore[arg-type]
        optimization=OptimizationConfig(updates=20, batch_size=32, lr=0.03, warmup_epochs=0.2),
        seed=7,
        place=PlaceConfig(device="cpu", report_to="none"),
    )
    result = train_in(tmp_path / "run", config)
    model = quick(method="ldam_drw", options={"max_margin": 0.4}, updates=20, lr=0.03, random_state=7, **settings).fit(
        IMAGES, LABELS
    )
    theirs = load_model(result.folder)
    np.testing.assert_array_equal(model.predict_proba(IMAGES[:50]), theirs.predict_proba(list(IMAGES[:50])))
    assert model.model_.description == theirs.description


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"loss_rule": "inverse", "loss_strength": 0.5, "loss_schedule": "deferred:0.5"}, {}),
        ({"loss_rule": "effective-number", "sampler_rule": "effective-number", "cb_beta": 0.9}, {}),
        (
            {"loss_rule": "custom", "custom": {c: 1.0 + c for c in range(10)}},
            {"class_weight": tuple(f"{c}={1.0 + c}" for c in range(10))},
        ),
    ],
)
def test_rule_strength_and_schedule_of_the_loss_are_those_of_the_command_line(
    settings: dict[str, Any], flags: dict[str, Any], tmp_path: Path
) -> None:
    config = TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(method="ce", **{n: v for n, v in settings.items() if n != "custom"}, **flags),
        optimization=OptimizationConfig(updates=10, batch_size=32, lr=0.03, warmup_epochs=0.1),
        place=PlaceConfig(device="cpu", report_to="none"),
    )
    theirs = load_model(train_in(tmp_path / "run", config).folder).predict_proba(list(IMAGES[:20]))
    model = quick(method="ce", updates=10, lr=0.03, **settings).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(model.predict_proba(IMAGES[:20]), theirs)
    plain = quick(method="ce", updates=10, lr=0.03).fit(IMAGES, LABELS)
    assert not np.array_equal(plain.predict_proba(IMAGES[:20]), theirs)


def test_custom_weights_are_of_labels_of_any_kind() -> None:
    names = np.unique(NAMES)
    one = quick(method="ce", loss_rule="custom", custom={name: 1.0 + i for i, name in enumerate(names)})
    assert one.fit(GREY, NAMES).predict(GREY[:1])[0] in names
    with pytest.raises(InputError, match="--class-weight"):
        quick(method="ce", loss_rule="custom").fit(GREY, NAMES)


def test_it_learns() -> None:
    test = read_digits().test
    assert test is not None
    model = quick(method="balanced_softmax", updates=150).fit(IMAGES, NAMES)
    digits = dict(zip(LABELS.tolist(), NAMES.tolist(), strict=True))
    truth = np.array([digits[target] for target in test.targets.tolist()])
    assert model.score(np.asarray(test.images), truth) > 0.75
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]
    assert len(model.loss_curve_) == 15


@pytest.mark.parametrize(
    ("images", "settings"),
    [
        (GREY[..., None], {}),
        (IMAGES, {}),
        (GREY / 255, {}),
        ((GREY / 255).astype(np.float32), {}),
        (GREY.astype(np.int64), {}),
        (GREY.reshape(-1, 64), {"image_shape": (8, 8)}),
        (IMAGES.reshape(-1, 192), {"image_shape": [8, 8, 3]}),
        (GREY.tolist(), {}),
        (pd.DataFrame(GREY.reshape(-1, 64)), {"image_shape": (8, 8)}),
    ],
)
def test_all_kinds_of_arrays_are_the_same_images(fitted: RebalancedImageClassifier, images: Any, settings: Any) -> None:
    model = quick(**settings).fit(images, NAMES)
    np.testing.assert_array_equal(model.predict_proba(images), fitted.predict_proba(GREY))


def test_predictions(fitted: RebalancedImageClassifier) -> None:
    probabilities = fitted.predict_proba(GREY)
    assert fitted.classes_.tolist() == sorted(set(NAMES.tolist()))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    labels = fitted.predict(GREY)
    np.testing.assert_array_equal(labels, fitted.classes_[probabilities.argmax(axis=1)])
    assert fitted.score(GREY, NAMES) == pytest.approx((labels == NAMES).mean())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(GREY), probabilities)
    np.testing.assert_array_equal(clone(fitted).fit(GREY, NAMES).predict_proba(GREY), probabilities)
    other = clone(fitted).set_params(random_state=1).fit(GREY, NAMES)
    assert (other.predict_proba(GREY) != probabilities).any()


def test_images_that_are_scaled_otherwise_than_in_fit_are_refused_or_doubted(
    fitted: RebalancedImageClassifier,
) -> None:
    with pytest.raises(InputError, match="uint8 from 0 to 255, as in fit; got float64 from 0 to 1; scale the images"):
        fitted.predict(GREY / 255)
    assert fitted.predict(GREY.astype(float)).tolist() == fitted.predict(GREY).tolist()
    of_shares = quick(warm_start=True).fit(GREY / 255, NAMES)
    with pytest.raises(InputError, match="float64 from 0 to 1, as in fit; got uint8 from 0 to 255; scale the images"):
        of_shares.predict(GREY)
    with pytest.raises(InputError, match="float64 from 0 to 1, as in fit; got uint8"):
        of_shares.fit(GREY, NAMES)
    with pytest.warns(UserWarning, match="images are float64 from 0 to 255, those of fit were float64 from 0 to 1"):
        of_shares.predict(GREY.astype(float))


def test_the_method_is_the_one_that_the_command_line_takes() -> None:
    assert RebalancedImageClassifier().method == ObjectiveConfig().recipe


def test_rows_that_are_no_images_do_not_depend_on_their_units() -> None:
    stream = np.random.default_rng(0)
    y = np.repeat([0, 1], [150, 50])
    X = stream.normal(y[:, None] * [3, 0, -2], 1.0, (200, 3))
    model = quick(updates=30, augment="auto").fit(X, y)
    assert model.score(X, y) > 0.9
    scaled = quick(updates=30, augment="auto").fit(X * [1e6, 1, 1e-6] + [0, 5, 0], y)
    np.testing.assert_allclose(scaled.predict_proba(X * [1e6, 1, 1e-6] + [0, 5, 0]), model.predict_proba(X), atol=0.05)
    assert quick(updates=1).fit(np.hstack([X] * 40), y).model_.image_size == 11


def test_warm_start_goes_on() -> None:
    model = quick(updates=60, warm_start=True).fit(GREY, NAMES)
    begun, first = model.loss_curve_[0], model.predict_proba(GREY)
    model.set_params(updates=1, lr=1e-9).fit(GREY, NAMES)
    assert model.loss_curve_[0] < 0.5 * begun
    assert np.abs(model.predict_proba(GREY) - first).max() < 0.2  # but for what batch norm has seen since
    cold = clone(model).fit(GREY, NAMES)
    assert cold.loss_curve_[0] > 0.5 * begun
    assert model.set_params(warm_start=False).fit(GREY, NAMES).loss_curve_ == cold.loss_curve_
    with pytest.raises(InputError, match="the classes of the first fit"):
        model.set_params(warm_start=True).fit(GREY, np.where(NAMES == "one", "zero", NAMES))
    with pytest.raises(InputError, match="as in fit"):
        model.fit(GREY[:, :, :4], NAMES)


def test_warm_start_keeps_what_is_trained_beside_the_classifier() -> None:
    model = quick(method="supcon", warm_start=True).fit(GREY, NAMES)
    before = {name: tensor.clone() for name, tensor in model._trained.beside.items()}
    model.set_params(updates=1, lr=1e-9).fit(GREY, NAMES)
    assert any("projection" in name for name in before)
    weights = [name for name in before if name.endswith("weight") and before[name].ndim == 2]
    for name in weights:
        torch.testing.assert_close(model._trained.beside[name], before[name], atol=1e-5, rtol=0)


def test_numbers_of_numpy_are_as_good() -> None:
    numbers: dict[str, Any] = {"lr": np.float64(0.02), "epochs": np.int64(1), "batch_size": np.int32(16)}
    model = quick(updates=None, method="paco", options={"queue": np.int64(8)}, **numbers).fit(GREY[::8], LABELS[::8])
    plain = {name: value.item() for name, value in numbers.items()}
    other = quick(updates=None, method="paco", options={"queue": 8}, **plain).fit(GREY[::8], LABELS[::8])
    assert np.array_equal(model.predict_proba(GREY[:5]), other.predict_proba(GREY[:5]))


def test_grid_search_over_method_and_rule() -> None:
    rows = np.isin(LABELS, [0, 1, 2])
    grid = {"method": ["ce", "balanced_softmax"], "sampler_rule": ["none", "inverse"]}
    search = GridSearchCV(quick(), grid, cv=2, scoring="balanced_accuracy").fit(GREY[rows], NAMES[rows])
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert set(search.predict(GREY[rows])) <= set(NAMES[rows])


def test_it_stands_behind_a_sampler() -> None:
    pipeline = make_pipeline(FillSampler(random_state=0), quick(method="ce"))
    model = pipeline.fit(GREY, NAMES)[-1]
    assert set(model.model_.description.train_counts) == {110}


def test_nothing_is_said_unless_asked_but_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = log.handlers
    model = quick(sampler_rule="inverse", sampler_strength=0)
    with pytest.warns(UserWarning, match="--sampler-strength 0 leaves"):
        model.fit(GREY, NAMES)
    model.predict(GREY)
    assert capfd.readouterr() == ("", "")
    model.set_params(verbose=True).fit(GREY, NAMES)
    said = capfd.readouterr()
    assert "drawn in epoch 1" in said.out
    assert "4 updates of 32 images" in said.err
    assert "--sampler-strength 0 leaves" in said.err
    assert (log.handlers, log.level) == (handlers, 0)


def test_nothing_is_left_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    torch.manual_seed(5)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    quick().fit(GREY, NAMES)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # type: ignore[index]
    with pytest.raises(InputError):
        quick(method="no_such").fit(GREY, NAMES)
    assert list(here.iterdir()) == []


def test_another_device_than_that_of_the_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.table_training.pick_device", lambda name: torch.device("meta"))
    with pytest.raises(InputError, match="expected cpu, on which this process trained before; got meta"):
        quick().fit(GREY, NAMES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "focall"}, "did you mean 'focal'"),
        ({"options": {"margin": 1}}, "an option of balanced_mixup; got 'margin'"),
        ({"model": "resnet3"}, "a backbone"),
        ({"sampler_schedule": "later"}, "schedule"),
        ({"augment": "no"}, "augmentation"),
        ({"device": "abacus"}, "a device"),
        ({"image_shape": (4, 4)}, "rows of image_shape"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quick(**settings).fit(GREY, NAMES)


def test_wrong_rows_are_refused(fitted: RebalancedImageClassifier) -> None:
    with pytest.raises(InputError, match="at least two classes; got one class, 'one'"):
        quick().fit(GREY, ["one"] * len(GREY))
    with pytest.raises(InputError, match="with 1 or 3 channels"):
        quick().fit(IMAGES[..., :2], NAMES)
    with pytest.raises(InputError, match=r"rows of shape \(8, 8\), as in fit"):
        fitted.predict(IMAGES)
    with pytest.raises(InputError, match="arrays, as in fit; got paths"):
        quick(image_shape=(1, 1)).fit(GREY[:, :1, 0], NAMES).predict([["a.png"]])
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(np.where(GREY > 250, np.nan, GREY), NAMES)
