"""No update waits for the device: what is on it is never read, and nothing is sent there in a way that blocks.

The device is PyTorch's "meta": its tensors have no values, so whoever reads one fails at once. Transfers are watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from generators.class_conditional import NetworkSettings
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from pipelines import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, TrainConfig
from pipelines.loop import Step, TrainingData, training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import build_optimizer
from pipelines.preparation import prepare_training
from pipelines.recipes import RECIPES
from rebalance.averaging import MovingAverage
from rebalance.data.store import ResidentStore

UPDATES = 4
META = torch.device("meta")
OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in RECIPES if name != "composed"},
    **{name: {"method": name, "option": ("defer_until=0.5",)} for name in ("ce_drw", "ldam_drw", "mixup_drw")},
    "bcl": {"method": "bcl", "option": ("projection=8", "hidden=16")},
    "rsg": {"method": "rsg", "option": ("start=0.5",)},
    "cutmix": {"method": "balanced_softmax", "mix": "cutmix:1:1:0.5"},
    "cmo": {"method": "balanced_softmax", "mix": "cmo:1:1:0.5"},
    "autoencoder": {"method": "autoencoder", "option": ("stage=separate", "pretraining=0.5")},
    "founding": {"loss": ("ldam:0.1", "supcon:0.9"), "head": "cosine", "loss_rule": "inverse"},
}
WAITING = {"rsg": "how many rows it adds depends on the classes of the batch"}
"""Recipes that wait once an update, and why."""


class BlockingCopyError(Exception):
    """Something was sent to the device, and waited for."""


class StoppedError(Exception):
    """Enough was seen."""


class Watched(TorchDispatchMode):
    """Refuses transfers to the device that wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        sent = args and isinstance(args[0], Tensor) and args[0].device.type == "cpu"
        to_device = sent and torch.device(kwargs.get("device") or "cpu") == META
        if name == "_to_copy" and to_device and not kwargs.get("non_blocking"):
            raise BlockingCopyError("to(device) without non_blocking")
        if name == "copy_" and args[0].device == META and args[1].device.type == "cpu" and args[1].ndim:
            raise BlockingCopyError("copy_ from the CPU")
        if name == "lift_fresh" and args[0].device == META:
            raise BlockingCopyError("torch.tensor(…, device=…)")
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has none; float32 asks for none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def updates(
    noise: OpenData, objective: dict[str, Any], augment: str = "crop+flip", sam: float | None = None
) -> Iterator[Step]:
    """The updates of a training whose method, images and targets are on the device."""
    optimization = OptimizationConfig(
        updates=UPDATES, batch_size=16, warmup_epochs=0.0, clip_grad=1.0, sam=sam, amp="no"
    )
    config = TrainConfig(
        data=DataConfig(data="made", image_size=8, augment=augment),
        model=ModelConfig(model="small_cnn"),
        objective=ObjectiveConfig(**objective),
        optimization=optimization,
    )
    parts = prepare_training(config, replace(noise, config=config.data), torch.device("cpu"))
    method, data = parts.method.to(META), parts.data
    assert isinstance(data.store, ResidentStore)
    moved = TrainingData(
        ResidentStore(data.store.images.to(META)),
        data.targets.to(META),
        data.synthetic.to(META),
        data.weight.to(META),
        data.augment,
        data.mean.to(META),
        data.std.to(META),
    )
    average = MovingAverage(method.classifier)
    optimizer = build_optimizer(method, optimization, method.learning_rate_factors)
    return training_steps(method, method, optimizer, moved, parts.batches, optimization, seed=0, average=average)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_update_waits_for_the_device(name: str, noise: OpenData) -> None:
    steps = updates(noise, OBJECTIVES[name])
    with Watched():
        if name in WAITING:
            with pytest.raises(NotImplementedError, match="nonzero"):
                list(steps)
        else:
            assert len(list(steps)) == UPDATES


@pytest.mark.parametrize("name", ["sphereface", "paco", "autoencoder"])
def test_no_sharpness_aware_update_waits_for_the_device(name: str, noise: OpenData) -> None:
    steps = updates(noise, OBJECTIVES[name], sam=0.1)
    with Watched():
        assert len(list(steps)) == UPDATES


def test_no_taught_update_waits_for_the_device(noise: OpenData, untrained: Path) -> None:
    steps = updates(noise, {"teacher": untrained}, sam=0.1)
    with Watched():
        assert len(list(steps)) == UPDATES


@pytest.mark.parametrize("augment", ["none", "strong", "sim", "rand", "randstack", "trivialaugment"])
def test_no_augmentation_waits_for_the_device(augment: str, noise: OpenData) -> None:
    steps = updates(noise, {"method": "ce"}, augment)
    with Watched():
        assert len(list(steps)) == UPDATES


def test_no_update_of_the_generator_waits_for_the_device() -> None:
    images, labels = torch.zeros(10, 3, 8, 8, dtype=torch.uint8, device=META), torch.tensor([0] * 8 + [1] * 2)
    settings = TrainingSettings(updates=20, batch_size=4, shift=1)
    network = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1)
    done: list[int] = []

    def watch(n: int, loss: float) -> None:
        done.append(n)
        if len(done) == 1:
            stack.enter_context(Watched())  # the first update sends the noise schedule's constants
        if len(done) == 5:
            raise StoppedError

    with ExitStack() as stack, pytest.raises(StoppedError):
        train_class_conditional(images, labels, network, settings, progress=watch)
    assert len(done) == 5
