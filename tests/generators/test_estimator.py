from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from generators import ClassConditionalDiffusion, estimator
from generators.class_conditional import NetworkSettings
from generators.class_conditional_training import TrainingSettings
from rebalance.errors import InputError
from rebalance.resampling import FillSampler

TINY: dict[str, Any] = {
    "channels": (8, 16),
    "updates": 3,
    "batch_size": 4,
    "steps": 2,
    "device": "cpu",
    "random_state": 0,
}
LABELS = np.repeat(["bright", "dark"], [20, 5])


def stack(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Images, bright ones and dark ones."""
    noise = np.random.default_rng(0).integers(0, 60, (25, *shape))
    return (noise + np.where(LABELS == "bright", 180, 0).reshape(-1, *[1] * len(shape))).astype(dtype)


@pytest.fixture(scope="module")
def fitted() -> ClassConditionalDiffusion:
    return ClassConditionalDiffusion(**TINY).fit(stack(8, 8), LABELS)


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (stack(8, 8), {}),
        (stack(8, 8, 1), {}),
        (stack(8, 8, 3), {}),
        (stack(8, 8, 3, dtype=np.float32), {}),
        (stack(70, 9), {}),
        (stack(64), {"image_shape": (8, 8)}),
        (stack(48, dtype=np.int16), {"image_shape": [4, 4, 3]}),
    ],
    ids=lambda value: f"{value.shape}-{value.dtype}" if isinstance(value, np.ndarray) else "",
)
def test_made_images_have_the_kind_of_those_they_are_learned_from(images: np.ndarray, options: Any) -> None:
    generator = ClassConditionalDiffusion(**TINY, **options).fit(images, LABELS)
    made = generator.sample(["dark", "bright", "dark"], random_state=0)
    assert (made.shape, made.dtype) == ((3, *images.shape[1:]), images.dtype)
    assert made.max() <= (255 if images.dtype == np.uint8 else images.max())
    assert generator.generator_.settings.image_size <= 64
    assert generator.classes_.tolist() == ["bright", "dark"]


def test_it_learns_what_the_classes_look_like() -> None:
    settings = {**TINY, "updates": 60, "batch_size": 16, "lr": 5e-3, "ema": 0.9, "steps": 8}
    generator = ClassConditionalDiffusion(**settings).fit(stack(8, 8), LABELS)
    made = generator.sample(["bright"] * 8 + ["dark"] * 8, random_state=0).astype(float)
    assert made[:8].mean() > 150
    assert made[8:].mean() < 90


def test_mirroring_draws_objective_and_augmentation_are_plain_unless_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[TrainingSettings, bool]] = []

    def stop(_: object, labels: object, network: NetworkSettings, settings: TrainingSettings, **__: object) -> None:
        found.append((settings, network.told))
        raise KeyboardInterrupt

    monkeypatch.setattr(estimator, "train_class_conditional", stop)
    for options in ({}, {"flip": True, "label_exponent": 0.5, "objective": "cbdm", "augment": 0.5}):
        with pytest.raises(KeyboardInterrupt):
            ClassConditionalDiffusion(**TINY, **options).fit(stack(8, 8), LABELS)
    asked = [(it.flip, it.label_exponent, it.objective, it.augment, told) for it, told in found]
    assert asked == [(False, 1.0, "plain", 0.0, False), (True, 0.5, "cbdm", 0.5, True)]


def test_samples_are_a_function_of_labels_and_seed(fitted: ClassConditionalDiffusion) -> None:
    first = fitted.sample(LABELS, random_state=1)
    np.testing.assert_array_equal(fitted.sample(LABELS, random_state=1), first)
    assert (fitted.sample(LABELS, random_state=2) != first).any()
    assert len({image.tobytes() for image in first}) == len(LABELS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).sample(LABELS, random_state=1), first)
    again = clone(fitted).fit(stack(8, 8), LABELS)
    np.testing.assert_array_equal(again.sample(LABELS, random_state=1), first)
    other = clone(fitted).set_params(random_state=1).fit(stack(8, 8), LABELS)
    assert (other.sample(LABELS, random_state=1) != first).any()
    assert fitted.sample([]).shape == (0, 8, 8)


def test_an_image_does_not_depend_on_the_others(fitted: ClassConditionalDiffusion) -> None:
    mixed = fitted.sample(["dark", "bright", "dark"], random_state=1)
    np.testing.assert_array_equal(fitted.sample(["bright", "dark", "dark"], random_state=1), mixed[[1, 0, 2]])


def borrowing(**changes: Any) -> ClassConditionalDiffusion:
    return ClassConditionalDiffusion(**{**TINY, "steps": 20, "head_to_tail": (0.05, 1.0), **changes})


def test_images_begin_from_those_of_other_classes_where_told() -> None:
    images = stack(8, 8)
    generator = borrowing().fit(images, LABELS)
    made = generator.sample(["dark"] * 3 + ["bright"] * 2 + ["dark"], random_state=0)
    apart = np.abs(made[:, None].astype(int) - images[None]).mean(axis=(2, 3))
    lender = apart.argmin(axis=1)
    little, far = [0, 2, 3], [1, 4, 5]  # strengths take turns inside each class
    assert (apart[little].min(axis=1) < 15).all()
    assert [LABELS[row] for row in lender[little]] == ["bright", "bright", "dark"]
    assert (apart[far].min(axis=1) > 17).all()
    assert generator.generator_.sources == {}
    again = pickle.loads(pickle.dumps(generator)).sample(["dark"], random_state=0)
    np.testing.assert_array_equal(again[0], made[0])


def test_lenders_may_have_any_shape_and_are_kept_by_fit_alone() -> None:
    colour = borrowing().fit(stack(70, 9, 3, dtype=np.float32), LABELS)
    assert colour.sample(["dark", "dark"], random_state=0).shape == (2, 70, 9, 3)
    flat = borrowing(image_shape=(8, 8))
    rows, _ = FillSampler(generator=flat, random_state=0).fit_resample(stack(64), LABELS)
    assert rows.shape == (40, 64)
    array = borrowing(head_to_tail=np.array([0.05, 1.0])).fit(stack(8, 8), LABELS)
    np.testing.assert_array_equal(
        array.sample(["dark"], random_state=0), borrowing().fit(stack(8, 8), LABELS).sample(["dark"], random_state=0)
    )
    plain = ClassConditionalDiffusion(**TINY).fit(stack(8, 8), LABELS)
    with pytest.raises(InputError, match=r"head_to_tail before fit, which keeps the images; got \(0.5,\) after"):
        plain.set_params(head_to_tail=(0.5,)).sample(["dark"])
    with pytest.raises(InputError, match="images of other classes to begin from; got bright alone"):
        borrowing().fit(stack(8, 8)[:5], LABELS[:5]).sample(["bright"])
    for strengths in ((0.5, 0.0), (1.5,), [0.04], np.array([2.0]), ["a"]):
        with pytest.raises(InputError, match="strengths of at most 1 that leave one of 20 steps; got"):
            borrowing(head_to_tail=strengths).fit(stack(8, 8), LABELS)


def test_batches_are_few_and_no_larger_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = borrowing(head_to_tail=(0.5, 1.0), sampling_batch=4).fit(stack(8, 8), LABELS)
    sizes: list[int] = []
    whole = generator.generator_.generate
    monkeypatch.setattr(
        generator.generator_, "generate", lambda jobs: (sizes.append(generator.generator_.batch_size), whole(jobs))[1]
    )
    assert len(generator.sample(["dark"] * 11)) == 11
    assert sizes == [3, 3, 3, 3]


def test_a_failure_leaves_no_images_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = borrowing().fit(stack(8, 8), LABELS)

    def fail(*_: object) -> None:
        assert generator.generator_.sources
        raise MemoryError

    monkeypatch.setattr(generator.generator_, "generate", fail)
    with pytest.raises(MemoryError):
        generator.sample(["dark"], random_state=0)
    assert generator.generator_.sources == {}


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    ClassConditionalDiffusion(**TINY).fit(stack(8, 8), LABELS).sample(["dark"], random_state=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]


def test_it_fills_up_before_any_estimator() -> None:
    generator = ClassConditionalDiffusion(image_shape=(8, 8), **TINY)
    pipeline = make_pipeline(FillSampler(generator=generator, random_state=0), LogisticRegression(max_iter=1000))
    images = stack(64)
    assert pipeline.fit(images, LABELS).score(images, LABELS) > 0.9
    sampler = pipeline[0]
    assert sampler.n_added_ == {"dark": 15}
    assert not hasattr(generator, "classes_")  # cloned, not fitted
    X, _ = sampler.fit_resample(images, LABELS)
    assert (X.shape, X.dtype) == ((40, 64), np.uint8)
    np.testing.assert_array_equal(X[:25], images)


def test_the_samplers_seed_is_the_generators_where_it_has_none() -> None:
    def made(seed: int, **options: Any) -> np.ndarray:
        generator = ClassConditionalDiffusion(**{**TINY, "random_state": None, **options})
        rows, _ = FillSampler(generator=generator, random_state=seed).fit_resample(stack(8, 8), LABELS)
        return rows[25:]  # type: ignore[no-any-return]

    np.testing.assert_array_equal(made(0), made(0))
    assert not np.array_equal(made(0), made(1))
    sampler = FillSampler(generator=ClassConditionalDiffusion(**{**TINY, "random_state": 5}), random_state=0)
    sampler.fit_resample(stack(8, 8), LABELS)
    assert sampler.generator_.random_state == 5


def test_in_a_script_of_several_processes_each_learns_from_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    images = stack(8, 8)
    alone = ClassConditionalDiffusion(**TINY).fit(images, LABELS).sample(["dark"], random_state=0)
    monkeypatch.setenv("RANK", "1")
    beside = ClassConditionalDiffusion(**TINY).fit(images, LABELS).sample(["dark"], random_state=0)
    np.testing.assert_array_equal(alone, beside)


def test_a_frozen_one_is_used_as_it_is(fitted: ClassConditionalDiffusion) -> None:
    sampler = FillSampler(generator=FrozenEstimator(fitted), random_state=0)
    sampler.fit_resample(stack(8, 8), LABELS)
    assert sampler.generator_.estimator is fitted


def test_progress_is_shown_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    generator = ClassConditionalDiffusion(**TINY).fit(stack(8, 8), LABELS)
    assert capfd.readouterr() == ("", "")
    generator.set_params(verbose=True).fit(stack(8, 8), LABELS)
    assert "3/3" in capfd.readouterr().err


def test_wrong_input_is_refused(fitted: ClassConditionalDiffusion) -> None:
    generator = ClassConditionalDiffusion(**TINY)
    with pytest.raises(InputError, match="expected images as an array; got a frame"):
        generator.fit(pd.DataFrame({"path": ["a.png"] * 25}), LABELS)
    with pytest.raises(InputError, match=r"flat rows with image_shape=\(H, W\)"):
        generator.fit(stack(64), LABELS)
    with pytest.raises(InputError, match=r"a label for each image to make, \(M,\); got 'dark'; pass a list"):
        fitted.sample("dark")
    with pytest.raises(InputError, match="classes that were in fit: bright, dark; got 'grey'"):
        fitted.sample(["dark", "grey"])
    with pytest.raises(InputError, match="channels that are multiples of 8"):
        clone(generator).set_params(channels=(8, 9)).fit(stack(8, 8), LABELS)
    for name, value in {"steps": 1, "lr": 0, "guidance": 0.5, "ema": 1.0, "updates": 0}.items():
        with pytest.raises(ValueError, match=f"The '{name}' parameter of ClassConditionalDiffusion must be"):
            clone(generator).set_params(**{name: value}).fit(stack(8, 8), LABELS)
