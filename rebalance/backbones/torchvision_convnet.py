"""torchvision's convolutional networks beside the ResNets, in stages, with smaller strides where images are small."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.backbones.stages import check_size, cut_into_stages, has_small_stem, keep_size
from rebalance.backbones.weights_file import IMAGENET, load_weights

FAMILIES = ("convnext", "densenet", "efficientnet", "mobilenet", "regnet", "shufflenet")
"""How torchvision's names of these networks begin. Vision transformers and Swin: see `TransformersBackbone`."""


@final
class TorchvisionConvNet(Backbone):
    """A convolutional network of torchvision; a new stage begins where maps become smaller.

    What the network has between the mean over all places and its classifier, such as ConvNeXt's norm or the hidden
    layer of MobileNetV3, belongs to the features; dropout before the classifier does not.

    Args:
        name: torchvision's name, such as "efficientnet_b0", "convnext_tiny", "densenet121" or "mobilenet_v2".
        stem: "imagenet" (as published), "small" (no stride in the first two stages, in ConvNeXt in the first), or
            "auto" by `image_size`.
        image_size: Height and width of the images, px.
        weights: A local weights file (.safetensors, or .pth that loads with `weights_only`) in torchvision's layout.
            The classifier is left out; both stems have the same weights.

    Raises:
        InputError: Weights of another network, or images that are too small for it.
    """

    def __init__(self, name: str, *, image_size: int = 224, stem: str = "auto", weights: Path | None = None) -> None:
        super().__init__()
        import torchvision

        net = torchvision.models.get_model(name, weights=None)
        classifier, between = _head(net)
        if weights is not None:
            load_weights(net, weights, left_out=(f"{classifier}.",))
            self.normalization = IMAGENET
        stages, channels = cut_into_stages(_layers(net))
        small = keep_size(stages) if has_small_stem(stem, image_size) else None
        fill_stages(self, small or stages, channels)
        self.between = between
        self._n_features = int(net.get_submodule(classifier).in_features)
        check_size(self, image_size, name)

    @property
    def n_features(self) -> int:
        """See `Backbone`."""
        return self._n_features

    def pool(self, maps: Tensor) -> Tensor:
        """See `Backbone`."""
        features = super().pool(maps)
        for layer in self.between:
            is_norm_of_maps = isinstance(layer, nn.LayerNorm)  # ConvNeXt's is called with maps of one place
            features = layer(features[:, :, None, None]).flatten(1) if is_norm_of_maps else layer(features)
        return features


def _layers(net: Any) -> list[nn.Module]:
    """What comes before the mean over all places, in order."""
    if hasattr(net, "trunk_output"):  # RegNet
        return [net.stem, *net.trunk_output]
    if hasattr(net, "stage4"):  # ShuffleNet
        return [net.conv1, net.maxpool, net.stage2, net.stage3, net.stage4, net.conv5]
    if isinstance(net.classifier, nn.Linear):  # DenseNet applies the last ReLU in `forward`
        return [*net.features, nn.ReLU(inplace=True)]
    return list(net.features)


def _head(net: Any) -> tuple[str, nn.ModuleList]:
    """The name of the classifier, and the layers between mean and classifier."""
    name = "fc" if hasattr(net, "fc") else "classifier"
    head = net.get_submodule(name)
    if isinstance(head, nn.Linear):
        return name, nn.ModuleList()
    before = [layer for layer in head[:-1] if not isinstance(layer, nn.Dropout | nn.Flatten)]
    return f"{name}.{len(head) - 1}", nn.ModuleList(before)
