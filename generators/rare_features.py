"""RSG: new feature maps of tail classes inside the network, from tail maps and the variation of head maps.

A head map minus its nearest class centre is its variation v; a convolution turns it into u, and the tail map + u is a
new sample of the tail class. It is trained by the losses of `rare_feature_losses` and by the classifier's own loss.

Paper: Wang et al., RSG: A Simple but Effective Module for Learning Imbalanced Datasets, CVPR 2021.
Original: https://github.com/Jianf-Wang/RSG, RSG.py. It is used in training alone, after an inner stage (the second of
three in a CIFAR ResNet, the third of four in a ResNet-50), with loss weights 0.1 (cesc) and 0.01 (mv).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from generators.rare_feature_losses import Layout, center_loss, variation_loss
from rebalance.counts import in_class_order
from rebalance.errors import InputError

_AREA = 64  # locations of a map, 8 × 8


class RareFeatures(NamedTuple):
    """A batch of B maps, and the G made from it behind them."""

    maps: Tensor  # (B + G, C, H, W), the first B with their gradient
    targets: Tensor  # (B + G,) class ids
    source: Tensor  # (B + G,) the row of the batch whose weight each inherits: its own, or that of its tail map
    losses: dict[str, Tensor]  # "cesc": centres, and pairs before generation; "mv": generation; scalars, unweighted


@final
class RareFeatureGenerator(nn.Module):
    """Rare-sample generator.

    Nothing here sends gradient to the backbone but the rows that came from it: the losses and the generated rows
    start from detached maps. Everything is computed in float32 at least, outside autocast. Batches of any size and
    maps of any size will do; generation needs a head and a tail sample, and without them the batch stays as it is.

    Unlike the original, the contrastive network is not frozen for good by the first generation: the mv loss reads it
    with detached parameters, and it learns whenever the pair loss is on.

    Args:
        counts: (n_classes,) training images of each class.
        channels: C of the maps.
        n_centers: Centres of each class.
        contrast_channels: Width of the contrastive network.
        strength: Share, in (0, 1], of the larger of the two groups, head and tail, that is paired.
        head_share: The int(head_share · n_classes) most frequent classes, at least one, are the head; of equally
            frequent ones the first.
        head_classes: The head by class ids, instead of `head_share`.
        layout: Rows of the mv loss, see `variation_loss`; "official" or "per_location".
        zero_unused: Give the parameters that a phase does not train zeros for gradients, as DDP needs. False leaves
            them None, as in the original, so that an optimiser passes them by (no weight decay, no momentum). A loop
            that needs the zeros sets the gradients of `idle_parameters` to None before its step.
        center_gradient: "bounded": on maps of more than 8 × 8 the centres learn no faster than on 8 × 8. Their loss is
            a sum over locations, whose curvature Nesterov momentum cannot follow on large maps: at 16 × 16, learning
            rate 0.1 and 40 % of a batch of one class they run off to infinity. Plain momentum, as in the original,
            just follows.

    Raises:
        InputError: A number out of range, an unknown layout or gradient, or a head that is none or all of the classes.
    """

    untraced = varies_rows = True
    """How many rows it adds depends on the batch; see `Method.compile`."""
    is_tail: Tensor

    def __init__(
        self,
        counts: npt.ArrayLike,
        channels: int,
        *,
        n_centers: int = 15,
        contrast_channels: int = 256,
        strength: float = 1.0,
        head_share: float = 0.2,
        head_classes: Sequence[int] | None = None,
        layout: Layout = "official",
        zero_unused: bool = True,
        center_gradient: Literal["exact", "bounded"] = "exact",
    ) -> None:
        super().__init__()
        if not 0.0 < strength <= 1.0:
            raise InputError("a strength in (0, 1]", repr(strength), "use 1 to pair the whole of the larger group")
        if layout not in ("official", "per_location"):
            raise InputError("layout 'official' or 'per_location'", repr(layout), "name one of the two")
        if center_gradient not in ("exact", "bounded"):
            raise InputError("center_gradient 'exact' or 'bounded'", repr(center_gradient), "name one of the two")
        if n_centers < 1 or contrast_channels < 1:
            raise InputError(
                "n_centers >= 1 and contrast_channels >= 1", f"{n_centers} and {contrast_channels}", "use 15 and 256"
            )
        is_tail = _tail_classes(counts, head_share, head_classes)
        n_classes = len(is_tail)
        self.register_buffer("is_tail", is_tail, persistent=False)
        self.strength = strength
        self.layout: Layout = layout
        self.zero_unused = zero_unused
        self.center_gradient = center_gradient
        self.assignment_weight = nn.Parameter(torch.randn(n_classes, channels, n_centers))
        self.assignment_bias = nn.Parameter(torch.ones(n_classes, n_centers))
        self.centers = nn.Parameter(torch.zeros(n_classes, n_centers, channels))
        self.transform = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.contrast = nn.Sequential(
            nn.Conv2d(2 * channels, contrast_channels, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(contrast_channels, contrast_channels, kernel_size=3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(contrast_channels, 2),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every convolution above has one
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Tensor, targets: Tensor, active: bool) -> RareFeatures:
        """The batch, extended where `active`, and the losses.

        Args:
            maps: (B, C, H, W), with gradient.
            targets: (B,) class ids.
            active: False in the first part of training (epochs up to 159 of 200 in the paper): centres and the
                contrastive network learn. True afterwards: maps are generated.

        Raises:
            InputError: Maps or targets of the wrong shape.
        """
        if maps.ndim != 4 or maps.shape[1] != self.centers.shape[2] or targets.shape != maps.shape[:1]:
            raise InputError(
                f"maps (B, {self.centers.shape[2]}, H, W) and targets (B,)",
                f"{tuple(maps.shape)} and {tuple(targets.shape)}",
                "build the generator with the channels of the stage it follows",
            )
        with torch.autocast(maps.device.type, enabled=False):
            fixed = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
            own_centers = self.centers[targets]  # (B, K, C)
            pooled = fixed.mean(dim=(2, 3)).unsqueeze(1)  # (B, 1, C)
            scores = (pooled @ self.assignment_weight[targets]).squeeze(1) + self.assignment_bias[targets]  # (B, K)
            area = fixed.shape[2] * fixed.shape[3]
            share = 1.0 if self.center_gradient == "exact" else min(1.0, _AREA / area)
            learning = own_centers if share == 1 else share * own_centers + (1 - share) * own_centers.detach()
            cesc = center_loss(fixed, learning, scores.softmax(1))
            mv = cesc.new_zeros(())
            source = torch.arange(len(targets), device=targets.device)
            unused: list[nn.Module] = []
            if not active:
                unused.append(self.transform)
                if len(targets) >= 2:
                    cesc = cesc + self._pair_loss(fixed, targets)
                else:
                    unused.append(self.contrast)
            else:
                unused.append(self.contrast)
                heads, tails = self._pairs(targets)
                if len(tails):
                    nearest = own_centers.detach()[source, scores.argmax(1)][:, :, None, None]  # (B, C, 1, 1)
                    head, tail = fixed[heads], fixed[tails]
                    variation = head - nearest[heads]
                    transformed = self.transform(variation)
                    mv = self._mv_loss(head, variation, transformed, tail - nearest[tails])
                    maps = torch.cat([maps, (tail + transformed).to(maps.dtype)])
                    source = torch.cat([source, tails])
                else:
                    unused.append(self.transform)
            if self.zero_unused:
                cesc = cesc + sum(0.0 * weight.sum() for module in unused for weight in module.parameters())
        return RareFeatures(maps, targets[source], source, {"cesc": cesc, "mv": mv})

    def idle_parameters(self, active: bool) -> Iterator[nn.Parameter]:
        """Those of the network that learns in the other phase; give them no step, which would decay them.

        A phase is the same on all processes. A batch is not: what one without a pair leaves idle gets zeros.
        """
        return (self.contrast if active else self.transform).parameters()

    def _pairs(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of head and of tail samples to pair, (G,) each, in the original's order; empty without both kinds."""
        is_tail = self.is_tail[targets]
        heads, tails = (~is_tail).nonzero().squeeze(1), is_tail.nonzero().squeeze(1)
        few, many = sorted((len(heads), len(tails)))
        if few == 0:
            return heads[:0], tails[:0]
        repeats = max(1, int(many * self.strength / few))  # passes over the smaller group
        if len(heads) >= len(tails):
            return heads[: repeats * few], tails.repeat(repeats)
        return heads.repeat(repeats), tails[: repeats * few]

    def _pair_loss(self, fixed: Tensor, targets: Tensor) -> Tensor:
        """Are the two of a pair, one from each half of the batch, of one class? An odd sample is left out."""
        half = len(targets) // 2
        pairs = torch.cat([fixed[:half], fixed[half : 2 * half]], dim=1)
        same = (targets[:half] == targets[half : 2 * half]).long()
        return F.cross_entropy(self.contrast(pairs), same)

    def _mv_loss(self, head: Tensor, variation: Tensor, transformed: Tensor, tail_variation: Tensor) -> Tensor:
        """Keep u as long as v, towards t, and such that the contrastive network does not see the head class in it."""
        frozen = {name: weight.detach() for name, weight in self.contrast.named_parameters()}
        logits = functional_call(self.contrast, frozen, (torch.cat([head, transformed], dim=1),))
        different = torch.zeros(len(head), dtype=torch.long, device=head.device)
        return F.cross_entropy(logits, different) + variation_loss(variation, transformed, tail_variation, self.layout)


def _tail_classes(counts: npt.ArrayLike, head_share: float, head_classes: Sequence[int] | None) -> Tensor:
    """Bool (n_classes,)."""
    n = np.asarray(in_class_order(counts), dtype=np.float64).ravel()
    if head_classes is None:
        if not 0.0 < head_share < 1.0:
            raise InputError("a head_share in (0, 1)", repr(head_share), "use the paper's 0.2")
        head = np.argsort(-n, kind="stable")[: max(1, int(head_share * n.size))]
    else:
        head = np.unique(np.asarray(head_classes))
        if head.size and (head.dtype.kind not in "iu" or head[0] < 0 or head[-1] >= n.size):
            raise InputError(
                f"head_classes from 0 to {n.size - 1}", repr(head_classes), "pass class ids, for example [0, 1]"
            )
    if not 0 < head.size < n.size:
        raise InputError(
            "at least one head and one tail class", f"{head.size} head classes of {n.size}", "change the head's share"
        )
    is_tail = torch.ones(n.size, dtype=torch.bool)
    is_tail[torch.from_numpy(head.astype(np.int64))] = False
    return is_tail
