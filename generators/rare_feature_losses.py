"""The losses of the rare-sample generator (RSG): class centres, and how far a transferred variation may stray.

With maps x_i (C, H, W), the centres c_ik (C,) of the sample's own class and its soft assignment γ_i to them,

    centre = 1/N Σ_i Σ_k γ_ik ‖x_i - c_ik‖²,   c broadcast over H×W
    mv     = 1/N Σ_r |‖u_r‖ - ‖v_r‖| + 1/N Σ_r (1 - cos(t_r, u_r))

where v is a head map minus its centre, u its transformation, t the tail map minus its centre, and r runs over rows of
length C of the N maps. (The third part of the paper's mv loss, a cross entropy, is the generator's own.)

Paper: Wang et al., RSG: A Simple but Effective Module for Learning Imbalanced Datasets, CVPR 2021, section 3.
Original: https://github.com/Jianf-Wang/RSG, RSG.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Layout = Literal["official", "per_location"]

_SHORT = 1e-6


def center_loss(maps: Tensor, centers: Tensor, assignment: Tensor) -> Tensor:
    """The centre loss of maps (N, C, H, W), with gradient to centers (N, K, C) and assignment (N, K) alone.

    Σ_hw ‖x - c‖² = Σ_hw ‖x - g‖² + H·W ‖g - c‖² with g the mean over H×W: nothing of size N×K×C×H×W is made, and
    no digits cancel. An assignment sums to 1 over k, so the first part is one number a map.
    """
    maps = maps.detach()
    area = maps.shape[2] * maps.shape[3]
    spread = maps.var(dim=(2, 3), correction=0).sum(1) * area  # (N,)
    distance = (maps.mean(dim=(2, 3)).unsqueeze(1) - centers).square().sum(2) * area  # (N, K)
    return (spread + (assignment * distance).sum(1)).sum() / max(len(maps), 1)


def variation_loss(variation: Tensor, transformed: Tensor, tail_variation: Tensor, layout: Layout) -> Tensor:
    """Length and direction parts of the mv loss; v, u and t are (N, C, H, W).

    "official" reads rows off the NCHW memory as the original's view(-1, C) does: a row is C neighbours inside channel
    planes, and the direction part carries the constant (C - 1)·H·W, for 1 - cos of the elements of a row, not of the
    row. "per_location" takes the C channels of one location as a row, as the paper means it, without the constant.
    """
    v, u, t = (_rows(maps, layout) for maps in (variation, transformed, tail_variation))
    length = (torch.linalg.vector_norm(u, dim=1) - torch.linalg.vector_norm(v, dim=1)).abs().sum()
    cosines = (_unit(t) * _unit(u)).sum()
    constant = u.numel() if layout == "official" else len(u)
    loss: Tensor = (length + constant - cosines) / len(variation)
    return loss


def _rows(maps: Tensor, layout: Layout) -> Tensor:
    channels = maps.shape[1]
    if layout == "official":
        return maps.reshape(-1, channels)
    return maps.permute(0, 2, 3, 1).reshape(-1, channels)


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; one shorter than 1e-6 has no direction, becomes 0 and gets no gradient."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > _SHORT, length, torch.inf)
