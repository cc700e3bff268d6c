from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rebalance.averaging import MovingAverage
from rebalance.errors import InputError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def test_the_average_follows_by_a_decay_that_warms_up() -> None:
    module = network()
    average = MovingAverage(module, 0.5)
    expected = module[0].weight.detach().clone()
    for t in range(20):
        with torch.no_grad():
            module[0].weight.add_(1.0)
        average.update(module, t)
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * module[0].weight.detach()
    torch.testing.assert_close(average.average[0].weight, expected)
    assert (1 + 8) / (10 + 8) == 0.5  # so that both branches were walked


def test_batch_norm_statistics_are_averaged_and_counters_copied() -> None:
    module = network()
    average = MovingAverage(module, 0.9)
    for t in range(3):
        module(torch.full((4, 4), 10.0 + t))
        average.update(module, t)
    ours, theirs = average.average[1], module[1]
    assert isinstance(ours, nn.BatchNorm1d)
    assert isinstance(theirs, nn.BatchNorm1d)
    assert ours.num_batches_tracked is not None
    assert int(ours.num_batches_tracked) == 3
    assert not torch.equal(ours.running_mean, theirs.running_mean)  # type: ignore[arg-type]


def test_a_decay_of_zero_is_a_copy() -> None:
    module = network()
    average = MovingAverage(module, 0.0)
    nn.init.uniform_(module[0].weight)
    average.update(module, 1000)
    torch.testing.assert_close(average.average.state_dict(), module.state_dict())


def test_the_average_is_apart_from_the_module_and_learns_nothing() -> None:
    module = network()
    average = MovingAverage(module)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    before = average.average[0].weight.clone()
    nn.init.zeros_(module[0].weight)
    assert torch.equal(average.average[0].weight, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_floating_point_type(dtype: torch.dtype) -> None:
    module = network().to(dtype)
    average = MovingAverage(module, 0.5)
    nn.init.ones_(module[0].weight)
    average.update(module, 1000)
    assert average.average[0].weight.dtype == dtype
    expected = (network()[0].weight.to(dtype) + 1) / 2
    torch.testing.assert_close(average.average[0].weight, expected.detach(), rtol=1e-2, atol=1e-2)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS = pytest.mark.parametrize(
    "wrap",
    [
        lambda m: torch.compile(m, backend="eager"),
        nn.DataParallel,
        DistributedDataParallel,
        lambda m: torch.compile(DistributedDataParallel(m), backend="eager"),
    ],
    ids=["compiled", "parallel", "distributed", "compiled distributed"],
)


@WRAPPERS
@pytest.mark.usefixtures("process_group")
def test_a_wrapped_module_is_copied_without_its_wrapper(wrap: Any) -> None:
    module = network()
    average, plain = MovingAverage(wrap(module), 0.5), MovingAverage(module, 0.5)
    with torch.no_grad():
        module[0].weight.add_(1.0)
    average.update(wrap(module), 100)
    plain.update(module, 100)
    torch.testing.assert_close(average.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert average.average(torch.ones(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 999, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match=rf"expected a decay in \[0, 1\); got {decay}; use for example 0.999"):
        MovingAverage(network(), decay)


@WRAPPERS
@pytest.mark.usefixtures("process_group")
def test_a_wrapped_module_is_followed_by_its_own_names(wrap: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(module, 0.5)
    plain = MovingAverage(module, 0.5)
    with torch.no_grad():
        module[0].weight.add_(1.0)
    average.update(wrap(module), 100)
    plain.update(module, 100)
    for name, value in plain.average.state_dict().items():
        torch.testing.assert_close(average.average.state_dict()[name], value, rtol=0, atol=0)


def test_using_the_average_does_not_move_it() -> None:
    average = MovingAverage(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train(), 0.5)
    before = {name: value.clone() for name, value in average.average.state_dict().items()}
    average.average(torch.randn(8, 3) + 5)
    for name, value in average.average.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
