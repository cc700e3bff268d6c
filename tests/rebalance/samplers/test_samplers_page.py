"""The page of one-line changes: its snippets run, and its claims hold of the packages they are about."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from rebalance.resampling import FillSampler
from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler

PAGE = (Path(__file__).parents[3] / "docs" / "samplers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
ROWS = np.repeat([0, 1, 2], [90, 24, 6])
IMAGES = (np.random.default_rng(0).integers(0, 90, (120, 8, 8)) + 80 * ROWS[:, None, None]).astype(np.uint8)


class Images(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, labels: np.ndarray = ROWS) -> None:
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 2, 2), self.labels[row]

    def get_labels(self) -> list[int]:
        return self.labels


@pytest.mark.filterwarnings("ignore:Use importlib.metadata:DeprecationWarning")  # torchsampler, at import
@pytest.mark.parametrize("title", SECTIONS)
def test_snippets_run(title: str) -> None:
    package = title.split(".")[0]
    if package in ("torchsampler", "pytorch_metric_learning"):
        pytest.importorskip(package)
    loaders: list[Any] = []
    names: dict[str, Any] = {
        "dataset": Images(),
        "labels": ROWS.tolist(),
        "some_rows": list(range(60, 120)),
        "epochs": 2,
        "train": lambda loader: loaders.append([targets.tolist() for _, targets in loader]),
        "step": lambda images, targets: None,
        "world": 2,
        "rank": 1,
        "DataLoader": DataLoader,
        "X": np.random.default_rng(0).normal(size=(120, 4)),
        "y": ROWS,
        "images": IMAGES,
    }
    if title.startswith("Generated"):
        names |= {"labels": ROWS[60:], "images": IMAGES[60:], "pixels": IMAGES[60:].reshape(60, 64)}
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[title], flags=re.S)
    assert blocks
    for block in blocks:
        short = re.sub(r"\b(updates|epochs)=\d+", r"\1=2", block)  # of trainings
        exec(compile(short, title, "exec"), names)
        if "loader" in names:
            drawn = [target for _, targets in names["loader"] for target in targets.tolist()]
            assert set(drawn) == (set() if title.startswith("Resuming") else {0, 1, 2})
    if loaders:
        assert loaders[0] != loaders[1]
    if title.startswith("Resuming"):
        assert list(names["resumed"]) == []
    if title.startswith("Generated"):
        assert names["added"] == {1: 6, 2: 24}
        assert (names["filled"].shape, names["filled"].dtype) == ((90, 8, 8), np.uint8)
        assert np.bincount(names["filled_labels"]).tolist() == [30, 30, 30]
    if title.startswith("The classifier"):
        assert names["probabilities"].shape == (120, 3)
        assert set(names["search"].best_params_) == {"method", "sampler_rule"}


def test_weighted_random_sampler_leaves_images_out() -> None:
    labels = np.repeat([0, 1], 5000)
    torch.manual_seed(0)
    theirs = list(WeightedRandomSampler(torch.ones(10_000), 10_000))
    assert 1 - len(set(theirs)) / 10_000 == pytest.approx(0.37, abs=0.02)
    assert np.bincount(labels[theirs])[0] != 5000
    ours = list(EpochSampler(labels, rule="inverse"))
    assert len(set(ours)) == 10_000


def test_weighted_random_sampler_ends_at_2_to_24_images() -> None:
    n = 2**24 + 1
    with pytest.raises(RuntimeError, match="number of categories cannot exceed"):
        next(iter(WeightedRandomSampler(torch.ones(n), 1)))
    sampler = EpochSampler(np.zeros(n, np.uint8), rule="inverse")
    begin = time.process_time()
    assert 0 <= next(iter(sampler)) < n
    assert time.process_time() - begin < 0.5


def test_weighted_random_sampler_needs_equal_seeds_and_starts_over() -> None:
    sampler = WeightedRandomSampler([1.0] * 100, 100)
    torch.manual_seed(0)
    first = list(sampler)
    torch.manual_seed(1)
    assert list(sampler) != first


@pytest.mark.filterwarnings("ignore:Use importlib.metadata:DeprecationWarning")
def test_imbalanced_dataset_sampler_mixes_up_shuffled_indices() -> None:
    torchsampler = pytest.importorskip("torchsampler")
    labels = np.repeat([0, 1, 2], [9000, 900, 100])
    indices = np.random.default_rng(0).permutation(10_000).tolist()
    dataset = Images(labels)
    torch.manual_seed(0)
    theirs = torchsampler.ImbalancedDatasetSampler(dataset, labels=labels[indices].tolist(), indices=indices)
    shares = np.bincount(labels[list(theirs)], minlength=3) / 10_000
    np.testing.assert_allclose(shares, [0.9, 0.09, 0.01], atol=0.02)
    part = Subset(dataset, indices)
    ours = np.array(indices)[list(EpochSampler(part, rule="inverse"))]
    np.testing.assert_allclose(np.bincount(labels[ours]) / 10_000, [1 / 3] * 3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Use importlib.metadata:DeprecationWarning")
def test_imbalanced_dataset_sampler_does_not_find_targets() -> None:
    torchsampler = pytest.importorskip("torchsampler")

    class WithTargets(Dataset[Any]):
        targets = (0, 0, 1)

        def __len__(self) -> int:
            return 3

    for dataset in (WithTargets(), Subset(WithTargets(), [0, 2])):
        with pytest.raises((AttributeError, NotImplementedError)):
            torchsampler.ImbalancedDatasetSampler(dataset)
        assert len(EpochSampler(dataset)) == len(dataset)


def test_m_per_class_sampler_has_one_length_for_all() -> None:
    pml = pytest.importorskip("pytorch_metric_learning.samplers")
    theirs = pml.MPerClassSampler(ROWS.tolist(), m=4, batch_size=12)
    assert len(theirs) == 99_996
    ours = ClassBatchSampler(ROWS, 3, 4)
    assert len(ours) * 12 == 120
    labels = np.random.default_rng(0).integers(0, 30, 900)
    np.random.seed(0)
    drawn = np.array(list(pml.MPerClassSampler(labels, m=4, batch_size=12, length_before_new_iter=900)))
    theirs_batches = np.bincount(labels[drawn], minlength=30) // 4
    assert np.ptp(theirs_batches) > 1
    batches = np.concatenate(list(ClassBatchSampler(labels, 3, 4).batches()))
    assert np.ptp(np.bincount(labels[batches], minlength=30) // 4) <= 1


def test_distributed_sampler_repeats_or_drops() -> None:
    dataset = Images(np.zeros(961, int))
    shards = [list(DistributedSampler(dataset, num_replicas=2, rank=rank)) for rank in range(2)]
    assert len(shards[0] + shards[1]) == 962
    ours = [list(DistributedEpochSampler(dataset, num_replicas=2, rank=rank, batch_size=32)) for rank in range(2)]
    assert len(ours[0]) == len(ours[1])
    assert sorted(row for rank in ours for batch in rank for row in batch) == list(range(961))


def test_random_over_sampler_refuses_images_and_repeats_unevenly() -> None:
    from imblearn.over_sampling import RandomOverSampler

    images = np.zeros((120, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="Found array with dim 4"):
        RandomOverSampler().fit_resample(images, ROWS)
    assert FillSampler().fit_resample(images, ROWS)[0].shape == (270, 4, 4, 3)
    X = np.arange(120)[:, None]
    theirs = np.bincount(RandomOverSampler(random_state=0).fit_resample(X, ROWS)[0][:, 0])[90:114]
    ours = np.bincount(FillSampler(random_state=0).fit_resample(X, ROWS)[0][:, 0])[90:114]
    assert np.ptp(theirs) > 1
    assert np.ptp(ours) <= 1


def test_rows_and_batches_the_other_way_round_fail_as_the_page_says() -> None:
    rows = DistributedEpochSampler(ROWS, num_replicas=1, rank=0)
    assert len(next(iter(DataLoader(Images(), batch_size=8, sampler=rows)))[1]) == 8
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        next(iter(DataLoader(Images(), batch_sampler=rows)))
    batches = DistributedEpochSampler(ROWS, num_replicas=1, rank=0, batch_size=8)
    assert len(next(iter(DataLoader(Images(), batch_sampler=batches)))[1]) == 8
    with pytest.raises(TypeError, match="list indices must be integers or slices, not list"):
        next(iter(DataLoader(Images(), batch_size=8, sampler=batches)))
