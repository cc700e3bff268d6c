"""A trained classifier as one program of torch's own operators: uint8 images in, probabilities or logits out."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipelines.model_files import TrainedClassifier
from rebalance import __version__
from rebalance.data.augmentation import normalize
from rebalance.errors import RunError

Outputs: TypeAlias = Literal["probabilities", "logits"]


@final
class PortableClassifier(nn.Module):
    """uint8 RGB images (B, 3, S, S) → probabilities or logits (B, C); pixels are normalised inside.

    Args:
        model: The classifier, whose network is shared.
        outputs: What comes out.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedClassifier, outputs: Outputs) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.softmax = outputs == "probabilities"
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities or logits (B, C)."""
        logits: Tensor = self.classifier(normalize(images, self.mean, self.std))
        return logits.softmax(dim=1) if self.softmax else logits


def trace(portable: PortableClassifier, size: int) -> ExportedProgram:
    """The program for batches of any number of images, without the paths of the source files it was traced in.

    Args:
        portable: In evaluation mode.
        size: Height and width of the images, px.

    Raises:
        RunError: A network that torch cannot export.
    """
    images = torch.zeros((2, 3, size, size), dtype=torch.uint8)  # of one image torch would make a constant
    try:
        with torch.no_grad():
            program = torch.export.export(portable, (images,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:
        raise RunError(f"torch cannot export this network: {error}") from error
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def describe(model: TrainedClassifier, outputs: Outputs) -> dict[str, Any]:
    """What a reader of the file has to know, as plain values."""
    size = model.image_size
    return {
        "input": f"uint8 RGB images (batch, 3, {size}, {size}), 0 to 255",
        "preprocessing": f"EXIF rotation, transparency over white, shorter side scaled to {size} px (bicubic, "
        "antialiased), centre cropped; pixels are normalised inside",
        "output": f"{outputs} (batch, {len(model.classes)}), in the order of classes",
        "classes": list(model.classes),
        "train_counts": list(model.description.train_counts),
        "image_size": size,
        "made_by": f"longtail-rebalance {__version__}",
    }
