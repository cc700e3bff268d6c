"""A batch mix as a method uses it: which mix, how strong, how often, until when; see `rebalance.mixing`."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rebalance.counts import check_counts
from rebalance.errors import InputError, nearest
from rebalance.methods.base import Mix
from rebalance.mixing import (
    cutmix,
    mixup,
    remix,
    sample_center,
    sample_lambda,
    sample_permutation,
    sample_tail_partners,
)
from rebalance.transfer import send

MIXES = ("mixup", "cutmix", "remix", "cmo")


class MixedBatch(NamedTuple):
    """A batch after mixing."""

    images: Tensor  # (B, 3, H, W)
    mix: Mix  # partner targets and λ, each (B,)
    partners: Tensor  # (B,) rows of the partners in the batch


@final
class BatchMix(nn.Module):
    """Mixes the images of a batch with one another.

    Everything random comes from torch's global generator.

    Args:
        kind: "mixup", "cutmix", "remix" or "cmo" (CutMix whose pasted partner is drawn by inverse class frequency).
        counts: Training images of each class, (C,).
        alpha: λ ~ Beta(α, α).
        probability: Share of the batches that are mixed.
        until: Share of training after which nothing is mixed any more.

    Raises:
        InputError: An unknown mix, or a number out of range.
    """

    untraced = True
    """λ and box are numbers, other ones for every batch; see `Method.compile`."""
    counts: Tensor

    def __init__(
        self, kind: str, counts: npt.ArrayLike, *, alpha: float = 1.0, probability: float = 1.0, until: float = 1.0
    ) -> None:
        super().__init__()
        if kind not in MIXES:
            raise InputError("a batch mix", repr(kind), nearest(kind, MIXES))
        if not alpha > 0:
            raise InputError("alpha > 0", repr(alpha), "use 1, or leave the mix out")
        for name, share in (("probability", probability), ("until", until)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} in [0, 1]", repr(share), "use for example 0.5")
        self.kind = kind
        self.alpha = alpha
        self.probability = probability
        self.until = until
        self.register_buffer("counts", torch.from_numpy(np.array(check_counts(counts))), persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> MixedBatch:
        """Mixed images (B, 3, H, W) of class ids (B,); unmixed, with λ = 1, in batches that are left alone."""
        lam = sample_lambda(self.alpha) if float(torch.rand(())) < self.probability else 1.0
        n = len(targets)
        partners = sample_tail_partners(targets, self.counts) if self.kind == "cmo" else sample_permutation(n)
        partners = send(partners, targets.device)
        if self.kind == "mixup":
            mixed, pair = mixup(images, targets, lam, partners)
        elif self.kind == "remix":
            mixed, pair = remix(images, targets, lam, partners, self.counts)
        else:
            mixed, pair = cutmix(images, targets, lam, partners, sample_center())
        return MixedBatch(mixed, Mix(*pair), partners)
