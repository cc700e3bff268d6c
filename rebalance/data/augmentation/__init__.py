"""Augmentation: batched on the training device for small images, torchvision's in loader workers for large ones."""

from rebalance.data.augmentation.parsing import parse_augmentation, parse_views
from rebalance.data.augmentation.pipeline import Augmentation, MultiView, normalize
from rebalance.data.augmentation.workers import WorkerTransform, worker_transform

__all__ = [
    "Augmentation",
    "MultiView",
    "WorkerTransform",
    "normalize",
    "parse_augmentation",
    "parse_views",
    "worker_transform",
]
