"""The loop's fast path against a training written plainly, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, TrainConfig
from pipelines.loop import training_steps
from pipelines.open_data import open_data
from pipelines.optimization import build_optimizer
from pipelines.preparation import Prepared, prepare_training
from rebalance.data.table import ImageTable, Splits
from rebalance.ranks import derive_seed

SIZE, UPDATES, SEED = 16, 6, 3
CPU = torch.device("cpu")
OPTIMIZATION = OptimizationConfig(updates=UPDATES, batch_size=16, warmup_epochs=0.0, amp="no", channels_last=True)


def prepared() -> tuple[Prepared, ImageTable]:
    stream = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), (30, 12, 6))
    table = ImageTable(stream.integers(0, 256, (len(targets), SIZE, SIZE, 3), dtype=np.uint8), targets, tuple("abc"))
    config = TrainConfig(
        data=DataConfig(data="made", image_size=SIZE, augment="crop:2+flip"),
        model=ModelConfig(model="resnet20"),
        objective=ObjectiveConfig(method="ce"),
        optimization=OPTIMIZATION,
        seed=SEED,
    )
    return prepare_training(config, open_data(config.data, CPU, Splits(table)), CPU), table


def plain_image(pixels: np.ndarray, uniforms: list[float], mean: Tensor, std: Tensor) -> Tensor:
    """One image padded by 2, cropped, mirrored and normalised; as in a data set's `__getitem__`."""
    padded = np.zeros((SIZE + 4, SIZE + 4, 3), dtype=np.uint8)
    padded[2:-2, 2:-2] = pixels
    top, left = int(5 * uniforms[0]), int(5 * uniforms[1])
    pixels = padded[top : top + SIZE, left : left + SIZE]
    if uniforms[2] < 0.5:
        pixels = pixels[:, ::-1]
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return (tensor - mean[:, None, None]) / std[:, None, None]


def test_fast_path_gives_the_losses_and_weights_of_a_plain_training() -> None:
    """Float32, NCHW, images one by one: the first losses agree to 1e-5, those after six updates to 1e-3 of their size,
    since every update multiplies the roundings in which the two layouts differ."""
    fast, _ = prepared()
    steps = training_steps(
        fast.method,
        fast.method,
        build_optimizer(fast.method, OPTIMIZATION),
        fast.data,
        fast.batches,
        OPTIMIZATION,
        seed=SEED,
    )
    fast_losses = [float(step.terms["ce"]) for step in steps]

    plain, table = prepared()
    network = plain.method.classifier.to(memory_format=torch.contiguous_format).train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    spared = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    plain_losses = []
    for update, (_, rows) in enumerate(plain.batches.from_update(0)):
        draws = torch.rand(len(rows), 3, generator=torch.Generator().manual_seed(derive_seed(SEED, update)))
        mean, std = plain.data.mean, plain.data.std
        told = zip(rows, draws.tolist(), strict=True)
        images = [plain_image(np.asarray(table.images[row]), draw, mean, std) for row, draw in told]
        loss = F.cross_entropy(network(torch.stack(images)), torch.from_numpy(table.targets[rows]))
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * 16 / 256 * 0.5 * (1 + np.cos(np.pi * update / UPDATES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plain_losses.append(loss.item())

    assert fast_losses[:2] == pytest.approx(plain_losses[:2], rel=1e-5)
    assert fast_losses == pytest.approx(plain_losses, rel=1e-3)
    for one, other in zip(fast.method.classifier.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
