"""What may be resampled, comes back as it was, and costs no second copy."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone

from rebalance.errors import InputError
from rebalance.resampling import (
    DeferredSampler,
    EffectiveNumberSampler,
    FillSampler,
    InverseFrequencySampler,
    ProgressiveSampler,
    SquareRootSampler,
)
from rebalance.resampling.base import AnyRowsSampler

CODES = np.random.default_rng(1).permutation(np.repeat(np.arange(5), [300, 70, 20, 3, 1]))
NAMES = np.array(["bear", "cat", "dog", "elk", "ñandú"])
ROWS = np.arange(CODES.size).reshape(-1, 1)
SAMPLERS = [
    InverseFrequencySampler(random_state=3),
    InverseFrequencySampler(exponent=0.3, random_state=3),
    SquareRootSampler(random_state=3),
    EffectiveNumberSampler(cb_beta=0.99, random_state=3),
    ProgressiveSampler(progress=0.25, random_state=3),
    DeferredSampler(random_state=3),
    FillSampler(random_state=3),
    DeferredSampler(progress=0.1),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_stacks_keep_dtype_and_shape(sampler: AnyRowsSampler, dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (CODES.size, 4, 5, 3)).astype(dtype)
    before = images.copy()
    X, y = sampler.fit_resample(images, NAMES[CODES])
    assert (X.dtype, X.shape[1:], len(X)) == (dtype, (4, 5, 3), len(y))
    np.testing.assert_array_equal(X, images[sampler.sample_indices_])
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    "labels", [CODES, NAMES[CODES], CODES % 2 == 0, CODES.astype(float), NAMES[CODES].astype(object)]
)
def test_every_kind_of_rows_and_labels(sampler: AnyRowsSampler, labels: np.ndarray) -> None:
    paths = np.array([f"images/{row}.jpg" for row in range(CODES.size)])
    with_nan = np.where(np.arange(CODES.size) % 7 == 0, np.nan, 1.0).reshape(-1, 1)
    frame = pd.DataFrame(
        {"path": paths, "width": np.arange(CODES.size, dtype=np.int16)}, index=np.arange(CODES.size) + 1000
    )
    sparse = scipy.sparse.random(CODES.size, 6, density=0.3, format="csr", random_state=0)
    for rows in (paths.reshape(-1, 1), paths.reshape(-1, 1).astype(object), with_nan, sparse, sparse.tocsc(), frame):
        X, y = sampler.fit_resample(rows, labels)
        taken = sampler.sample_indices_
        assert y.dtype == labels.dtype
        np.testing.assert_array_equal(y, labels[taken])
        if isinstance(rows, pd.DataFrame):
            pd.testing.assert_frame_equal(X, rows.iloc[taken])
        elif scipy.sparse.issparse(rows):
            assert X.format == rows.format
            assert (rows.tocsr()[taken] != X).nnz == 0
        else:
            assert X.dtype == rows.dtype
            np.testing.assert_array_equal(X, rows[taken])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_label_containers_come_back(sampler: AnyRowsSampler) -> None:
    frame = pd.DataFrame({"path": np.arange(CODES.size)}, index=np.arange(CODES.size) + 1000)
    for series in (pd.Series(NAMES[CODES], name="kind", index=frame.index), pd.Series(NAMES[CODES], dtype="category")):
        X, y = sampler.fit_resample(frame, series)
        assert (y.name, y.dtype) == (series.name, series.dtype)
        pd.testing.assert_index_equal(y.index, X.index)
    one_hot = np.eye(5, dtype=int)[CODES]
    y = sampler.fit_resample(ROWS, one_hot)[1]
    np.testing.assert_array_equal(y, one_hot[sampler.sample_indices_])
    y = sampler.fit_resample(ROWS, CODES[:, None])[1]
    np.testing.assert_array_equal(y, CODES[sampler.sample_indices_])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_one_look_at_the_labels_ends_as_imbalanced_learns_way(sampler: AnyRowsSampler) -> None:
    labels = NAMES[CODES].astype(object)
    quick, slow = clone(sampler).set_params(random_state=1), clone(sampler).set_params(random_state=1)
    X, y = quick.fit_resample(ROWS, labels)
    other_X, other_y = super(AnyRowsSampler, slow).fit_resample(ROWS, labels)
    np.testing.assert_array_equal(X, other_X)
    np.testing.assert_array_equal(y, other_y)
    assert {k: v for k, v in vars(quick).items() if k.endswith("strategy_")} == {
        k: v for k, v in vars(slow).items() if k.endswith("strategy_")
    }
    assert quick.n_features_in_ == slow.n_features_in_ == 1


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        (["a", None, "b"], "None"),
        (np.array(["a", np.nan, "b"], dtype=object), "nan"),
        ([0.0, np.nan, 1.0], "nan"),
        (pd.Series(["a", None, "b"], dtype="category"), "nan"),
        (pd.Series([0, None, 1], dtype="Int64"), "<NA>|nan"),
    ],
)
def test_a_row_without_a_label_is_named(sampler: AnyRowsSampler, labels: Any, missing: str) -> None:
    with pytest.raises(
        InputError, match=rf"a label for every row; got none \({missing}\) in row 1; leave such rows out"
    ):
        sampler.fit_resample(ROWS[:3], labels)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_what_cannot_be_resampled_is_refused(sampler: AnyRowsSampler) -> None:
    with pytest.raises(ValueError, match=r"needs to have more than 1 class\. Got 1 class"):
        sampler.fit_resample(ROWS[:3], ["a", "a", "a"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sampler.fit_resample(ROWS, [0, 1])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        sampler.fit_resample(ROWS[:3], [0.5, 1.5, 2.5])
    with pytest.raises(ValueError, match="Multilabel and multioutput targets are not supported"):
        sampler.fit_resample(ROWS[:3], np.array([[1, 1], [0, 1], [1, 0]]))
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array of names .* np\.reshape\(X, \(-1, 1\)\)"):
        sampler.fit_resample(["a.png", "b.png", "c.png"], [0, 0, 1])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        sampler.fit_resample([1.0, 2.0, 3.0], [0, 1, 1])
    with pytest.raises(ValueError, match="0 sample"):
        sampler.fit_resample(np.empty((0, 3)), [])
    with pytest.raises((ValueError, TypeError)):
        sampler.fit_resample(ROWS[:3], None)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint64, np.int64])
def test_labels_at_the_ends_of_their_type_come_back(dtype: type) -> None:
    info = np.iinfo(dtype)
    high = info.max if dtype is not np.int8 else 100
    labels = np.array([high - 1] * 5 + [high] * 2, dtype=dtype)
    if dtype is np.int8:
        labels = np.array([-100] * 60 + [100] * 20, dtype=dtype)
    _, y = FillSampler().fit_resample(np.arange(len(labels))[:, None], labels)
    assert y.dtype == dtype
    values, counts = np.unique(y, return_counts=True)
    assert (values.tolist(), counts[0]) == (sorted(set(labels.tolist())), counts[1])


@pytest.mark.parametrize("sampler", [InverseFrequencySampler(random_state=0), FillSampler(random_state=0)], ids=str)
def test_images_are_copied_once(sampler: AnyRowsSampler) -> None:
    images = np.zeros((2000, 64, 64), np.uint8)
    y = np.repeat([0, 1], [1500, 500])
    tracemalloc.start()
    X, _ = sampler.fit_resample(images, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes + 17 * 2**20  # of which 16 MiB are freed before a draw
