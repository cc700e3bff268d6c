from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalance.errors import InputError
from rebalance.samplers import EpochSampler, MixedSourceSampler

REAL = np.repeat(np.arange(3), [70, 20, 10])
SYNTHETIC = np.repeat(np.arange(3), [0, 50, 60])


def mixed(**options: object) -> MixedSourceSampler:
    real = EpochSampler(REAL, rule="inverse", classes=["a", "b", "c"], seed=1)
    synthetic = EpochSampler(SYNTHETIC, classes=["a", "b", "c"], seed=2)
    return MixedSourceSampler(real, synthetic, **{"batch_size": 8, "real_share": 0.3, **options})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(batch_size=st.integers(1, 40), real_share=st.floats(0, 1), num_samples=st.integers(1, 400), drop=st.booleans())
def test_the_real_share_is_exact(batch_size: int, real_share: float, num_samples: int, drop: bool) -> None:
    if drop and num_samples < batch_size:
        return
    sampler = mixed(batch_size=batch_size, real_share=real_share, num_samples=num_samples, drop_last=drop)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert min(map(len, batches)) == sampler.smallest_batch
    assert sum(map(len, batches)) == (num_samples - num_samples % batch_size if drop else num_samples)
    n_real = rows = 0
    for batch in batches:
        here = sum(row < REAL.size for row in batch)
        assert abs(here - real_share * len(batch)) <= 1
        assert max(batch) < REAL.size + SYNTHETIC.size
        n_real, rows = n_real + here, rows + len(batch)
        assert abs(n_real - real_share * rows) <= 0.5 + 1e-9


def test_draws_follow_each_samplers_rule() -> None:
    sampler = mixed(num_samples=1000)
    rows = np.concatenate(list(sampler.batches()))
    real, synthetic = sampler.expected_counts()
    np.testing.assert_allclose(real, [100, 100, 100])
    np.testing.assert_allclose(synthetic, 700 * np.array([0, 50, 60]) / 110)
    is_real = rows < REAL.size
    assert np.abs(np.bincount(REAL[rows[is_real]], minlength=3) - real).max() < 1
    assert np.abs(np.bincount(SYNTHETIC[rows[~is_real] - REAL.size], minlength=3) - synthetic).max() < 1
    for c in range(3):
        times = np.bincount(rows[is_real], minlength=REAL.size)[c == REAL]
        assert times.max() - times.min() <= 1


def test_an_epoch_is_as_long_as_the_real_rows() -> None:
    sampler = mixed()
    assert sampler.num_samples == REAL.size
    assert len(sampler) == 13
    assert len(mixed(drop_last=True)) == 12


def test_without_synthetic_rows_every_row_is_real() -> None:
    sampler = MixedSourceSampler(EpochSampler(REAL), None, batch_size=8, real_share=0.3)
    rows = [row for batch in sampler for row in batch]
    assert sorted(rows) == list(range(100))
    np.testing.assert_allclose(np.sum(sampler.expected_counts(), axis=0), [70, 20, 10])


@pytest.mark.parametrize("done", [0, 1, 8, 24, 99, 100])
def test_resume_in_the_middle_yields_the_rest(done: int) -> None:
    sampler = mixed()
    sampler.set_epoch(5)
    whole = list(sampler)
    sampler.consumed(done)
    resumed = MixedSourceSampler(
        EpochSampler(REAL, rule="inverse"), EpochSampler(SYNTHETIC), batch_size=8, real_share=0.3
    )
    resumed.load_state_dict(sampler.state_dict())
    if done % 8 == 0 or done == 100:
        assert list(resumed) == whole[-(-done // 8) :]
    rest = sorted(row for batch in resumed for row in batch)
    assert len(rest) == 100 - done


def test_epochs_and_sources_differ() -> None:
    sampler = mixed()
    first = list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    twin = EpochSampler(REAL)
    both = MixedSourceSampler(twin, EpochSampler(REAL), batch_size=2, real_share=0.5, num_samples=200)
    rows = np.array(list(both))
    assert (rows[:, 0] != rows[:, 1] - REAL.size).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real_share": 1.1}, r"real_share in \[0, 1\]; got 1.1"),
        ({"real_share": float("nan")}, r"real_share in \[0, 1\]"),
        ({"batch_size": 0}, "batch_size as a whole number of at least 1"),
        ({"num_samples": 0}, "num_samples as a whole number from 1"),
        ({"batch_size": 101, "drop_last": True}, "expected at least one full batch; got 100 rows"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixed(**options)
