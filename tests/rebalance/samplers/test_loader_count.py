"""What the loop says of an epoch stands above the count of a prepared loader, which starts at 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler, MixedSourceSampler
from rebalance.samplers.foreign import ForeignSampler

LABELS = [row % 4 for row in range(64)]
KINDS = ["rows", "classes", "mixed", "foreign", "one part"]
LOADERS = ["one process", "rank 0 of 2", "rank 1 of 2", "dispatched"]
every_loader = pytest.mark.parametrize("prepared", LOADERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str) -> Any:
    if kind == "classes":
        return ClassBatchSampler(LABELS, 4, 2, seed=1)
    if kind == "mixed":
        return MixedSourceSampler(EpochSampler(LABELS), EpochSampler(LABELS), batch_size=8, real_share=0.5)
    if kind == "foreign":
        return ForeignSampler(torch.utils.data.RandomSampler(LABELS))
    if kind == "one part":
        return DistributedEpochSampler(LABELS, num_replicas=1, rank=0)
    return EpochSampler(LABELS, seed=1)


def batched(sampler: Any) -> dict[str, Any]:
    if isinstance(sampler, (ClassBatchSampler, MixedSourceSampler)):
        return {"batch_sampler": sampler}
    return {"sampler": sampler, "batch_size": 8}


def prepare(sampler: Any, prepared: str) -> Any:
    accelerator = Accelerator(cpu=True)
    loader = DataLoader(TensorDataset(torch.arange(128)), **batched(sampler))
    if prepared == "one process":
        return accelerator.prepare(loader)
    if prepared == "dispatched":
        return prepare_data_loader(loader, dispatch_batches=True, put_on_device=True)
    return prepare_data_loader(
        loader, num_processes=2, process_index=int(prepared[5]), put_on_device=False, rng_types=[]
    )


def drawn(loader: Any) -> list[list[int]]:
    return [rows.tolist() for (rows,) in loader]


def expected(kind: str, epoch: int, prepared: str, used: int = 0) -> list[list[int]]:
    """Batches of `epoch` from the used ones on, as far as the loader's process has them."""
    sampler = make(kind)
    sampler.set_epoch(epoch)
    options = batched(sampler)
    batches = options.get("batch_sampler") or BatchSampler(options["sampler"], 8, drop_last=False)
    rest = list(batches)[used:]
    return rest[int(prepared[5]) :: 2] if prepared.startswith("rank") else rest


def state(kind: str, epoch: int, rows: int) -> dict[str, Any]:
    sampler = make(kind)
    sampler.set_epoch(epoch)
    sampler.consumed(rows)
    return sampler.state_dict()  # type: ignore[no-any-return]


@every_kind
@every_loader
def test_a_loaded_position_is_gone_on_from(kind: str, prepared: str) -> None:
    sampler = make(kind)
    loader = prepare(sampler, prepared)
    sampler.load_state_dict(state(kind, 3, 32))
    assert drawn(loader) == expected(kind, 3, prepared, used=4)
    assert drawn(loader) == expected(kind, 4, prepared)
    assert drawn(loader) == expected(kind, 5, prepared)


@every_loader
@pytest.mark.parametrize("first", ["state", "epoch"])
def test_a_loaded_position_stays_where_the_loader_is_told_its_epoch(prepared: str, first: str) -> None:
    sampler = make("classes")
    loader = prepare(sampler, prepared)
    if first == "epoch":
        loader.set_epoch(3)
    sampler.load_state_dict(state("classes", 3, 32))
    if first == "state":
        loader.set_epoch(3)
    assert drawn(loader) == expected("classes", 3, prepared, used=4)
    loader.set_epoch(4)
    assert drawn(loader) == expected("classes", 4, prepared)


@every_kind
@every_loader
def test_an_epoch_that_the_sampler_is_told_is_drawn(kind: str, prepared: str) -> None:
    sampler = make(kind)
    loader = prepare(sampler, prepared)
    for epoch in (3, 4, 9):
        sampler.set_epoch(epoch)
        assert drawn(loader) == expected(kind, epoch, prepared)
    assert drawn(loader) == expected(kind, 10, prepared)


@every_loader
def test_a_loop_that_stops_in_the_middle_of_epochs_draws_those_it_tells_the_sampler(prepared: str) -> None:
    sampler = make("rows")
    loader = prepare(sampler, prepared)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        (rows,) = next(iter(loader))  # the loader counts whole iterations alone
        assert rows.tolist() == expected("rows", epoch, prepared)[0]


@every_kind
@every_loader
def test_a_loop_that_tells_nobody_draws_as_the_loader_counts(kind: str, prepared: str) -> None:
    sampler = make(kind)
    loader = prepare(sampler, prepared)
    assert [drawn(loader) for _ in range(3)] == [expected(kind, epoch, prepared) for epoch in range(3)]


@every_loader
def test_an_epoch_that_the_loader_is_told_is_drawn(prepared: str) -> None:
    sampler = make("classes")
    loader = prepare(sampler, prepared)
    for epoch in (5, 1, 0):
        loader.set_epoch(epoch)
        assert drawn(loader) == expected("classes", epoch, prepared)


def test_a_finished_epoch_that_was_loaded_leads_to_the_next() -> None:
    sampler = make("classes")
    loader = prepare(sampler, "one process")
    sampler.load_state_dict(state("classes", 3, 64))
    assert [drawn(loader) for _ in range(2)] == [expected("classes", epoch, "one process") for epoch in (4, 5)]


def test_a_finished_epoch_that_was_loaded_and_named_is_empty() -> None:
    sampler = make("classes")
    loader = prepare(sampler, "one process")
    sampler.load_state_dict(state("classes", 3, 64))
    loader.set_epoch(3)
    assert drawn(loader) == []


def test_a_loop_that_tells_nobody_but_what_is_consumed_draws_as_the_loader_counts() -> None:
    sampler = make("classes")
    loader = prepare(sampler, "one process")
    for epoch in range(3):
        assert drawn(loader) == expected("classes", epoch, "one process")
        sampler.consumed(64)


def test_a_second_loader_that_counts_anew_draws_no_epoch_before_the_first() -> None:
    sampler = make("classes")
    first, second = (prepare(sampler, "one process") for _ in range(2))
    first.set_epoch(5)
    sampler.set_epoch(3)
    assert drawn(first) == expected("classes", 3, "one process")
    assert drawn(second) == expected("classes", 0, "one process")


def test_iterators_of_the_user_name_epochs_as_loops_do() -> None:
    class Epochs:
        def __iter__(self) -> Any:
            for epoch in (0, 4, 2):
                sampler.set_epoch(epoch)
                yield list(sampler)

    sampler = make("classes")
    sampler.load_state_dict(state("classes", 1, 64))
    assert list(Epochs()) == [expected("classes", epoch, "one process") for epoch in (0, 4, 2)]


def test_batches_that_accelerate_skips_are_those_of_the_epoch_that_the_loader_was_told() -> None:
    sampler = make("classes")
    loader = prepare(sampler, "one process")
    loader.set_epoch(3)
    assert drawn(skip_first_batches(loader, 3)) == expected("classes", 3, "one process", used=3)


def test_a_loop_that_names_another_epoch_than_was_loaded_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sampler = make("classes")
    sampler.load_state_dict(state("classes", 3, 24))
    sampler.set_epoch(0)
    assert "set_epoch(0) leaves epoch 3, which was loaded after 24 of its 64 draws: the rest is not" in caplog.text
    sampler.set_epoch(1)
    assert caplog.text.count("the rest is not drawn") == 1


@pytest.mark.parametrize("rows", [0, 64])
def test_a_loop_that_names_another_epoch_than_a_whole_one_is_not_told(
    rows: int, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = make("rows")
    sampler.load_state_dict(state("rows", 3, rows))
    sampler.set_epoch(4)
    assert caplog.text == ""


def test_a_loop_that_began_with_what_was_loaded_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    sampler = make("rows")
    sampler.load_state_dict(state("rows", 3, 24))
    assert len(list(sampler)) == 40
    sampler.set_epoch(4)
    assert caplog.text == ""


def test_fabric_counts_as_accelerate_does() -> None:
    fabric = pytest.importorskip("lightning.fabric")
    sampler = make("classes")
    loader = fabric.Fabric(accelerator="cpu", devices=1).setup_dataloaders(
        DataLoader(TensorDataset(torch.arange(64)), batch_sampler=sampler), use_distributed_sampler=False
    )
    assert drawn(loader) == expected("classes", 0, "one process")
    sampler.load_state_dict(state("classes", 3, 32))
    assert drawn(loader) == expected("classes", 3, "one process", used=4)
    assert drawn(loader) == expected("classes", 4, "one process")
