"""Region rebalance's branch for semantic segmentation: label maps → one row for each class of a batch.

    maps (B, D, h, w) → conv1x1, BatchNorm → up to the label maps' size → mean over the pixels of each class
    → Linear, ReLU → dropout → Linear: region logits

It is beside the network in training alone and in no prediction:

    loss = pixel_loss(pixel_logits, labels) + weight * RegionRebalanceLoss(counts)(*branch(maps, labels))

where `maps` are what the pixel classifier takes and `counts` those of `images_with_class`.

Paper: Cui et al., Region Rebalance for Long-Tailed Semantic Segmentation, arXiv 2204.01969.
Original: https://github.com/dvlab-research/Parametric-Contrastive-Learning,
GPaCo/Seg/mmseg/models/decode_heads/uper_head_ceco.py, UPerHead_cecol.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rebalance.counts import IntArray
from rebalance.errors import InputError


class Regions(NamedTuple):
    """A row for each of the C classes, also those that the batch does not have: their number is on the device.

    The original's, without them, are `logits[present]` and `targets[present]`, for which a GPU is waited for.
    """

    logits: Tensor  # (C, C)
    targets: Tensor  # (C,), 0 … C - 1
    present: Tensor  # (C,) bool, the classes with a pixel in the batch; the other rows mean nothing


@final
class RegionBranch(nn.Module):
    """Region logits of a batch; the loss is `rebalance.losses.RegionRebalanceLoss`.

    Regions are means over the batch of one process, as in the original. Outside autocast, means are computed in float32
    at least, the classifier in the type of its parameters. Where it is trained, all parameters get gradients from every
    batch, zeros from one without a labelled pixel. On several processes keep branch and network in one module, which
    DDP wraps: frozen, the branch has nothing to learn, and DDP refuses it alone.

    Parameters are named as in the original: its state dict's `reduce.*`, `gain.*` and `img_cls.*`, without the prefix
    `decode_head.`, can be loaded.

    Args:
        channels: D of the maps.
        n_classes: C.
        width: Channels of the regions.
        hidden: Width of the hidden layer.
        dropout: Of the hidden layer; the original takes its decode head's.
        scale: Factor of the logits.
        frozen: True as in the released code: convolution, norm and classifier stay as they were drawn, and the branch
            teaches the network through a random projection. False trains them, as the paper describes it. A
            `requires_grad_(True)` of a module around it thaws it.
        ignore_index: Label of the pixels that are of no class; none of 0 … C - 1.

    Raises:
        InputError: A size below 1, a dropout outside [0, 1), a scale that is not positive, or a class that is ignored.
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        width: int = 128,
        hidden: int = 512,
        dropout: float = 0.1,
        scale: float = 1.0,
        frozen: bool = True,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        for name, size in (("channels", channels), ("n_classes", n_classes), ("width", width), ("hidden", hidden)):
            if size < 1:
                raise InputError(f"{name} >= 1", repr(size), "pass the size of what the branch is for")
        if not 0.0 <= dropout < 1.0:
            raise InputError("a dropout in [0, 1)", repr(dropout), "use 0 for none")
        if not 0.0 < scale < float("inf"):
            raise InputError("a scale > 0", repr(scale), "1 is the original's default")
        _check_ignored(ignore_index, n_classes)
        self.reduce = nn.Sequential(nn.Conv2d(channels, width, kernel_size=1, bias=False), nn.BatchNorm2d(width))
        self.gain = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True))
        self.img_cls = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))
        self.requires_grad_(not frozen)
        self.n_classes = n_classes
        self.scale = scale
        self.ignore_index = ignore_index

    def forward(self, maps: Tensor, labels: Tensor) -> Regions:
        """Maps (B, D, h, w) and label maps (B, H, W) or (B, 1, H, W) of any size → regions."""
        reduced = self.reduce(maps)
        with torch.autocast(maps.device.type, enabled=False):
            means, n_pixels = region_means(reduced, labels, self.n_classes, ignore_index=self.ignore_index)
            hidden = self.gain(means.to(next(self.gain.parameters()).dtype))
            logits = self.img_cls(hidden) * self.scale
        return Regions(logits, torch.arange(self.n_classes, device=maps.device), n_pixels > 0)


def region_means(maps: Tensor, labels: Tensor, n_classes: int, *, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """Mean over each class's pixels of maps that are resized, bilinear with aligned corners, to the label maps' size.

    The maps are not resized: both steps are linear, so a mean is a sum over the locations of the maps, each weighed by
    what the pixels of the class take of it, and these weights follow from the labels. They are C · B · h · w numbers
    without gradient, in place of D · B · H · W with one: more only for maps nearly as large as the label maps.

    Args:
        maps: (B, D, h, w).
        labels: (B, H, W) or (B, 1, H, W) class ids of any integer type.
        n_classes: C.
        ignore_index: Label of the pixels that count nowhere; none of 0 … C - 1.

    Returns:
        Means (C, D) in float32 or wider, 0 for a class without a pixel, and pixels of each class (C,), int64.

    Raises:
        InputError: Shapes or types that do not fit; on the CPU, where nothing is waited for, also other class ids.
    """
    labels = _checked(maps, labels, n_classes, ignore_index)  # (B, H, W)
    dtype = torch.promote_types(maps.dtype, torch.float32)
    batch, _, height, width = maps.shape
    counted = labels != ignore_index
    ids = torch.where(counted, labels, 0)
    n_pixels = torch.zeros(n_classes, dtype=torch.int64, device=labels.device)
    n_pixels.scatter_add_(0, ids.flatten(), counted.flatten().long())

    images = torch.arange(batch, device=labels.device)[:, None, None]
    first = (ids * batch + images) * (height * width)  # (B, H, W), of the class and image in the weights below
    weights = torch.zeros(n_classes * batch * height * width, dtype=dtype, device=labels.device)
    for row, row_share in _neighbours(height, labels.shape[1], labels.device, dtype):
        for column, column_share in _neighbours(width, labels.shape[2], labels.device, dtype):
            location = row[:, None] * width + column  # (H, W)
            share = row_share[:, None] * column_share * counted  # (B, H, W)
            weights.scatter_add_(0, (first + location).flatten(), share.flatten())
    sums = weights.view(n_classes, -1) @ maps.to(dtype).movedim(1, -1).flatten(0, 2)  # (C, D)
    return sums / n_pixels.clamp(min=1)[:, None], n_pixels


def _neighbours(n: int, n_resized: int, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The two locations out of n that each of `n_resized` lies between, corners aligned, and the share of each."""
    steps = max(n_resized - 1, 1)
    position = torch.arange(n_resized, device=device) * (n - 1)  # in whole steps, so nothing is rounded
    before = position // steps
    share = (position % steps).to(dtype) / steps
    return [(before, 1 - share), ((before + 1).clamp(max=n - 1), share)]


def _checked(maps: Tensor, labels: Tensor, n_classes: int, ignore_index: int) -> Tensor:
    """`labels` as int64 (B, H, W)."""
    _check_ignored(ignore_index, n_classes)
    if maps.ndim != 4:
        raise InputError("maps (B, D, h, w)", str(tuple(maps.shape)), "pass what the pixel classifier takes")
    fits = labels.ndim == 3 or (labels.ndim == 4 and labels.shape[1] == 1)
    if not fits or len(labels) != len(maps) or 0 in labels.shape:
        raise InputError(
            f"label maps ({len(maps)}, H, W) or ({len(maps)}, 1, H, W), one for each map",
            str(tuple(labels.shape)),
            "pass class ids, not one-hot channels",
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError("class ids of an integer type", str(labels.dtype), "call labels.long()")
    labels = labels.flatten(0, -3).long()
    if labels.device.type == "cpu":  # elsewhere scatter refuses them, later and with less of a reason
        wrong = labels[((labels < 0) | (labels >= n_classes)) & (labels != ignore_index)]
        if len(wrong):
            raise InputError(
                f"labels from 0 to {n_classes - 1}, or {ignore_index} for none",
                str(int(wrong[0])),
                "renumber the classes, or set ignore_index",
            )
    return labels


def _check_ignored(ignore_index: int, n_classes: int) -> None:
    if 0 <= ignore_index < n_classes:
        raise InputError(
            f"an ignore_index that is none of the classes 0 to {n_classes - 1}",
            repr(ignore_index),
            "use -1",
        )


def images_with_class(label_maps: Iterable[npt.ArrayLike], n_classes: int, *, ignore_index: int = 255) -> IntArray:
    """Number of label maps that have a pixel of each class, (C,): the counts of `RegionRebalanceLoss`.

    Args:
        label_maps: Class ids of each image, read one after the other; sizes may differ.
        n_classes: C.
        ignore_index: Label of the pixels that are of no class; none of 0 … C - 1.

    Raises:
        InputError: A label that is no class, a class that is ignored, or rows of pixels in place of maps.

    Examples:
        >>> images_with_class([[[0, 0], [1, 255]], [[0, 0], [0, 0]]], 3)
        array([2, 1, 0])
    """
    _check_ignored(ignore_index, n_classes)
    counts = np.zeros(n_classes, dtype=np.int64)
    for i, label_map in enumerate(label_maps):
        pixels = np.asarray(label_map)
        if pixels.ndim < 2:
            raise InputError("label maps (H, W)", f"shape {pixels.shape}", "put a single map into a list")
        ids = np.unique(pixels)
        ids = ids[ids != ignore_index]
        wrong = ids if ids.dtype.kind not in "iu" else ids[(ids < 0) | (ids >= n_classes)]
        if wrong.size:
            raise InputError(
                f"labels from 0 to {n_classes - 1}, or {ignore_index} for none",
                f"{wrong[0]} in label map {i}",
                "renumber the classes, or set ignore_index",
            )
        counts[ids.astype(np.int64)] += 1
    return counts
