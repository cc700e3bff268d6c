from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from rebalance.data.digits import read_digits


def test_train_holds_110_of_each_digit_and_test_the_rest() -> None:
    splits = read_digits()
    assert splits.train.counts.tolist() == [110] * 10
    assert splits.test is not None
    assert len(splits.test) == 697
    assert splits.test.counts.min() == 64
    assert splits.classes == tuple("0123456789")


def test_pixels_are_those_of_scikit_learn_in_three_equal_channels() -> None:
    splits = read_digits()
    assert splits.test is not None
    both = np.concatenate([np.asarray(splits.train.images), np.asarray(splits.test.images)])
    assert (both.shape, both.dtype) == ((1797, 8, 8, 3), np.uint8)
    assert (both == both[..., :1]).all()
    expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in both[..., 0]) == sorted(image.tobytes() for image in expected)


def test_labels_stay_with_their_images() -> None:
    digits = load_digits()
    label = {np.rint(x * 255 / 16).astype(np.uint8).tobytes(): y for x, y in zip(digits.images, digits.target)}  # noqa: B905
    train = read_digits().train
    assert [label[np.asarray(image)[..., 0].tobytes()] for image in train.images] == train.targets.tolist()


def test_the_seed_decides_the_split() -> None:
    first, again, other = read_digits(0), read_digits(0), read_digits(1)
    np.testing.assert_array_equal(np.asarray(first.train.images), np.asarray(again.train.images))
    assert not np.array_equal(np.asarray(first.train.images), np.asarray(other.train.images))
    assert other.train.counts.tolist() == [110] * 10
