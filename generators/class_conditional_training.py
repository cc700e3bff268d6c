"""Train the class-conditional diffusion model: every update a function of (seed, update), resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from generators.class_balancing import class_balancing_loss
from generators.class_conditional import NOISE_SCHEDULE, NetworkSettings, build_unet
from generators.class_draws import ClassDraws
from generators.compiling import compile_in_place
from generators.told_augmentation import draw_numbers, tell, transform
from generators.update_loop import UpdateLoop
from rebalance.averaging import MovingAverage
from rebalance.errors import InputError
from rebalance.ranks import derive_seed, seed_everything
from rebalance.transfer import send

Objective = Literal["plain", "cbdm"]


@dataclass(frozen=True)
class TrainingSettings:
    """How the model is trained.

    Args:
        updates: Length.
        batch_size: Images of an update, over all ranks.
        lr: Learning rate of AdamW after a warm-up over a tenth of the updates.
        ema: Decay of the averaged weights.
        label_exponent: Classes are drawn in proportion to n_c to this power: 1 as they are, 0 alike. Below 1 the images
            of the rarest classes are drawn so often that the network learns them by heart.
        label_drop: Share of labels replaced by the null class.
        objective: What is asked beside the noise: "plain" nothing, "cbdm" see `class_balancing`, which looks at every
            image twice and so takes about twice the time and memory.
        augment: Share of the images that each transformation of `told_augmentation` is done to; above 0 the network
            has to be one that is told.
        flip: Mirror half of the images.
        shift: Move images by up to so many pixels.
        amp: "no" or "bf16".
        compile: Compile the U-Net.
        seed: Everything random is derived from it.
        checkpoint_updates: Updates between two checkpoints.
    """

    updates: int
    batch_size: int
    lr: float = 4e-4
    ema: float = 0.999
    label_exponent: float = 1.0
    label_drop: float = 0.1
    objective: Objective = "plain"
    augment: float = 0.0
    flip: bool = True
    shift: int = 0
    amp: str = "no"
    compile: bool = False
    seed: int = 0
    checkpoint_updates: int = 200


def train_class_conditional(
    images: Tensor,
    labels: Tensor,
    network: NetworkSettings,
    settings: TrainingSettings,
    *,
    checkpoints: Path | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    progress: Callable[[int, float], None] = lambda update, loss: None,
    share: tuple[int, int] = (0, 1),
) -> nn.Module:
    """The averaged U-Net.

    Args:
        images: (N, 3, S, S) uint8, on the device to train on.
        labels: Class ids (N,).
        network: The U-Net.
        settings: Length, batch, rates.
        checkpoints: Folder to save to and to go on from.
        wrap: Puts the U-Net on several ranks; accelerate's, in a pipeline.
        backward: What to call for the gradient.
        progress: Told of every update, and of the loss now and then.
        share: This process's number and how many share every batch, where `wrap` puts the gradients together.

    Raises:
        InputError: Augmentation that the network is not told of, or the other way round.
        RunError: A loss or weights that are not finite; the last good checkpoint stays.
    """
    if network.told != (settings.augment > 0):
        raise InputError(
            "a network that is told of augmentation, with some",
            f"told={network.told} and augment={settings.augment:g}",
            "set NetworkSettings.told where augment is above 0",
        )
    device = images.device
    images = images[:, : network.n_colours]
    seed_everything(settings.seed)
    unet = build_unet(network).to(device)
    average = MovingAverage[nn.Module](unet, settings.ema)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.lr)
    modules: dict[str, nn.Module] = {"unet": unet, "average": average}
    if settings.compile:
        compile_in_place(unet)
    loop = UpdateLoop(
        optimizer,
        modules,
        updates=settings.updates,
        checkpoint_updates=settings.checkpoint_updates,
        checkpoints=checkpoints,
        name="generator",
        flag="--generator-lr",
    )
    wrapped = wrap(unet).train()
    noise_schedule = DDPMScheduler(**NOISE_SCHEDULE)
    draw = ClassDraws(labels, settings.label_exponent, len(network.classes))
    loop.run(
        lambda update: _step(wrapped, images, draw, noise_schedule, settings, update, backward, share),
        after=lambda update: average.update(unet, update),
        progress=progress,
    )
    return average.average


def _step(
    unet: nn.Module,
    images: Tensor,
    draw: ClassDraws,
    noise_schedule: DDPMScheduler,
    settings: TrainingSettings,
    update: int,
    backward: Callable[[Tensor], Any],
    share: tuple[int, int],
) -> Tensor:
    """Gradient of one update on this process's rows of the global batch; the loss."""
    number, n_processes = share
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, update))
    n, device = settings.batch_size, images.device
    rows, classes = draw(n, generator)
    noise = torch.randn((n, *images.shape[1:]), generator=generator)
    timesteps = torch.randint(noise_schedule.config.num_train_timesteps, (n,), generator=generator)
    dropped = torch.rand(n, generator=generator) < settings.label_drop
    mirrored = torch.rand(n, generator=generator) < 0.5
    shifts = torch.randint(-settings.shift, settings.shift + 1, (n, 2), generator=generator)
    others = draw.classes(n, generator) if settings.objective == "cbdm" else classes
    numbers = draw_numbers(n, settings.augment, generator) if settings.augment else None
    told = torch.where(dropped, draw.n_classes, classes)
    mine = slice(number, None, n_processes)
    clean = images[send(rows[mine], device)].float() / 127.5 - 1
    if settings.flip:
        clean = torch.where(send(mirrored[mine].view(-1, 1, 1, 1), device), clean.flip(3), clean)
    if settings.shift:
        clean = _shift(clean, send(shifts[mine], device))
    if numbers is not None:
        numbers = send(numbers[mine], device)
        clean = transform(clean, numbers)
    noise, timesteps = send(noise[mine], device), send(timesteps[mine], device)
    noisy = noise_schedule.add_noise(clean, noise, timesteps)
    target = noise_schedule.get_velocity(clean, noise, timesteps)
    seen = tell(noisy, numbers) if numbers is not None else noisy
    seed_everything(settings.seed, update, number + 1)  # dropout

    def predict(labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            return unet(seen, timesteps, class_labels=send(labels[mine], device)).sample.float()  # type: ignore[no-any-return]

    predicted = predict(told)
    loss = F.mse_loss(predicted, target)
    if settings.objective == "cbdm":
        times = timesteps / noise_schedule.config.num_train_timesteps
        term = class_balancing_loss(predicted, predict(others), times)
        loss = loss + (term * send(~dropped[mine], device)).mean()
    backward(loss * (len(clean) * n_processes / n))
    return loss.detach()


def _shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Images moved by whole pixels (B, 2); what comes in is the edge pixel."""
    size = images.shape[-1]
    place = torch.arange(size, device=images.device)
    rows = (place[None] + shifts[:, :1]).clamp(0, size - 1)  # (B, S)
    columns = (place[None] + shifts[:, 1:]).clamp(0, size - 1)
    index = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[index, channel, rows[:, None, :, None], columns[:, None, None, :]]
