from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rebalance import checkpoints, files
from rebalance.averaging import MovingAverage
from rebalance.checkpoints import load_checkpoint, save_checkpoint
from rebalance.errors import InputError


class Slowing(torch.optim.SGD):
    """An optimiser whose state holds a plain number."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["n"] = state.get("n", 0) + 1
            parameter.grad /= state["n"]
        super().step()


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
    "momentum": lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01),
    "slowing": lambda module: Slowing(module.parameters(), lr=0.1, momentum=0.9),
    "amsgrad": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01, amsgrad=True),
}


class Training:
    """A small network with every kind of state: batch norm, an average, an optimiser of two groups."""

    def __init__(self, optimizer: str = "momentum", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
        self.module(torch.zeros(2, 3, 5, 5))
        self.average = MovingAverage(self.module)
        self.optimizer = OPTIMIZERS[optimizer](self.module)
        self.modules: dict[str, nn.Module] = {"method": self.module, "average": self.average}

    def run(self, start: int, stop: int) -> None:
        for update in range(start, stop):
            images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(update))
            self.module(images).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.update(self.module, update)

    def save(self, folder: Path, update: int, **state: Any) -> None:
        save_checkpoint(folder, update, self.modules, self.optimizer, state)

    def load(self, folder: Path) -> dict[str, Any] | None:
        return load_checkpoint(folder, self.modules, self.optimizer)


def same(one: Training, other: Training) -> bool:
    return all(
        torch.equal(a, b)
        for name in one.modules
        for a, b in zip(one.modules[name].state_dict().values(), other.modules[name].state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [0, 3])
def test_a_resumed_training_ends_bit_for_bit_like_an_undisturbed_one(tmp_path: Path, optimizer: str, stop: int) -> None:
    undisturbed, first, second = (Training(optimizer, seed) for seed in (0, 0, 1))
    undisturbed.run(0, 7)
    first.run(0, stop)
    first.save(tmp_path, stop)
    assert not same(first, second)
    assert second.load(tmp_path) == {"update": stop}
    assert same(first, second)
    second.run(stop, 7)
    assert same(undisturbed, second)


def test_the_state_comes_back_and_hyper_parameters_are_those_of_today(tmp_path: Path) -> None:
    Training().save(tmp_path, 12, best={"epoch": 3, "accuracy": 0.1}, history=[[1, 2.5]], none=None)
    training = Training()
    training.optimizer.param_groups[0]["lr"] = 0.7
    state = training.load(tmp_path)
    assert state == {"update": 12, "best": {"epoch": 3, "accuracy": 0.1}, "history": [[1, 2.5]], "none": None}
    assert training.optimizer.param_groups[0]["lr"] == 0.7


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    training, untouched = Training(), Training()
    assert training.load(tmp_path / "none") is None
    assert same(training, untouched)


def test_only_the_newest_checkpoint_is_kept_and_all_of_it_is_plain(tmp_path: Path) -> None:
    training = Training()
    for update in (5, 10, 15):
        training.save(tmp_path, update)
        (tmp_path / "best.safetensors").touch()
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "last.json", "update_0000015"]
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


class Killed(BaseException):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End at the `step`-th thing that is done to the disk: a write (half of it is done), a rename, a removal."""
    left = [step]
    replace, write, rmtree = Path.replace, files.write_bytes, shutil.rmtree

    def due() -> bool:
        left[0] -= 1
        return left[0] == 0

    def replacing(path: Path, target: Path) -> Any:
        if due():
            raise Killed
        return replace(path, target)

    def writing(path: Path, content: bytes) -> None:
        if due():
            path.with_name(f".{path.name}.1.tmp").write_bytes(content[: len(content) // 2])
            raise Killed
        write(path, content)

    def removing(path: Path, ignore_errors: bool = False) -> None:
        if not Path(path).exists():
            return
        if due():
            next(iter(sorted(Path(path).iterdir()))).unlink()
            raise Killed
        rmtree(path, ignore_errors)

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(files, "write_bytes", writing)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", removing)


@pytest.mark.parametrize("second", [3, 6])  # the same update again, and a later one
@pytest.mark.parametrize("step", range(1, 13))
def test_a_kill_at_any_step_leaves_a_whole_checkpoint(tmp_path: Path, step: int, second: int) -> None:
    training, old, new = Training(), Training(), Training()
    for each in (training, old):
        each.run(0, 3)
    new.run(0, second)
    training.save(tmp_path, 3)
    training.run(3, second)
    killed = True
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_at(monkeypatch, step)
        try:
            training.save(tmp_path, second)
            killed = False
        except Killed:
            pass
    resumed = Training(seed=9)
    state = resumed.load(tmp_path)
    assert state is not None
    assert same(resumed, old if state["update"] == 3 else new)
    assert state["update"] in (3, second)
    assert killed == (step <= 11)  # five files of two steps each, the old folder
    resumed.run(state["update"], 8)
    resumed.save(tmp_path, 8)
    assert len(list(tmp_path.glob("update_*"))) == 1
    again = Training(seed=9)
    assert again.load(tmp_path) == {"update": 8}
    assert same(again, resumed)


@pytest.mark.parametrize(
    "damage",
    ["method.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "last.json", "folder"],
)
@pytest.mark.parametrize("how", ["missing", "truncated", "text"])
def test_damage_is_one_clear_error(tmp_path: Path, damage: str, how: str) -> None:
    training = Training()
    training.run(0, 2)
    training.save(tmp_path, 2)
    (folder,) = tmp_path.glob("update_*")
    path = {"folder": folder, "last.json": tmp_path / "last.json"}.get(damage, folder / damage)
    if damage == "folder":
        shutil.rmtree(path)
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if how == "truncated" else b"[1, 2]")
    if (damage, how) == ("last.json", "missing"):
        assert training.load(tmp_path) is None
        return
    with pytest.raises(InputError, match=r"a whole checkpoint of this run; got .*; start the run again with --no-res"):
        training.load(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    training = Training()
    training.save(tmp_path, 1)
    training.modules["method"] = nn.Linear(2, 2)
    with pytest.raises(InputError, match="a whole checkpoint of this run"):
        training.load(tmp_path)
