"""LDAM: the label's cosine pays a margin that is the larger the rarer its class.

    ℓ_i = w_y CE(s z', y),  z'_iy = cos_iy - m_y, other columns unchanged,  m_c = max_m (n_c / n_min)^(-1/4)

Source: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019;
kaidic/LDAM-DRW, losses.py, whose mean is this package's "weighted_mean".
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_counts_fit, check_not_negative, check_scale
from rebalance.losses._cosines import tell_of_logits
from rebalance.losses._counts import PerClass, optional_per_class, positive_counts
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def ldam_margins(counts: PerClass, *, max_margin: float = 0.5) -> Tensor:
    """Margins m_c, float64 (C,): `max_margin` for the rarest class, falling with n^(-1/4).

    Args:
        counts: Training images of each class, (C,).
        max_margin: In units of cosine. The one number to tune: 0.5 on small sets, 0.3 on iNaturalist (its author).

    Raises:
        ValueError: A class without an image (the original gives it NaN and every other margin 0), or a margin below 0.

    Examples:
        >>> ldam_margins([160_000, 160, 10], max_margin=0.5)
        tensor([0.0445, 0.2500, 0.5000], dtype=torch.float64)
    """
    check_not_negative(max_margin, "max_margin", "0.5 suits small sets, 0 is no margin")
    n = positive_counts(counts)
    return max_margin * (n / n.min()) ** -0.25


def ldam_logits(
    cosines: Tensor, targets: Tensor, margins: Tensor, *, scale: float = 30.0, prescaled: bool = False
) -> Tensor:
    """Logits s z', (B, C), whose cross entropy is the LDAM loss.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale of its own; for `prescaled`, s times that.
        targets: Class ids, (B,).
        margins: m_c, (C,), see `ldam_margins`.
        scale: s, which cosines in [-1, 1] need for a softmax that is not flat. Probabilities at test time are
            softmax(s cos), without margins.
        prescaled: The head has multiplied by s already, as in RIDE: s m_y is subtracted and nothing multiplied.
    """
    check_scale(scale)
    check_batch(cosines, targets, margins=margins)
    if not prescaled:
        tell_of_logits(cosines)
    with full_precision(cosines) as z:
        margin = scale * margins.to(z.dtype)[targets]  # (B,)
        return (z if prescaled else scale * z).scatter_add(1, targets[:, None], -margin[:, None])


def ldam_loss(
    cosines: Tensor,
    targets: Tensor,
    margins: Tensor,
    *,
    scale: float = 30.0,
    prescaled: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """LDAM loss, the cross entropy of `ldam_logits`; see there for its options.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale of its own; for `prescaled`, s times that.
        targets: Class ids, (B,).
        margins: m_c, (C,), see `ldam_margins`.
        scale: s.
        prescaled: The head has multiplied by s already.
        weight: Class weights, (C,); LDAM-DRW's are those of the effective number from 80 % of training on.
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    logits = ldam_logits(cosines, targets, margins, scale=scale, prescaled=prescaled)
    return cross_entropy_loss(logits, targets, weight=weight, reduction=reduction)


@final
class LDAMLoss(nn.Module):
    """`ldam_loss` with the margins of its counts in a buffer.

    It takes cosines in [-1, 1], as `rebalance.heads.CosineHead` gives them, and multiplies them by s itself. With the
    logits of a linear head margins mean nothing; on a CPU such scores are warned of, once.

    Args:
        counts: Training images of each class, (C,).
        max_margin: Margin of the rarest class, in units of cosine.
        scale: s.
        prescaled: The head multiplies by s.
        weight: Class weights, (C,).
    """

    margins: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        counts: PerClass,
        *,
        max_margin: float = 0.5,
        scale: float = 30.0,
        prescaled: bool = False,
        weight: PerClass | None = None,
    ) -> None:
        super().__init__()
        check_scale(scale)
        self.scale = scale
        self.prescaled = prescaled
        self.register_buffer("margins", ldam_margins(counts, max_margin=max_margin), persistent=False)
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, cosines: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of cosines (B, C) in [-1, 1] and class ids (B,)."""
        check_counts_fit(cosines, self.margins)
        return ldam_loss(
            cosines,
            targets,
            self.margins,
            scale=self.scale,
            prescaled=self.prescaled,
            weight=self.weight,
            reduction=reduction,
        )
