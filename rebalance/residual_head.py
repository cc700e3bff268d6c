"""ResLT's heads: one feature map, several branches, one shared classifier; logits of each branch, (B, R, C).

    CIFAR         branch r:  BatchNorm_r → pool → classifier
    large scale   conv1x1 D → R·D, BatchNorm, ReLU, split in R → pool → classifier

Paper: Cui et al., ResLT: Residual Learning for Long-tailed Recognition, TPAMI 2022, section 3.
Original: https://github.com/jiequancui/ResLT. A prediction is the sum over the branches.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.two_stage import tau_norm


@final
class ResidualNormHead(nn.Module):
    """The CIFAR head: branches differ in their batch norm alone.

    Args:
        channels: D of the maps.
        n_classes: C.
        n_branches: R; head, medium and tail in the paper.
    """

    takes_maps: ClassVar[bool] = True

    def __init__(self, channels: int, n_classes: int, *, n_branches: int = 3) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(n_branches))
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) → branch logits (B, R, C)."""
        pooled = torch.stack([norm(maps).mean(dim=(2, 3)) for norm in self.norms], dim=1)  # (B, R, D)
        logits: Tensor = self.classifier(pooled)
        return logits


@final
class ResidualConvHead(nn.Module):
    """The large-scale head: a 1x1 convolution gives each branch its own channels.

    Args:
        channels: D of the maps.
        n_classes: C.
        n_branches: R.
        pool_first: Pool before the convolution in training; the original's default pools after it
            (`--after_1x1conv`).
        evaluation: "official": in eval mode pool first whatever training did, which differs from it because of the
            ReLU, and drop the classifier's bias. "as_trained": the same order and bias as in training.
        tau: τ-normalisation of the classifier in eval mode, `--gamma` in the original: 0.3 for ResNet-10, 0.7 for
            ResNeXt on ImageNet-LT.

    Raises:
        InputError: An unknown `evaluation`.
    """

    takes_maps: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        n_branches: int = 3,
        pool_first: bool = False,
        evaluation: Literal["official", "as_trained"] = "official",
        tau: float = 0.0,
    ) -> None:
        super().__init__()
        if evaluation not in ("official", "as_trained"):
            raise InputError("evaluation 'official' or 'as_trained'", repr(evaluation), "name one of the two")
        self.split = nn.Sequential(
            nn.Conv2d(channels, n_branches * channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(n_branches * channels),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(channels, n_classes)
        self.n_branches = n_branches
        self.pool_first = pool_first
        self.evaluation = evaluation
        self.tau = tau

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) → branch logits (B, R, C)."""
        official_evaluation = self.evaluation == "official" and not self.training
        if self.pool_first or official_evaluation:
            maps = maps.mean(dim=(2, 3), keepdim=True)
        branches = self.split(maps).mean(dim=(2, 3)).unflatten(1, (self.n_branches, -1))  # (B, R, D)
        if self.training:
            logits: Tensor = self.classifier(branches)
            return logits
        weight, bias = tau_norm(
            self.classifier.weight, self.classifier.bias, tau=self.tau, use_bias=not official_evaluation
        )
        return F.linear(branches, weight, bias)
