"""What an adapter learns from: embeddings of prompts, whose tokens may learn along, and latents of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.prompt_embeddings import LearntTokens, PromptEmbedder, PromptEmbedding, encode
from generators.prompts import Prompts
from generators.stable_diffusion_checkpoint import Checkpoint
from rebalance.transfer import send

_CACHE_BYTES = 2 * 1024**3
"""Latents that are kept, so that each image is encoded once; beyond, they are encoded again."""


def token_name(label: int) -> str:
    """The token of a class."""
    return f"<class-{label}>"


def token_names(classes: Sequence[str]) -> dict[str, str]:
    """Class → the token that stands for it; for `make_prompts`."""
    return {name: token_name(label) for label, name in enumerate(classes)}


@final
class TrainingTexts:
    """Texts → embeddings: read from memory, or computed with the tokens that are being learnt.

    Args:
        checkpoint: Has tokenizers and text encoders.
        prompts: Every text that will be asked for, but tokens.
        token_starts: For each class, a text whose embedding its token begins at; None learns no tokens.
        device: On which embeddings are made, and to which they are handed.

    Attributes:
        tokens: Text encoder → the learnt vectors (C, width).
        names: Of the tokens, by class.
    """

    def __init__(
        self, checkpoint: Checkpoint, prompts: Prompts, token_starts: Sequence[str] | None, device: torch.device
    ) -> None:
        self.device = device
        self.tokens = nn.ParameterDict()
        self.names: tuple[str, ...] = ()
        self._embedder = PromptEmbedder(checkpoint, torch.float32)
        self._encoders: list[Any] | None = None
        if token_starts is None:
            self._embedder.embed(["", *(text for own in prompts.texts for text in own)], device)
            return
        self._embedder.embed([""], device)
        self.names = tuple(token_name(label) for label in range(len(token_starts)))
        parts = [part for part in checkpoint.parts if part.startswith("text_encoder")]
        starts = {}
        for part, tokenizer, encoder in zip(
            parts, self._embedder.tokenizers, self._embedder.load_encoders(device), strict=True
        ):
            rows = encoder.get_input_embeddings().weight
            pieces = [tokenizer(text, add_special_tokens=False).input_ids for text in token_starts]
            starts[part] = torch.stack([rows[ids].mean(dim=0) for ids in pieces]).float().cpu()
        self._embedder = PromptEmbedder(checkpoint, torch.float32, LearntTokens(self.names, starts))
        self._embedder.embed([""], device)
        self._encoders = self._embedder.load_encoders(device)
        for part, encoder, tokenizer in zip(parts, self._encoders, self._embedder.tokenizers, strict=True):
            self.tokens[part] = nn.Parameter(starts[part].to(device))
            _let_learn(encoder, self.tokens, part, len(tokenizer) - len(self.names))

    def __call__(self, texts: Sequence[str | None]) -> PromptEmbedding:
        """Embeddings of a batch; of None what a negative prompt of nothing gives."""
        nothing = self._embedder.negative("")
        distinct = list(dict.fromkeys(text for text in texts if text is not None))
        if self._encoders is not None and distinct:
            ids = [self._embedder.ids(text) for text in distinct]
            made = encode(self._encoders, [torch.cat(parts).to(self.device) for parts in zip(*ids, strict=True)])
            pooled = [None] * len(distinct) if made.pooled is None else made.pooled.unbind()
            parts = zip(made.states.unbind(), pooled, strict=True)
            known = {text: PromptEmbedding(*part) for text, part in zip(distinct, parts, strict=True)}
        else:
            known = {text: self._embedder.prompt(text) for text in distinct}
        rows = [nothing if text is None else known[text] for text in texts]
        states = torch.stack([send(row.states, self.device) for row in rows])
        pooled_rows = [send(row.pooled, self.device) for row in rows if row.pooled is not None]
        return PromptEmbedding(states, torch.stack(pooled_rows) if pooled_rows else None)

    def learnt(self) -> LearntTokens | None:
        """The tokens as they are."""
        if self._encoders is None:
            return None
        return LearntTokens(self.names, {part: vector.detach().cpu().clone() for part, vector in self.tokens.items()})


def _let_learn(encoder: Any, tokens: nn.ParameterDict, part: str, first: int) -> None:
    """Make an encoder take the ids from `first` on from `tokens` instead of from its own table."""

    def replace(module: nn.Module, ids: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        learnt = F.embedding((ids[0] - first).clamp(min=0), tokens[part])
        return torch.where((ids[0] >= first)[..., None], learnt.to(rows.dtype), rows)

    encoder.get_input_embeddings().register_forward_hook(replace)


@final
class TrainingLatents:
    """Rows → latents of their images, mirrored or not; what the VAE says of an image is kept.

    Args:
        vae: A diffusers VAE, on its device.
        read: Rows (n,) → RGB images (n, 3, H, W) uint8 of any size.
        size: Height and width that images are brought to, px.

    Attributes:
        shape: Of the latents of an image, (C, H, W).
    """

    def __init__(self, vae: Any, read: Callable[[Tensor], Tensor], size: int) -> None:
        self.vae = vae
        self.read = read
        self.size = size
        side = size // 2 ** (len(vae.config.block_out_channels) - 1)
        self.shape = (vae.config.latent_channels, side, side)
        self._room = _CACHE_BYTES // (2 * 4 * int(np.prod(self.shape)))
        self._known: dict[tuple[int, bool], Tensor] = {}

    def __call__(self, rows: Tensor, mirrored: Tensor, spread: Tensor) -> Tensor:
        """Latents (B, C, H, W) float32: mean plus standard deviation times `spread`."""
        told = torch.stack([self._told(*one) for one in zip(rows.tolist(), mirrored.tolist(), strict=True)])
        mean, std = send(told, self.vae.device).unbind(dim=1)
        return (mean + std * send(spread, mean.device)) * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def _told(self, row: int, mirrored: bool) -> Tensor:
        """Mean and standard deviation (2, C, H, W) on the CPU. One image at a time: batches differ in the last bits."""
        known = self._known.get((row, mirrored))
        if known is not None:
            return known
        image = self.read(torch.tensor([row])).to(self.vae.device).float()
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        image = image.flip(3) if mirrored else image
        told = self.vae.encode((image / 127.5 - 1).to(self.vae.dtype)).latent_dist
        both = torch.cat([told.mean, told.std]).float().cpu()
        if len(self._known) < self._room:
            self._known[row, mirrored] = both
        return both
