"""SimCLR's NT-Xent: the other views of a sample attract, those of all other samples repel.

    ℓ_a = (T / T_base) [ log Σ_{k ∈ A(a)} exp(f_a·f_k / T) - mean_{p ∈ P(a)} f_a·f_p / T ]

A(a) is every other view of the batch, P(a) the other views of a's sample: the supervised contrastive loss without
labels. Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, eq. 1;
HobbitLong/SupContrast, losses.py.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.supcon import Mode, check_contrast, supcon_loss


def simclr_loss(
    views: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: float = 0.5,
    base_temperature: float | None = None,
    mode: Mode = "all",
    reduction: Reduction = "mean",
) -> Tensor:
    """NT-Xent.

    Args:
        views: (B, V, D), normalised to length 1 over D by the caller; (B, V, ...) is flattened to that.
        targets: Not read: there so that every contrastive loss can be called alike.
        temperature: T.
        base_temperature: T_base rescales the loss; by default T, which is the paper's loss. SupContrast's is 0.07.
        mode: "all" or "one", the views that are anchors.
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    return supcon_loss(
        views,
        temperature=temperature,
        base_temperature=temperature if base_temperature is None else base_temperature,
        mode=mode,
        reduction=reduction,
    )


@final
class SimCLRLoss(nn.Module):
    """`simclr_loss` with its options.

    Args:
        temperature: T.
        base_temperature: T_base, by default T.
        mode: "all" or "one".
    """

    extra_repr = told_options

    def __init__(self, *, temperature: float = 0.5, base_temperature: float | None = None, mode: Mode = "all") -> None:
        super().__init__()
        check_contrast(mode, temperature, temperature if base_temperature is None else base_temperature)
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.mode = mode

    def forward(self, views: Tensor, targets: Tensor | None = None, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of views (B, V, D)."""
        return simclr_loss(
            views,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            mode=self.mode,
            reduction=reduction,
        )
