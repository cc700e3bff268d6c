from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from generators.rare_feature_losses import center_loss, variation_loss


def test_center_loss_equals_the_formula_written_as_loops() -> None:
    torch.manual_seed(0)
    maps, centers = torch.randn(3, 2, 2, 3).double(), torch.randn(3, 4, 2).double()
    assignment = torch.randn(3, 4).double().softmax(1)
    expected = 0.0
    for i in range(3):
        for k in range(4):
            for c in range(2):
                for h in range(2):
                    for w in range(3):
                        difference = float(maps[i, c, h, w]) - float(centers[i, k, c])
                        expected += float(assignment[i, k]) * difference**2 / 3
    assert float(center_loss(maps, centers, assignment)) == pytest.approx(expected, rel=1e-12)


def test_center_loss_keeps_its_digits_far_from_the_origin() -> None:
    maps = 1000.0 + torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    centers = maps.mean(dim=(2, 3))[:, None]
    exact = (maps.double() - centers[..., None].double().squeeze(1)[..., None]).square().sum() / 2
    loss = center_loss(maps, centers, torch.ones(2, 1))
    assert float(loss) == pytest.approx(float(exact), rel=1e-3)


class LargestTensor(TorchDispatchMode):
    """The most elements of any tensor made that is no view of `given`."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given, self.elements = given.data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.data_ptr() != self.given:
                self.elements = max(self.elements, tensor.numel())
        return out


def test_center_loss_makes_nothing_as_large_as_the_maps() -> None:
    maps = torch.randn(8, 64, 14, 14)
    centers = torch.randn(8, 15, 64, requires_grad=True)
    assignment = torch.full((8, 15), 1 / 15, requires_grad=True)
    with LargestTensor(maps) as largest:
        center_loss(maps, centers, assignment).backward()
    assert 0 < largest.elements < maps.numel()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_center_loss_takes_a_fraction_of_the_memory_of_its_formula() -> None:
    program = """
import torch
from generators.rare_feature_losses import center_loss
def megabytes(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1]) / 1024
maps = torch.randn(64, 1024, 14, 14)
centers = torch.randn(64, 15, 1024, requires_grad=True)
assignment = torch.full((64, 15), 1 / 15, requires_grad=True)
center_loss(maps[:1], centers[:1], assignment[:1]).backward()
before = megabytes("VmRSS")
center_loss(maps, centers, assignment).backward()
print(megabytes("VmHWM") - before)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    output = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert float(output.stdout) < 100  # the formula as it stands makes 64 x 15 x 1024 x 14 x 14 floats: 735 MB


@pytest.mark.parametrize("layout", ["official", "per_location"])
def test_variation_loss_equals_the_formula_written_as_loops(layout: str) -> None:
    torch.manual_seed(0)
    v, u, t = (torch.randn(2, 3, 2, 2).double() for _ in range(3))

    def rows(maps: Tensor) -> list[list[float]]:
        found = []
        for sample in maps.tolist():
            if layout == "per_location":
                found += [[sample[c][h][w] for c in range(3)] for h in range(2) for w in range(2)]
            else:
                flat = [x for plane in sample for line in plane for x in line]
                found += [flat[start : start + 3] for start in range(0, len(flat), 3)]
        return found

    expected = 0.0
    for row_v, row_u, row_t in zip(rows(v), rows(u), rows(t), strict=True):
        length_v, length_u, length_t = (math.hypot(*row) for row in (row_v, row_u, row_t))
        expected += abs(length_u - length_v) / 2
        products = [a / length_t * b / length_u for a, b in zip(row_t, row_u, strict=True)]
        expected += (sum(abs(p - 1) for p in products) if layout == "official" else 1 - sum(products)) / 2
    assert float(variation_loss(v, u, t, layout)) == pytest.approx(expected, rel=1e-12)


def test_layouts_agree_on_single_locations_but_for_the_constant() -> None:
    torch.manual_seed(0)
    v, u, t = (torch.randn(2, 3, 1, 1) for _ in range(3))
    torch.testing.assert_close(variation_loss(v, u, t, "official"), variation_loss(v, u, t, "per_location") + 2.0)


@pytest.mark.parametrize("layout", ["official", "per_location"])
@pytest.mark.parametrize("dead", ["head", "tail"])
def test_dead_maps_give_no_nan_and_no_explosion(layout: str, dead: str) -> None:
    torch.manual_seed(0)
    t = torch.zeros(2, 3, 2, 2) if dead == "tail" else torch.randn(2, 3, 2, 2)
    u = torch.zeros(2, 3, 2, 2) if dead == "head" else torch.randn(2, 3, 2, 2)
    variation_loss(torch.randn(2, 3, 2, 2), u.requires_grad_(), t, layout).backward()
    assert u.grad is not None
    assert float(u.grad.abs().max()) < 10
