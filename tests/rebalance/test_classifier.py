from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError


def classifier(**options: object) -> tuple[Classifier, Tensor]:
    torch.manual_seed(0)
    return Classifier(SmallCNN(width=8), 3, **options).eval(), torch.randn(4, 3, 8, 8)  # type: ignore[arg-type]


def test_a_linear_head_gives_logits_of_the_backbones_features() -> None:
    model, images = classifier()
    features = model.backbone(images)
    assert features.shape == (4, 32)
    expected = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model.logits(features), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_cosine_head_is_scaled(scale: float) -> None:
    model, images = classifier(head="cosine", scale=scale)
    cosines = F.normalize(model.backbone(images), dim=1) @ F.normalize(model.head.weight, dim=0)
    torch.testing.assert_close(model(images), scale * cosines)


def test_without_a_scale_the_length_of_the_features_is_taken() -> None:
    model, images = classifier(head="cosine", scale=None)
    torch.testing.assert_close(model(images), model.backbone(images) @ F.normalize(model.head.weight, dim=0))


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match="a head; got 'cosin'; did you mean 'cosine'"):
        classifier(head="cosin")
