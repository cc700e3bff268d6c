"""Train a LoRA adapter, and optionally a token for each class, on the user's images: one adapter for all classes.

The U-Net learns to undo noise in the latents of real images, told their class prompts; rare classes are drawn more
often than their share, and every update is a function of (seed, update), so that a training resumes bit for bit.
Hang et al., Efficient Diffusion Training via Min-SNR Weighting, 2023, equations 7 and 8.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from peft import LoraConfig
from torch import Tensor, nn

from generators.class_draws import ClassDraws
from generators.lora import TRAINED
from generators.lora_inputs import TrainingLatents, TrainingTexts
from generators.prompt_embeddings import LearntTokens
from generators.prompts import Prompts
from generators.stable_diffusion_checkpoint import Checkpoint
from generators.stable_diffusion_loading import load_model
from generators.update_loop import UpdateLoop
from rebalance.errors import InputError, nearest
from rebalance.ranks import derive_seed, rank, seed_everything, world_size
from rebalance.transfer import send

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_OTHERS = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out")
LAYERS = {"attention": _ATTENTION, "all": (*_ATTENTION, *_OTHERS)}
"""What an adapter may change: attention, as is usual, or convolutions and linear layers around it too."""


@dataclass(frozen=True)
class AdaptationSettings:
    """How an adapter is trained.

    Args:
        updates: Length.
        batch_size: Images of an update, over all ranks.
        lr: Learning rate of AdamW after a warm-up over a tenth of the updates.
        rank: Of the adapter; alpha is the same, so that the scale is one.
        layers: Of the U-Net, one of `LAYERS`: "attention", or "all" for images unlike any that the checkpoint has seen.
        label_exponent: Classes are drawn in proportion to n_c to this power: 1 as they are, 0 alike.
        prompt_drop: Share of prompts replaced by the empty one, for guidance.
        min_snr: Cap γ on the signal-to-noise ratio that weighs the loss; 5 in the paper, None for none.
        flip: Mirror half of the images.
        token_lr: Learning rate of the tokens.
        gradient_checkpointing: Compute activations twice to save memory.
        amp: "no" or "bf16".
        seed: Everything random is derived from it.
        checkpoint_updates: Updates between two checkpoints.
    """

    updates: int
    batch_size: int
    lr: float = 1e-4
    rank: int = 8
    layers: str = "attention"
    label_exponent: float = 0.5
    prompt_drop: float = 0.1
    min_snr: float | None = None
    flip: bool = True
    token_lr: float = 1e-3
    gradient_checkpointing: bool = False
    amp: str = "no"
    seed: int = 0
    checkpoint_updates: int = 200


@dataclass(frozen=True)
class TrainedAdapter:
    """What `save_adapter` saves.

    Args:
        unet: With the adapter on it.
        config: Of the adapter.
        tokens: Learnt with it.
    """

    unet: Any
    config: LoraConfig
    tokens: LearntTokens | None


def train_adapter(
    checkpoint: Checkpoint,
    read: Callable[[Tensor], Tensor],
    labels: Tensor,
    prompts: Prompts,
    settings: AdaptationSettings,
    *,
    size: int,
    device: torch.device | str = "cpu",
    token_starts: Sequence[str] | None = None,
    checkpoints: Path | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    progress: Callable[[int, float], None] = lambda update, loss: None,
) -> TrainedAdapter:
    """The adapter, on its U-Net.

    Args:
        checkpoint: What is adapted.
        read: Rows (n,) → RGB images (n, 3, H, W) uint8 of any size.
        labels: Class ids (N,).
        prompts: Of every class; with tokens in them where tokens are learnt.
        settings: Length, batch, rates.
        size: Height and width at which images will be made, px.
        device: To train on.
        token_starts: For each class, a text whose embedding its token begins at, such as its name; None learns no
            tokens.
        checkpoints: Folder to save to and to go on from.
        wrap: Puts what is trained on several ranks; accelerate's, in a pipeline.
        backward: What to call for the gradient.
        progress: Told of every update, and of the loss now and then.

    Raises:
        InputError: A prediction type or a choice of layers that is not known, or a batch smaller than the number of
            ranks.
        RunError: A loss that is not finite.
    """
    if settings.batch_size < world_size():
        raise InputError(
            f"a batch with an image for each of {world_size()} ranks",
            str(settings.batch_size),
            "raise it, or use fewer processes",
        )
    device = torch.device(device)
    if settings.layers not in LAYERS:
        raise InputError("layers attention or all", repr(settings.layers), nearest(settings.layers, LAYERS))
    seed_everything(settings.seed)
    dtype = torch.bfloat16 if settings.amp == "bf16" else torch.float32
    unet = load_model(checkpoint, "unet", dtype).to(device)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        init_lora_weights="gaussian",
        target_modules=list(LAYERS[settings.layers]),
    )
    unet.add_adapter(config, TRAINED)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in layers:
        parameter.data = parameter.data.float()
    texts = TrainingTexts(checkpoint, prompts, token_starts, device)
    student = _Student(unet, texts, size, settings.amp)
    trained = nn.ParameterList([*layers, *texts.tokens.values()])
    groups = [{"params": layers, "lr": settings.lr}]
    if token_starts is not None:
        groups.append({"params": list(texts.tokens.values()), "lr": settings.token_lr, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    loop = UpdateLoop(
        optimizer,
        {"adapter": trained},
        updates=settings.updates,
        checkpoint_updates=settings.checkpoint_updates,
        checkpoints=checkpoints,
        name="adapter",
        flag="--generator-lr",
    )
    wrapped = wrap(student).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        noise_schedule = DDPMScheduler.from_config(checkpoint.config("scheduler"))
    latents = TrainingLatents(load_model(checkpoint, "vae", dtype).to(device), read, size)
    draw = ClassDraws(labels, settings.label_exponent, len(prompts.texts))
    loop.run(
        lambda update: _step(wrapped, latents, draw, prompts, noise_schedule, settings, update, backward),
        progress=progress,
    )
    unet.disable_gradient_checkpointing()
    return TrainedAdapter(unet.eval(), config, texts.learnt())


def _step(
    student: nn.Module,
    latents: TrainingLatents,
    draw: ClassDraws,
    prompts: Prompts,
    noise_schedule: Any,
    settings: AdaptationSettings,
    update: int,
    backward: Callable[[Tensor], Any],
) -> Tensor:
    """Gradient of one update on this rank's rows of the global batch; the loss."""
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, update))
    n, shape = settings.batch_size, latents.shape
    rows, classes = draw(n, generator)
    turns = torch.randint(2**31 - 1, (n,), generator=generator)
    mirrored = (torch.rand(n, generator=generator) < 0.5) & torch.tensor(settings.flip)
    dropped = torch.rand(n, generator=generator) < settings.prompt_drop
    timesteps = torch.randint(noise_schedule.config.num_train_timesteps, (n,), generator=generator)
    spread, noise = torch.randn((2, n, *shape), generator=generator)
    mine = slice(rank(), None, world_size())
    told = zip(classes[mine].tolist(), turns[mine].tolist(), dropped[mine].tolist(), strict=True)
    chosen = [None if without else prompts(label, turn) for label, turn, without in told]
    clean = latents(rows[mine], mirrored[mine], spread[mine])
    noise, timesteps = send(noise[mine], clean.device), send(timesteps[mine], clean.device)
    noisy = noise_schedule.add_noise(clean, noise, timesteps)
    predicted = student(noisy, timesteps, chosen)
    target, weight = target_and_weight(noise_schedule, clean, noise, timesteps, settings.min_snr)
    loss = (F.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3)) * weight).mean()
    backward(loss * (len(clean) * world_size() / n))
    return loss.detach()


def target_and_weight(
    noise_schedule: Any, clean: Tensor, noise: Tensor, timesteps: Tensor, min_snr: float | None
) -> tuple[Tensor, Tensor]:
    """What the U-Net should predict (B, C, H, W), by the schedule's prediction type, and the loss weights (B,).

    With signal-to-noise ratio s and cap γ the weight is min(s, γ) / s where noise is predicted, min(s, γ) / (s + 1)
    for v, min(s, γ) for the clean sample.

    Raises:
        InputError: A prediction type that is not known.
    """
    kind = noise_schedule.config.prediction_type
    signal = noise_schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    ratio = signal / (1 - signal)
    capped = torch.ones_like(ratio) if min_snr is None else ratio.clamp(max=min_snr)
    if kind == "epsilon":
        return noise, capped if min_snr is None else capped / ratio
    if kind == "v_prediction":
        return noise_schedule.get_velocity(clean, noise, timesteps), capped if min_snr is None else capped / (ratio + 1)
    if kind == "sample":
        return clean, capped
    raise InputError(
        "prediction type epsilon, v_prediction or sample", str(kind), "such a checkpoint cannot be adapted"
    )


@final
class _Student(nn.Module):
    """What is trained: the U-Net with its adapter, and the tokens."""

    def __init__(self, unet: Any, texts: TrainingTexts, size: int, amp: str) -> None:
        super().__init__()
        self.unet = unet
        self.tokens = texts.tokens
        self._texts = texts
        self._amp = amp
        self._pixels = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32, device=unet.device)

    def forward(self, noisy: Tensor, timesteps: Tensor, texts: Sequence[str | None]) -> Tensor:
        """Predictions (B, C, H, W); a text of None is no text."""
        told = self._texts(texts)
        added = None
        if told.pooled is not None:
            added = {"text_embeds": told.pooled, "time_ids": self._pixels.expand(len(noisy), -1)}
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self._amp == "bf16"):
            predicted: Tensor = self.unet(
                noisy, timesteps, encoder_hidden_states=told.states, added_cond_kwargs=added
            ).sample
        for vectors in self.tokens.values():
            predicted = predicted + 0 * vectors.sum()  # DDP wants every parameter in every update
        return predicted
