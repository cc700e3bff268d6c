"""`model/`: weights without anything that only training needs, class names, preprocessing; loaded by one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias, final

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn

from rebalance.backbones import build_backbone
from rebalance.classifier import Classifier
from rebalance.counts import FloatArray, Group, shot_groups
from rebalance.data.augmentation import normalize
from rebalance.data.decoding import decode, to_rgb
from rebalance.data.table import ByteArray, Image
from rebalance.errors import InputError
from rebalance.files import read_json, write_json, write_tensors

OneImage: TypeAlias = "str | Path | Pillow.Image | ByteArray"
"""A file, or pixels (H, W, 3) uint8."""
Images: TypeAlias = "OneImage | Sequence[OneImage]"
"""One image or several; several of one size may be one array (N, H, W, 3)."""


@dataclass(frozen=True)
class ModelDescription:
    """Everything but the weights that a classifier is rebuilt from.

    Args:
        backbone: Name, see `rebalance.backbones`.
        stem: Stem of torchvision networks.
        head: Name, see `rebalance.heads`.
        scale: From the head's scores to logits; None for the length of the features.
        image_size: Height and width that images are brought to, px.
        mean: Of the training pixels in [0, 1], by channel.
        std: Likewise.
        classes: Class names, by id.
        train_counts: Real training images of each class.
        head_options: Of the head.
        adjusted: Whether there is a bias for each class beside the head, see `Classifier`.
        backbone_options: What else the backbone is rebuilt from, see `Backbone`.
        many: A class with more training images is many-shot.
        few: A class with fewer training images is few-shot.
    """

    backbone: str
    stem: str
    head: str
    scale: float | None
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    head_options: dict[str, Any] = field(default_factory=dict)
    adjusted: bool = False
    backbone_options: dict[str, Any] = field(default_factory=dict)
    many: int = 100
    few: int = 20

    @property
    def groups(self) -> list[Group]:
        """Many, medium or few, by class."""
        return shot_groups(self.train_counts, self.many, self.few)


@final
class TrainedClassifier:
    """A classifier with its preprocessing.

    Args:
        classifier: Normalised images → logits.
        description: What it was built from.

    Attributes:
        classifier: The network, in evaluation mode.
        classes: Class names, by id.
        image_size: Height and width that images are brought to, px.
        groups: Many, medium or few, by class.
    """

    def __init__(self, classifier: Classifier, description: ModelDescription) -> None:
        self.classifier = classifier.eval()
        self.description = description
        self.classes = description.classes
        self.image_size = description.image_size
        self.groups = description.groups
        self.mean = torch.tensor(description.mean)
        self.std = torch.tensor(description.std)

    def __repr__(self) -> str:
        return f"TrainedClassifier({self.description.backbone}, {len(self.classes)} classes, {self.image_size} px)"

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`."""
        self.classifier.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def preprocess(self, images: Images) -> Tensor:
        """Files or pixels → normalised images (B, 3, S, S).

        Raises:
            InputError: Anything but paths, Pillow's images and uint8 pixels (H, W, 3), or a file that cannot be read.
        """
        arrays = [self._pixels(_image(image)) for image in _several(images)]
        pixels = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]
        empty = torch.zeros((0, 3, self.image_size, self.image_size), dtype=torch.uint8)
        return normalize((torch.stack(pixels) if pixels else empty).to(self.mean.device), self.mean, self.std)

    @torch.no_grad()
    def predict_proba(self, images: Images, *, batch_size: int = 256) -> FloatArray:
        """Probabilities (B, C) of one image or several: paths, Pillow's images or uint8 pixels (H, W, 3).

        Raises:
            InputError: Anything else, or a file that cannot be read.
        """
        several = _several(images)
        parts = [np.zeros((0, len(self.classes)))]
        for start in range(0, len(several), batch_size):
            logits = self.classifier(self.preprocess(several[start : start + batch_size]))
            parts.append(logits.cpu().double().softmax(dim=1).numpy())
        return np.concatenate(parts)

    def predict(self, images: Images, *, batch_size: int = 256) -> list[str]:
        """Class names of one image or several: paths, Pillow's images or uint8 pixels (H, W, 3)."""
        return [self.classes[i] for i in self.predict_proba(images, batch_size=batch_size).argmax(axis=1)]

    def _pixels(self, image: Image) -> ByteArray:
        try:
            return decode(image, self.image_size)
        except OSError as error:
            raise InputError("readable images", str(error), "mend the file, or leave it out") from error


def _several(images: Images) -> Sequence[OneImage]:
    one = isinstance(images, str | Path | Pillow.Image) or (isinstance(images, np.ndarray) and images.ndim < 4)
    return [images] if one else images  # type: ignore[list-item,return-value]  # as the line above found out


def _image(image: OneImage) -> Image:
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Pillow.Image):
        return np.array(to_rgb(ImageOps.exif_transpose(image)))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            "paths, Pillow's images or uint8 pixels (H, W, 3)", got, "scale pixels to 0 … 255, three channels"
        )
    return image


def build_classifier(description: ModelDescription) -> Classifier:
    """An untrained classifier of this description."""
    backbone = build_backbone(
        description.backbone,
        image_size=description.image_size,
        stem=description.stem,
        options=description.backbone_options,
    )
    return Classifier(
        backbone,
        len(description.classes),
        head=description.head,
        scale=description.scale,
        head_options=description.head_options,
        adjusted=description.adjusted,
    )


def save_model(folder: Path, classifier: nn.Module, description: ModelDescription) -> None:
    """Write `folder` (a run's `model/`): the weights last, so that a folder with weights is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "classes.json", list(description.classes))
    write_json(folder / "model.json", asdict(description))
    write_tensors(folder / "weights.safetensors", classifier.state_dict())


def weights_of(run: Path | str) -> Path:
    """The weights in a run folder, or in its `model/` alone.

    Raises:
        InputError: None there.
    """
    folder = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    if not (folder / "weights.safetensors").is_file():
        raise InputError("a finished run with a model", f"{run}, which has none", "give a folder that a run printed")
    return folder / "weights.safetensors"


def load_model(run: Path | str) -> TrainedClassifier:
    """The classifier of a run folder, or of its `model/` alone.

    Raises:
        InputError: No model there, or files that do not fit together.
    """
    weights = weights_of(run)
    folder = weights.parent
    values: dict[str, Any] = read_json(folder / "model.json")
    try:
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        description = ModelDescription(**{**values, **lists})
        classifier = build_classifier(description)
        classifier.load_state_dict(load_file(weights))
    except InputError as error:  # a backbone that this Python cannot import, say
        raise InputError(f"{error.expected}, for {folder}", error.got, error.fix) from error
    except Exception as error:
        raise InputError("a whole model folder", f"{folder}: {error}", "export the model again") from error
    return TrainedClassifier(classifier, description)
