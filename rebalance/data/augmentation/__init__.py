"""Augmentation of whole batches, on the training device."""

from rebalance.data.augmentation.parsing import parse_augmentation, parse_views
from rebalance.data.augmentation.pipeline import Augmentation, MultiView, normalize

__all__ = [
    "Augmentation",
    "MultiView",
    "normalize",
    "parse_augmentation",
    "parse_views",
]
