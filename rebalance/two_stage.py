"""Second stages of decoupled training: a trained classifier re-scaled, learnt scales, or class means instead of one.

    τ-normalisation   w_c ← w_c / ‖w_c‖^τ
    LWS               logit_c = f_c · (w_c·x + b_c), the scales f learnt on class-balanced draws, all else frozen
    NCM               logit_c = -‖x - μ_c‖², or x·μ_c / D, with the means μ of transformed training features

Paper: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.
Original: https://github.com/facebookresearch/classifier-balancing, tau_norm.py, models/.
"""

from __future__ import annotations

from typing import Any, Literal, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError


def tau_norm(
    weight: Tensor, bias: Tensor | None = None, *, tau: float = 1.0, use_bias: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Classifier weight and bias after τ-normalisation.

    Args:
        weight: (C, D), a row for each class.
        bias: (C,) or None.
        tau: 0 leaves the weight as it is, 1 makes all rows unit length; chosen on validation data.
        use_bias: Keep the bias, unscaled; the original drops it. A row of zeros stays one.
    """
    lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    scaled = weight / torch.where(lengths > 0, lengths, 1.0) ** tau
    return scaled, bias if use_bias else None


@final
class LearnableWeightScaling(nn.Module):
    """LWS: one learnt factor a class on the logits, bias included, of a frozen classifier.

    Weight decay pulls the factors to 0, not to 1, as in the original.

    Args:
        n_classes: C.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.ones(n_classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (B, C) → scaled logits (B, C)."""
        return logits * self.scales


@final
class ScaledLinearHead(nn.Module):
    """A linear head under learnt scales, as LWS trains it; `folded` is the linear head that it amounts to.

    Args:
        n_features: D.
        n_classes: C.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)
        self.scaling = LearnableWeightScaling(n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D)."""
        logits: Tensor = self.scaling(self.linear(features))
        return logits

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """A linear head with the scales in its weight and bias."""
        head = nn.Linear(self.linear.in_features, self.linear.out_features).to(self.linear.weight)
        head.weight.copy_(self.linear.weight * self.scaling.scales[:, None])
        head.bias.copy_(self.linear.bias * self.scaling.scales)
        return head


@final
class NearestClassMean(nn.Module):
    """Features (B, D) → logits (B, C), from the class means of the training features.

    Args:
        features: (N, D) training features, from the network in eval mode.
        targets: (N,) class ids.
        n_classes: C.
        transform: Of features before means and distances. "un": none. "l2n": unit length. "cl2n": minus the mean
            training feature, then unit length. The means themselves are not normalised again.
        distance: "l2": -‖x - μ_c‖². "cos": x·μ_c / D, the original's name for it.

    Raises:
        InputError: A class without features, or an unknown option.
    """

    center: Tensor
    means: Tensor

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        n_classes: int,
        *,
        transform: Literal["un", "l2n", "cl2n"] = "cl2n",
        distance: Literal["l2", "cos"] = "l2",
    ) -> None:
        super().__init__()
        if transform not in ("un", "l2n", "cl2n"):
            raise InputError("transform 'un', 'l2n' or 'cl2n'", repr(transform), "name one of the three")
        if distance not in ("l2", "cos"):
            raise InputError("distance 'l2' or 'cos'", repr(distance), "name one of the two")
        sizes = torch.bincount(targets, minlength=n_classes)
        if len(sizes) > n_classes or not bool(sizes.all()):
            wrong = n_classes if len(sizes) > n_classes else int((sizes == 0).nonzero()[0])
            raise InputError(
                f"training features of classes 0 to {n_classes - 1}, each at least once",
                f"{int(sizes[wrong])} of class {wrong}",
                "pass features of exactly the classes to tell apart",
            )
        self.transform = transform
        self.distance = distance
        self.register_buffer("center", features.mean(0))
        rows = self._transformed(features)
        sums = rows.new_zeros(n_classes, rows.shape[1]).index_add(0, targets, rows)
        self.register_buffer("means", sums / sizes.unsqueeze(1))

    @classmethod
    def empty(cls, n_features: int, n_classes: int, **options: Any) -> Self:
        """One without features, whose means a state dict will fill."""
        return cls(torch.zeros(n_classes, n_features), torch.arange(n_classes), n_classes, **options)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C)."""
        rows = self._transformed(features)
        products = rows @ self.means.T
        if self.distance == "cos":
            return products / rows.shape[1]
        return 2 * products - rows.square().sum(1, keepdim=True) - self.means.square().sum(1)

    def _transformed(self, features: Tensor) -> Tensor:
        if self.transform == "un":
            return features
        return F.normalize(features - self.center if self.transform == "cl2n" else features, dim=1)
