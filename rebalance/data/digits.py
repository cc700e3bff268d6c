"""scikit-learn's handwritten digits: 1,797 images of 8×8 px that every installation has, for demos and tests."""

from __future__ import annotations

import numpy as np

from rebalance.data.table import ImageTable, Splits

TRAIN_PER_CLASS = 110
"""Training pool; the other 64 to 73 images of each class are the test split."""


def read_digits(seed: int = 0) -> Splits:
    """Train (110 images of each digit) and test (the other 697), the same for every call with the same `seed`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(pixels[..., None], 3, axis=3)  # (N, 8, 8, 3)
    targets = digits.target.astype(np.int64)
    classes = tuple(str(digit) for digit in digits.target_names)
    stream = np.random.RandomState(seed)
    in_train = np.zeros(len(targets), dtype=np.bool_)
    for label in range(len(classes)):
        in_train[stream.permutation(np.flatnonzero(targets == label))[:TRAIN_PER_CLASS]] = True
    train = ImageTable(images[in_train], targets[in_train], classes)
    return Splits(train, test=ImageTable(images[~in_train], targets[~in_train], classes))
