"""Batch mixes: images of a batch blended with, or pasted into, each other.

    mixup    x = λ x_i + (1 - λ) x_j    share λ
    Remix    x as mixup                 share 0 where n_i ≥ κ n_j and λ < τ, 1 where n_j ≥ κ n_i and 1 - λ < τ, else λ
    CutMix   x_i with a box of x_j      share 1 - box / image
    CMO      CutMix whose partner j is drawn with a probability that favours the tail

j is i's partner in the batch, the share that of i's own class in the loss: λ_i L(z_i, y_i) + (1 - λ_i) L(z_i, y_j).

Sources: Zhang et al., mixup, ICLR 2018 (facebookresearch/mixup-cifar10); Chou et al., Remix, ECCV Workshops 2020
(ntucllab/imbalanced-DL); Yun et al., CutMix, ICCV 2019; Park et al., The Majority Can Help the Minority, CVPR 2022.
"""

from __future__ import annotations

import inspect
import math
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from rebalance.counts import in_class_order
from rebalance.errors import InputError
from rebalance.transfer import send

Mixed = tuple[Tensor, tuple[Tensor, Tensor]]
"""Mixed images, and the pair (partner targets (B,), λ (B,)) of which the loss is made."""


class ReducibleLoss(Protocol):
    """What `mixed_loss` needs of a loss."""

    def __call__(self, logits: Tensor, targets: Tensor, /, *, reduction: Literal["none"]) -> Tensor:
        """Losses (B,) for reduction "none"."""


def sample_lambda(alpha: float, *, generator: torch.Generator | None = None) -> float:
    """λ ~ Beta(α, α); 1, which mixes nothing, for α <= 0.

    Args:
        alpha: α; 1 on CIFAR, 0.2 on ImageNet-LT and its like.
        generator: A CPU generator; torch's global one by default.

    Raises:
        InputError: An infinite α.
    """
    if alpha <= 0:
        return 1.0
    if not alpha < math.inf:
        raise InputError("a finite alpha", repr(alpha), "use for example 1")
    # torch draws Beta from its global generator alone: its stream seeds NumPy's.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def sample_permutation(batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Partners (B,) for mixup, Remix and CutMix: every image is somebody's partner once."""
    return torch.randperm(batch_size, generator=generator)


def sample_tail_partners(
    targets: Tensor, counts: npt.ArrayLike | Tensor, *, strength: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Partners (B,) for CMO: row j with a probability ∝ 1 / n_{y_j}^strength, with replacement.

    Args:
        targets: Class ids of the batch, (B,), on any device; the partners lie there too.
        counts: Training images of each class, (C,).
        strength: 1 is inverse frequency, 0.5 its square root, 0 draws rows alike.
        generator: A CPU generator; torch's global one by default.

    Raises:
        InputError: A class of the batch without a count; on the CPU alone, since a GPU would be waited for.
    """
    n = _counts_of(counts, targets)
    if n.device.type == "cpu" and bool((n <= 0).any()):  # elsewhere the check would wait for the device
        raise InputError("a count > 0 for every class of the batch", str(n.tolist()), "pass the training set's counts")
    ends = torch.cumsum(n**-strength, dim=0)  # (B,) row j owns the interval that ends at ends[j]
    points = send(torch.rand(len(targets), generator=generator, dtype=torch.float64), n.device)
    return torch.searchsorted(ends, points * ends[-1], right=True).clamp_max(len(targets) - 1)


def sample_center(*, generator: torch.Generator | None = None) -> tuple[float, float]:
    """Centre of CutMix's box, uniform over the image: (vertical, horizontal) in [0, 1)."""
    vertical, horizontal = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return vertical, horizontal


def mixup(images: Tensor, targets: Tensor, lam: float | Tensor, permutation: Tensor) -> Mixed:
    """Images blended with their partners.

    Args:
        images: (B, ...), floating point.
        targets: Class ids, (B,).
        lam: λ in [0, 1], one for the batch, or (B,).
        permutation: Rows of the partners, (B,), on any device.
    """
    lams, partners = _lambda_of(lam, images), _rows(permutation, images)
    share = lams.to(images.dtype).view(-1, *[1] * (images.ndim - 1))
    return share * images + (1.0 - share) * images[partners], (targets[partners], lams)


def remix(
    images: Tensor,
    targets: Tensor,
    lam: float | Tensor,
    permutation: Tensor,
    counts: npt.ArrayLike | Tensor,
    *,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> Mixed:
    """Images blended as by mixup, labels given to the rarer class of the two where it is rare enough.

    The label share is each sample's own, as in the paper; BagofTricks-LT averages it over the batch, where it loses its
    pairing with the samples.

    Args:
        images: (B, ...), floating point.
        targets: Class ids, (B,).
        lam: λ in [0, 1], one for the batch, or (B,).
        permutation: Rows of the partners, (B,), on any device.
        counts: Training images of each class, (C,).
        kappa: κ: how many times more frequent the other class must be.
        tau: τ: how little of the picture suffices for the rarer class.

    Raises:
        InputError: κ or τ out of range, or what `mixup` refuses.
    """
    if not kappa > 0:
        raise InputError("kappa > 0", repr(kappa), "use the paper's 3")
    if not 0 <= tau <= 1:
        raise InputError("tau in [0, 1]", repr(tau), "use the paper's 0.5")
    mixed, (partner_targets, lams) = mixup(images, targets, lam, permutation)
    own, other = _counts_of(counts, targets), _counts_of(counts, partner_targets)
    to_partner = (own >= kappa * other) & (lams < tau)
    to_own = (kappa * own <= other) & (1.0 - lams < tau)
    lams = torch.where(to_partner, 0.0, torch.where(to_own, 1.0, lams))
    return mixed, (partner_targets, lams)


def cutmix(
    images: Tensor, targets: Tensor, lam: float | Tensor, permutation: Tensor, center: tuple[float, float]
) -> Mixed:
    """Images with a box of their partner pasted in; the label share is what the box leaves.

    The box has sides sqrt(1 - λ) of the image's and is cut off at its edges, so that the share is counted in pixels.

    Args:
        images: (B, C, H, W).
        targets: Class ids, (B,).
        lam: λ in [0, 1], one for the batch, or (B,): the share of the image that stays, before the edges cut the box.
        permutation: Rows of the partners, (B,), on any device; for CMO those of `sample_tail_partners`.
        center: Centre of the box as shares of height and width.
    """
    lams, partners = _lambda_of(lam, images), _rows(permutation, images)
    height, width = images.shape[-2:]
    side = (1.0 - lams).clamp_min(0.0).sqrt()  # (B,)
    rows = _inside(height, side, center[0])  # (B, H)
    columns = _inside(width, side, center[1])  # (B, W)
    box = rows[:, :, None] & columns[:, None, :]
    mixed = torch.where(box[:, None], images[partners], images)
    left = 1.0 - rows.sum(dim=1) * columns.sum(dim=1) / (height * width)
    return mixed, (targets[partners], left.to(lams.dtype))


def mixed_loss(
    loss: ReducibleLoss | _Loss,
    logits: Tensor,
    targets: Tensor,
    partner_targets: Tensor,
    lam: Tensor,
    *,
    reduction: str = "mean",
) -> Tensor:
    """λ L(z, y_i) + (1 - λ) L(z, y_j), sample by sample.

    Args:
        loss: A loss of `rebalance.losses` or `torch.nn.functional`, function or module, that takes
            `(logits, targets, reduction="none")`, or a module of torch's that was made with it.
        logits: Of the mixed images, (B, C).
        targets: Their own class ids, (B,).
        partner_targets: Those of their partners, (B,).
        lam: λ, (B,).
        reduction: "mean", "sum" or "none".

    Raises:
        InputError: An unknown reduction, or a module of torch's that reduces by itself.
    """
    losses = lam * _losses(loss, logits, targets) + (1.0 - lam) * _losses(loss, logits, partner_targets)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.mean()
    raise InputError("a reduction out of mean, sum, none", repr(reduction), "name one of them")


def _losses(loss: ReducibleLoss | _Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Losses (B,)."""
    if not isinstance(loss, _Loss) or "reduction" in inspect.signature(loss.forward).parameters:
        return loss(logits, targets, reduction="none")
    if loss.reduction != "none":
        raise InputError(
            "a loss for each sample",
            f"{type(loss).__name__} with reduction {loss.reduction!r}",
            "make it with reduction='none', or pass a function such as torch.nn.functional.cross_entropy",
        )
    losses: Tensor = loss(logits, targets)
    return losses


def _inside(size: int, side: Tensor, center: float) -> Tensor:
    """Which of `size` pixels lie in a box of `side` (B,) shares about `center`, (B, size)."""
    half = (side * size).floor() / 2  # whole pixels, as in CutMix's code
    middle = int(center * size)
    pixels = torch.arange(size, device=side.device)
    first, last = (middle - half).floor().clamp_min(0), (middle + half).floor().clamp_max(size)
    return (pixels >= first[:, None]) & (pixels < last[:, None])


def _lambda_of(lam: float | Tensor, images: Tensor) -> Tensor:
    """λ (B,) on the images' device, in float32 or wider."""
    if not images.is_floating_point():
        raise InputError("floating point images", str(images.dtype), "scale them to [0, 1] and normalise first")
    dtype = torch.promote_types(images.dtype, torch.float32)
    if not isinstance(lam, Tensor):
        if not 0 <= lam <= 1:
            raise InputError("lambda in [0, 1]", repr(lam), "draw it with sample_lambda")
        return torch.full((len(images),), lam, dtype=dtype, device=images.device)
    if lam.device.type == "cpu" and not bool(((lam >= 0) & (lam <= 1)).all()):  # elsewhere it would be waited for
        raise InputError("lambda in [0, 1]", repr(lam.tolist()), "draw it with sample_lambda")
    return send(lam, images.device).to(dtype).expand(len(images)).clone()


def _rows(permutation: Tensor, images: Tensor) -> Tensor:
    if permutation.shape != images.shape[:1]:
        raise InputError(
            f"a partner for each of {len(images)} images", str(tuple(permutation.shape)), "draw one row for each image"
        )
    return send(permutation, images.device)


def _counts_of(counts: npt.ArrayLike | Tensor, targets: Tensor) -> Tensor:
    """Counts of the samples' classes, float64 (B,)."""
    n = counts if isinstance(counts, Tensor) else torch.tensor(np.asarray(in_class_order(counts), dtype=np.float64))
    return n.to(targets.device, torch.float64)[targets]
