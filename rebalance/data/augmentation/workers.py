"""The same augmentations by torchvision, image by image: for images over 64 pixels, which loader workers decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from rebalance.data.augmentation.color import RADIUS, SIGMA, Blur, Gray, Jitter
from rebalance.data.augmentation.geometry import RATIO, Crop, Cutout, Flip, ResizedCrop
from rebalance.data.augmentation.parsing import parse_views
from rebalance.data.augmentation.pipeline import Augmentation, Step
from rebalance.data.augmentation.policies import AutoAugment, RandAugment, TrivialAugment

if TYPE_CHECKING:
    from PIL import Image


@final
class WorkerTransform:
    """(image, seed) → uint8 views (V, 3, S, S). torchvision's transforms (v2), picklable for the workers of a loader.

    torchvision draws from torch's global CPU generator. It is seeded for the call and left as it was, so that a view
    depends on the image and the seed, not on the worker or on what was augmented before.

    Attributes:
        views: One `torchvision.transforms.v2.Compose` a view.
    """

    def __init__(self, views: tuple[Any, ...]) -> None:
        self.views = views

    def __call__(self, image: Image.Image | Tensor, seed: int) -> Tensor:
        """Args are an RGB image of any size, PIL or uint8 (3, H, W), and a seed of the sample's own."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return torch.stack([view(image) for view in self.views])


def worker_transform(text: str, *, image_size: int) -> WorkerTransform:
    """The views that `parse_views` would give, by torchvision, with the same names, options and defaults.

    A view that does not begin with `resizedcrop` begins with the shorter side resized to `image_size` and the centre
    square, which is what evaluation sees.
    """
    views = parse_views(text, image_size=image_size).views
    return WorkerTransform(tuple(_compose(view, image_size) for view in views))


def _compose(view: Augmentation, image_size: int) -> Any:
    from torchvision.transforms import v2  # importing it takes a second, which only those who use it should wait

    steps = [_transform(step, image_size) for step in view.steps]
    if not (view.steps and isinstance(view.steps[0], ResizedCrop)):
        steps = [v2.Resize(image_size, antialias=True), v2.CenterCrop(image_size), *steps]
    return v2.Compose([v2.ToImage(), *steps, v2.ToPureTensor()])


def _transform(step: Step, image_size: int) -> Any:
    from torchvision.transforms import v2

    match step:
        case Crop(pad):
            return v2.RandomCrop(image_size, padding=pad)
        case Flip(p):
            return v2.RandomHorizontalFlip(p)
        case Cutout(side):
            return _Cutout(side)
        case ResizedCrop(scale):
            return v2.RandomResizedCrop(image_size, scale=(scale, 1.0), ratio=RATIO, antialias=True)
        case Jitter(strength, hue, p):
            return v2.RandomApply([v2.ColorJitter(strength, strength, strength, hue)], p)
        case Gray(p):
            return v2.RandomGrayscale(p)
        case Blur(p):
            return v2.RandomApply([v2.GaussianBlur(2 * RADIUS + 1, SIGMA)], p)
        case AutoAugment(fill):
            return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=fill)
        case RandAugment(n, m, fill):
            return v2.RandAugment(n, m, fill=fill)
        case TrivialAugment(fill):
            return v2.TrivialAugmentWide(fill=fill)
    raise TypeError(f"expected a step that torchvision has; got {step!r}; add it to {__name__}")


@final
class _Cutout:
    """`Cutout` of one image; torchvision's RandomErasing never reaches over the border."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        top = int(torch.randint(height, ())) - self.side // 2
        left = int(torch.randint(width, ())) - self.side // 2
        image = image.clone()
        image[..., max(top, 0) : top + self.side, max(left, 0) : left + self.side] = 0
        return image
