"""The training loop: a generator that yields after every update; the caller logs, evaluates, saves and stops.

An update is a function of (seed, update) and of the weights before it, so a run that is resumed at any update goes on
as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.batches import TrainingBatches
from pipelines.config_groups import OptimizationConfig
from pipelines.optimization import set_learning_rate
from rebalance.averaging import MovingAverage
from rebalance.classifier import Classifier
from rebalance.counts import IntArray
from rebalance.data.augmentation import MultiView, normalize
from rebalance.data.store import ImageStore
from rebalance.methods.base import Batch, Method
from rebalance.ranks import derive_seed, rank, seed_everything, shard, world_size
from rebalance.sharpness import sharpness_aware
from rebalance.transfer import send

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@final
@dataclass(frozen=True)
class TrainingData:
    """What the loop draws batches from, all on one device.

    Args:
        store: Images of the training table, real rows first.
        targets: Class ids (N,).
        synthetic: True for made images (N,).
        weight: Loss weight of each row (N,).
        augment: Augmentation; as many views as the method asks for.
        mean: Of pixels in [0, 1], (3,).
        std: Likewise.
    """

    store: ImageStore
    targets: Tensor
    synthetic: Tensor
    weight: Tensor
    augment: MultiView
    mean: Tensor
    std: Tensor

    def batch(self, images: Tensor, rows: IntArray, uniforms: Tensor, channels_last: bool) -> Batch:
        """Augmented, normalised views of `images`, which are those of `rows`."""
        views = normalize(self.augment(images, uniforms), self.mean, self.std, channels_last=channels_last)
        index = send(torch.from_numpy(rows), self.targets.device)
        return Batch(
            views=views,
            targets=self.targets[index],
            mix=None,
            weight=self.weight[index],
            synthetic=self.synthetic[index],
            index=index,
        )


@dataclass(frozen=True)
class Step:
    """What one update did."""

    update: int
    """Updates done, this one included."""
    epoch: int
    """0-based epoch that the update belongs to."""
    ends_epoch: bool
    n_images: int
    """Images of the global batch."""
    lr: float
    terms: dict[str, Tensor]
    """Loss terms of this rank, detached, on the device."""


def training_steps(
    method: Method,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    batches: TrainingBatches,
    config: OptimizationConfig,
    *,
    seed: int,
    start: int = 0,
    average: MovingAverage[Classifier] | None = None,
    backward: Any = Tensor.backward,
    scaler: torch.amp.GradScaler | None = None,
) -> Generator[Step, None, None]:
    """Train from update `start` to the end, yielding after each update.

    Args:
        method: The method.
        module: What is called: the method itself, or its DDP wrapper.
        optimizer: Over the method's parameters.
        data: Images, targets, weights, augmentation.
        batches: The global batch of every update.
        config: Learning rate, accumulation, clipping, precision, sharpness.
        seed: Everything random is derived from (seed, update).
        start: Updates done before.
        average: Follows the classifier.
        backward: What to call for the gradient; accelerate's, in a pipeline.
        scaler: Loss scaler, for fp16.
    """
    device = data.targets.device
    generator = torch.Generator()
    images = data.store.batches(shard(rows) for _, rows in batches.from_update(start))

    def accumulate(batch: Batch, progress: Tensor, update: int, n_images: int) -> dict[str, Tensor]:
        """Add the gradients of all parts of a batch, each time with the same random numbers; the loss terms."""
        seed_everything(seed, update, rank() + 1)
        terms: dict[str, Tensor] = {}
        parts = list(_split(batch, config.grad_accum_steps))
        for i, part in enumerate(parts):
            with _no_sync(module, i < len(parts) - 1), autocast(device, config.amp):
                losses = module(part, progress)
                share = len(part.targets) * world_size() / n_images
                loss = sum(losses.values()) * share
                backward(scaler.scale(loss) if scaler is not None else loss)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0) + value.detach().float() * share
        return terms

    module.train()
    for (position, rows), pixels in zip(batches.from_update(start), images, strict=True):
        update = position.update
        lr = set_learning_rate(optimizer, config, update / batches.updates_per_epoch, batches.length)
        progress = torch.full((), update / batches.n_updates, dtype=torch.float32, device=device)
        method.before_step(update / batches.n_updates)
        uniforms = shard_rows(data.augment.draw(len(rows), generator.manual_seed(derive_seed(seed, update))))
        batch = data.batch(pixels, shard(rows), uniforms, config.channels_last)
        gradients = partial(accumulate, batch, progress, update, len(rows))
        if config.sam is not None and update / batches.n_updates >= config.sam_from:
            terms = sharpness_aware(method, gradients, rho=config.sam)
        else:
            terms = gradients()
        _optimizer_step(method, optimizer, config.clip_grad, scaler)
        method.after_step()
        if average is not None:
            average.update(method.classifier, update)
        yield Step(update + 1, position.epoch, position.ends_epoch, len(rows), lr, terms)


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """The autocast context of "bf16" or "fp16"; for "no" none."""
    return torch.autocast(device.type, _DTYPES[amp]) if amp in _DTYPES else nullcontext()


def shard_rows(rows: Tensor) -> Tensor:
    """This rank's rows of a tensor over the global batch."""
    return rows[rank() :: world_size()]


def _split(batch: Batch, n_parts: int) -> Iterator[Batch]:
    """`batch` in up to `n_parts` parts of at least two rows; strided: every part has real and synthetic rows."""
    n_parts = max(1, min(n_parts, len(batch.targets) // 2))
    for i in range(n_parts):
        fields = [None if field is None else field[i::n_parts] for field in batch]
        yield Batch(*fields)  # type: ignore[arg-type]  # the fields' own types, row by row


def _optimizer_step(
    method: Method, optimizer: torch.optim.Optimizer, clip: float | None, scaler: torch.amp.GradScaler | None
) -> None:
    for parameter in method.frozen_parameters():
        parameter.grad = None  # an optimiser passes it by; zeros would still decay it
    if scaler is not None:
        scaler.unscale_(optimizer)
    if clip is not None:
        nn.utils.clip_grad_norm_(method.parameters(), clip)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _no_sync(module: nn.Module, accumulating: bool) -> AbstractContextManager[Any]:
    if accumulating and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()
