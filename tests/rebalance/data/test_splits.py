from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalance.data.splits import hold_out_test, hold_out_validation, make_long_tailed, stratified_folds
from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["cases"]
NAMES = ("bear", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx", "mole")


def table(targets: list[int] | np.ndarray, n_classes: int | None = None) -> ImageTable:
    ids = np.asarray(targets, dtype=np.int64)
    return ImageTable([str(i) for i in range(len(ids))], ids, NAMES[: n_classes or int(ids.max()) + 1])


def of_counts(*counts: int) -> ImageTable:
    """Images of each class, scattered over the table."""
    ids = np.repeat(np.arange(len(counts)), counts)
    return table(np.random.default_rng(0).permutation(ids), len(counts))


def rows(part: ImageTable | None) -> list[int]:
    assert part is not None
    return [int(str(image)) for image in part.images]


# The long tail


@pytest.mark.parametrize("case", [c for c in GOLDEN if c["method"] == "imbalanced_subset"], ids=lambda c: c["name"])
def test_the_published_subset_comes_out(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    splits = Splits(table(inputs["targets"]), test=table([0, 1]))
    cut = make_long_tailed(splits, 1 / inputs["imb_factor"], inputs["imb_type"], inputs["seed"])
    assert rows(cut.train) == expected["indices"]
    assert cut.train.targets.tolist() == expected["targets"]
    assert cut.train.counts.tolist() == expected["counts"]
    assert cut.test is splits.test


def test_twelve_classes_get_the_golden_profile() -> None:
    (case,) = [c for c in GOLDEN if c["name"] == "img_num_per_cls/exp_N1200_C12_0.05"]
    cut = make_long_tailed(Splits(of_counts(*[100] * 12)), 20)
    assert cut.train.counts.tolist() == case["expected"]["counts"]
    assert cut.notes == ("training split cut to an imbalance factor of 20 (exp): 399 images",)


def test_a_class_too_small_for_the_profile_is_named() -> None:
    with pytest.raises(InputError, match="at least 8 images of 'cat' for an imbalance factor of 10; got 3"):
        make_long_tailed(Splits(of_counts(57, 3, 20)), 10, "exp")


# Validation


def test_validation_is_stratified_and_leaves_train_the_rest() -> None:
    splits = hold_out_validation(Splits(of_counts(200, 100, 50)), 0.1)
    assert splits.val is not None
    assert splits.val.counts.tolist() == [20, 10, 5]
    assert splits.train.counts.tolist() == [180, 90, 45]
    assert sorted(rows(splits.train) + rows(splits.val)) == list(range(350))
    assert splits.notes == ("35 training images (10%) held out for validation",)


def test_labels_stay_with_their_images() -> None:
    whole = of_counts(60, 50)
    splits = hold_out_validation(Splits(whole), 0.2)
    for part in (splits.train, splits.val):
        assert part is not None
        assert part.targets.tolist() == whole.targets[rows(part)].tolist()


@pytest.mark.parametrize(
    ("counts", "fraction", "message"),
    [
        ((200, 44, 100), 0.1, r"every class, so about 50 training images; got 4 of the 44 images of 'cat'; leave out"),
        ((200, 44, 3), 0.1, r"got 0 of the 3 images of 'dog', 4 of the 44 images of 'cat'; leave out --val-fraction"),
        ((200, 22, 100), 0.2, r"about 25 training images; got 4 of the 22 images of 'cat'; leave"),
        ((200, 1, 100), 0.9, r"got 0 of the 1 images of 'cat'"),
        ((5, 200), 0.99, r"got 4 of the 5 images of 'bear'"),
    ],
)
def test_a_class_too_small_to_hold_out_from_is_named(counts: tuple[int, ...], fraction: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hold_out_validation(Splits(of_counts(*counts)), fraction)


def test_of_many_classes_too_small_twenty_are_named() -> None:
    classes = tuple(f"c{i}" for i in range(23))
    targets = np.repeat(np.arange(23), [200, *range(22, 0, -1)])
    splits = Splits(ImageTable([str(i) for i in range(len(targets))], targets, classes))
    with pytest.raises(InputError, match=r"got 0 of the 1 images of 'c22', .*'c3', as little of 2 more classes; leave"):
        hold_out_validation(splits, 0.2)


def test_train_keeps_an_image_of_every_class() -> None:
    splits = hold_out_validation(Splits(of_counts(6, 200)), 0.99)
    assert splits.train.counts.tolist() == [1, 2]


def test_no_second_validation_or_test_split() -> None:
    part = of_counts(100, 100)
    with pytest.raises(InputError, match="leave out --val-fraction"):
        hold_out_validation(Splits(part, val=part), 0.1)
    with pytest.raises(InputError, match="leave out --test-fraction"):
        hold_out_test(Splits(part, test=part), 0.1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fractions_outside_the_open_interval_are_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"a --val-fraction in \(0, 1\)"):
        hold_out_validation(Splits(of_counts(100, 100)), fraction)
    with pytest.raises(InputError, match=r"a --test-fraction in \(0, 1\)"):
        hold_out_test(Splits(of_counts(100, 100)), fraction)


# Test


def test_a_test_split_takes_one_image_of_small_classes_and_none_of_single_images() -> None:
    splits = hold_out_test(Splits(of_counts(100, 10, 3, 2, 1)), 0.2)
    assert splits.test is not None
    assert splits.test.counts.tolist() == [20, 2, 1, 1, 0]
    assert splits.train.counts.tolist() == [80, 8, 2, 1, 1]
    assert splits.notes == (
        "no test split: 24 training images (20% of each class) held out for the test",
        "classes of one image have no test image: fox",
    )


def test_an_empty_class_gives_nothing() -> None:
    splits = hold_out_test(Splits(of_counts(10, 0, 10)), 0.5)
    assert splits.test is not None
    assert splits.test.counts.tolist() == [5, 0, 5]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_every_image_is_in_one_split_and_no_class_leaves_train(counts: list[int], fraction: float, seed: int) -> None:
    whole = of_counts(*counts)
    splits = hold_out_test(Splits(whole), fraction, seed)
    assert sorted(rows(splits.train) + rows(splits.test)) == list(range(sum(counts)))
    assert ((splits.train.counts > 0) == (whole.counts > 0)).all()


def test_the_seed_alone_decides_and_global_state_is_left_alone() -> None:
    splits = Splits(of_counts(60, 50))
    np.random.seed(1)
    before = np.random.get_state()[1]
    first = rows(hold_out_test(splits, 0.2, 3).test)
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(2)
    assert rows(hold_out_test(splits, 0.2, 3).test) == first
    assert rows(hold_out_test(splits, 0.2, 4).test) != first
    assert rows(hold_out_validation(splits, 0.2, 3).val) == rows(hold_out_validation(splits, 0.2, 3).val)


# Repeats


def repeated(n_different: int, targets: np.ndarray) -> ImageTable:
    """Pixels of which a class has only so many different ones."""
    images = np.zeros((len(targets), 1, 1, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(targets)) % n_different
    return ImageTable(images, targets, NAMES[: int(targets.max()) + 1])


def values(part: ImageTable | None) -> set[tuple[int, int]]:
    assert part is not None
    return {(int(target), int(image[0, 0, 0])) for image, target in zip(part.images, part.targets, strict=True)}


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 0.6), st.integers(0, 2**32 - 1))
def test_all_copies_of_an_image_are_on_one_side(n_different: int, fraction: float, seed: int) -> None:
    whole = repeated(n_different, np.random.default_rng(seed).integers(0, 3, 80))
    splits = hold_out_test(Splits(whole), fraction, seed)
    assert splits.test is not None
    assert not values(splits.train) & values(splits.test)
    assert len(splits.train) + len(splits.test) == len(whole)
    different = np.array([len({pair for pair in values(whole) if pair[0] == label}) for label in range(3)])
    assert (splits.test.counts[different > 1] > 0).all()
    assert (splits.train.counts > 0).all()
    most = np.bincount(whole.targets * 60 + whole.images[:, 0, 0, 0]).max()
    assert (splits.test.counts <= np.maximum(np.rint(fraction * whole.counts), 1) + most - 1).all()
    n_copies = len(whole) - len(values(whole))
    are = "image is a copy" if n_copies == 1 else "images are copies"
    told = f"{n_copies} {are} of another one of their class: all copies of an image are on one side"
    assert (told in splits.notes) == (n_copies > 0)


def test_a_class_that_is_one_image_over_and_over_trains() -> None:
    whole = repeated(1, np.repeat([0, 1], (10, 1)))
    whole.images[5:10, 0, 0, 1] = range(1, 6)  # ten images of a bear: five alike, five of their own
    for seed in range(20):
        splits = hold_out_test(Splits(whole), 0.2, seed)
        assert splits.test is not None
        assert splits.test.counts.tolist() == [2, 0]
        assert splits.train.counts.tolist() == [8, 1]
    alike = hold_out_test(Splits(repeated(1, np.repeat([0, 1], (10, 4)))), 0.2)
    assert len(alike.train) == 14
    assert "classes of one image have no test image: bear, cat" in alike.notes


def test_a_small_class_of_copies_is_tested_all_the_same() -> None:
    whole = repeated(2, np.repeat([0, 1], (40, 4)))  # two images of a cat, twice each; a fifth would be one
    for seed in range(20):
        splits = hold_out_test(Splits(whole), 0.2, seed)
        assert splits.test is not None
        assert splits.test.counts[1] == splits.train.counts[1] == 2


def test_a_class_whose_copies_leave_too_few_to_validate_is_named() -> None:
    ids = np.repeat([0, 1], (50, 54))
    images = np.arange(104, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    images[50:] = 200
    with pytest.raises(InputError, match="copies of none that trains; got 0 of the 54 images of 'cat', many of them"):
        hold_out_validation(Splits(ImageTable(images, ids, ("bear", "cat"))), 0.1)
    images[50:] = 200 + np.arange(54, dtype=np.uint8)[:, None, None, None] // 6
    splits = hold_out_validation(Splits(ImageTable(images, ids, ("bear", "cat"))), 0.1)
    assert splits.val is not None
    assert splits.val.counts.tolist() == [5, 6]


def test_validation_keeps_copies_together_too() -> None:
    whole = repeated(30, np.repeat([0, 1], 60))
    splits = hold_out_validation(Splits(whole), 0.2)
    assert splits.val is not None
    assert splits.val.counts.tolist() == [12, 12]
    assert not values(splits.train) & values(splits.val)


# Folds


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_folds_spread_every_class_and_all_images_evenly(counts: list[int], n_folds: int, seed: int) -> None:
    targets = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = stratified_folds(targets, n_folds, seed)
    assert folds.shape == targets.shape
    for part in [targets == label for label in range(len(counts))] + [np.ones(len(targets), dtype=bool)]:
        sizes = np.bincount(folds[part], minlength=n_folds)
        assert len(sizes) == n_folds
        assert sizes.max() - sizes.min() <= 1


def test_folds_are_the_same_for_the_same_seed() -> None:
    targets = np.arange(60) % 3
    np.testing.assert_array_equal(stratified_folds(targets, 5, 1), stratified_folds(targets, 5, 1))
    assert not np.array_equal(stratified_folds(targets, 5, 1), stratified_folds(targets, 5, 2))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_copies_share_a_fold_and_different_images_are_spread(n: int, n_copies: int, n_folds: int, seed: int) -> None:
    targets = np.repeat([0, 1], (n * n_copies, 3))
    copies = np.concatenate([np.arange(n * n_copies) % n, n * n_copies + np.arange(3)])
    folds = stratified_folds(targets, n_folds, seed, copies)
    assert (folds == folds[copies]).all()
    sizes = np.bincount(folds[:n], minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


def test_without_copies_folds_are_those_of_every_version() -> None:
    targets = np.arange(12) % 3
    np.testing.assert_array_equal(stratified_folds(targets, 5, 1, np.arange(12)), stratified_folds(targets, 5, 1))
