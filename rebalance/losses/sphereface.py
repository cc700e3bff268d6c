"""SphereFace, which is A-Softmax: the label's angle is multiplied by an integer m.

    ℓ_i = w_y CE(s |x| c', y),  c'_y = (λ cos θ_y + ψ(θ_y)) / (1 + λ),  c'_j = cos θ_j elsewhere
    ψ(θ) = (-1)^k cos(m θ) - 2k,  θ in [k π / m, (k + 1) π / m]
    λ_t = max(λ_min, λ_base (1 + γ t)^(-power))

cos(m θ) is the Chebyshev polynomial T_m(cos θ): exact, and safe for colinear vectors. Features are not normalised,
their length |x| is the scale; the head's vectors are.
Source: Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017, eq. 7; wy1iu/sphereface,
margin_inner_product_layer.cpp (annealed, whose backward is not the derivative of its forward; the gradient here is
exact); clcarwin/sphereface_pytorch, net_sphere.py (annealed); KevinMusgrave/pytorch-metric-learning (λ = 0).
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_not_negative, check_scale
from rebalance.losses._cosines import tell_of_logits
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def sphereface_annealing(
    iteration: int | Tensor,
    *,
    base: float = 1000.0,
    gamma: float = 0.12,
    power: float = 1.0,
    minimum: float = 5.0,
) -> Tensor:
    """λ_t, a 0-dim float64 tensor, which falls to `minimum`: with 5, a sixth of the margin acts at most.

    Args:
        iteration: t; the first is 1.
        base: λ_base; 1000 in the authors' Caffe, 1500 in clcarwin's port.
        gamma: γ; 0.12 in Caffe, 0.1 in clcarwin's port.
        power: Exponent.
        minimum: λ_min.
    """
    t = torch.as_tensor(iteration).to(torch.float64)
    return (base * (1.0 + gamma * t) ** -power).clamp_min(minimum)


def sphereface_logits(
    cosines: Tensor,
    targets: Tensor,
    norms: Tensor,
    *,
    margin: int = 4,
    scale: float = 1.0,
    annealing: float | Tensor = 0.0,
) -> Tensor:
    """Logits s |x| c', (B, C), whose cross entropy is the SphereFace loss.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        norms: |x|, the lengths of the features before the head normalised them, (B,).
        margin: m >= 1, an integer; 1 is the modified softmax without a margin.
        scale: s; 1 in the paper.
        annealing: λ >= 0, see `sphereface_annealing`; 0 is the full margin, which seldom converges from scratch.

    Raises:
        ValueError: Shapes that do not fit, or an option out of range.
    """
    _check_margin(margin)
    check_scale(scale)
    if not isinstance(annealing, Tensor):
        check_not_negative(annealing, "annealing", "0 is the full margin")
    check_batch(cosines, targets)
    if norms.shape != targets.shape:
        raise ValueError(
            f"expected norms of shape {tuple(targets.shape)}, one for each row; got {tuple(norms.shape)}; "
            "pass features.norm(dim=1)"
        )
    tell_of_logits(cosines)
    label = targets[:, None]
    with full_precision(cosines) as z:
        cos = z.gather(1, label)  # (B, 1)
        annealed = (annealing * cos + _psi(cos, margin)) / (1.0 + annealing)
        return scale * norms.to(z.dtype)[:, None] * z.scatter(1, label, annealed)


def sphereface_loss(
    cosines: Tensor,
    targets: Tensor,
    norms: Tensor,
    *,
    margin: int = 4,
    scale: float = 1.0,
    annealing: float | Tensor = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """SphereFace loss, the cross entropy of `sphereface_logits`; see there for its options.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        norms: |x|, the lengths of the features before the head normalised them, (B,).
        margin: m >= 1, an integer.
        scale: s.
        annealing: λ >= 0.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    logits = sphereface_logits(cosines, targets, norms, margin=margin, scale=scale, annealing=annealing)
    return cross_entropy_loss(logits, targets, weight=weight, reduction=reduction)


def _check_margin(margin: int) -> None:
    if not (isinstance(margin, int) and margin >= 1):
        raise ValueError(
            f"expected an integer margin >= 1; got {margin!r}; the margin multiplies the angle, use 2 to 4"
        )


def _psi(cos: Tensor, margin: int) -> Tensor:
    """ψ(θ) of cos θ: cos(m θ), mirrored and lowered piece by piece so that it falls all the way from 0 to π."""
    with torch.no_grad():
        theta = torch.acos(cos.clamp(-1.0, 1.0))
        k = (theta * (margin / math.pi)).floor().clamp_max(margin - 1)
        sign = 1.0 - 2.0 * (k % 2)
    previous, multiple = torch.ones_like(cos), cos  # T_0, T_1
    for _ in range(margin - 1):
        previous, multiple = multiple, 2.0 * cos * multiple - previous
    return sign * multiple - 2.0 * k


@final
class SphereFaceLoss(nn.Module):
    """`sphereface_loss` with its annealing; it takes cosines in [-1, 1] of a cosine head, not logits of a linear one.

    The number of iterations is a buffer that is saved: a resumed run goes on where it was. Every forward pass in
    training mode counts as one, so accumulation steps count too, as in Caffe.

    Args:
        margin: m, an integer.
        scale: s.
        annealed: Whether λ falls from `base` to `minimum`, as in the authors' code; False is λ = 0.
        base: λ_base.
        gamma: γ of the annealing.
        power: Exponent of the annealing.
        minimum: λ_min.
        weight: Class weights, (C,).
    """

    iteration: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        *,
        margin: int = 4,
        scale: float = 1.0,
        annealed: bool = True,
        base: float = 1000.0,
        gamma: float = 0.12,
        power: float = 1.0,
        minimum: float = 5.0,
        weight: PerClass | None = None,
    ) -> None:
        super().__init__()
        _check_margin(margin)
        check_scale(scale)
        for name, value in {"base": base, "gamma": gamma, "power": power, "minimum": minimum}.items():
            check_not_negative(value, name, "1000, 0.12, 1 and 5 are Caffe's base, gamma, power and minimum")
        self.margin = margin
        self.scale = scale
        self.annealed = annealed
        self.base = base
        self.gamma = gamma
        self.power = power
        self.minimum = minimum
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, cosines: Tensor, targets: Tensor, norms: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of cosines (B, C) in [-1, 1], class ids (B,) and feature lengths (B,)."""
        annealing: float | Tensor = 0.0
        if self.annealed:
            if self.training:
                self.iteration += 1
            annealing = sphereface_annealing(
                self.iteration, base=self.base, gamma=self.gamma, power=self.power, minimum=self.minimum
            )
        return sphereface_loss(
            cosines,
            targets,
            norms,
            margin=self.margin,
            scale=self.scale,
            annealing=annealing,
            weight=self.weight,
            reduction=reduction,
        )
