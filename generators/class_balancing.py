"""Class-balancing diffusion (CBDM): what is predicted for an image's class stays near what others would be told.

    L = |v - v*|² + τ (t/T) (|v - sg(v')|² + γ |sg(v) - v'|²),   v' predicted for a drawn class y'

Early in sampling, where t/T is large, classes then look alike, and rare ones take over what frequent ones vary in.
Classes y' are drawn as the images are. Where an image's own class was left out for guidance nothing is added.
Source: Qin et al., Class-Balancing Diffusion Models, CVPR 2023, equations 4 to 6; qym7/CBDM-pytorch, diffusion.py,
whose tau = 1 with t/T is the paper's 0.001 with t.

Deviation: the original predicts the noise. Here distances are between predictions of v beside a loss of v, so that at
each t the term has the weight beside the loss that it has there.
"""

from __future__ import annotations

from torch import Tensor


def class_balancing_loss(
    predicted: Tensor, other: Tensor, times: Tensor, *, tau: float = 1.0, commitment: float = 0.25
) -> Tensor:
    """The term of each image (B,), to be added to its loss.

    Args:
        predicted: v for the images' own classes (B, C, H, W).
        other: v' for drawn classes (B, C, H, W).
        times: t/T, (B,), 0 without noise, 1 all noise.
        tau: Weight τ.
        commitment: γ, how much of it pulls the drawn classes towards the images' own.
    """
    ours = _squared_distance(predicted, other.detach())
    theirs = _squared_distance(predicted.detach(), other)
    return tau * times * (ours + commitment * theirs)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().flatten(1).mean(1)
