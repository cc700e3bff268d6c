from __future__ import annotations

from typing import final

import pytest
from torch import Tensor, nn

from rebalance.backbones import Backbone, SmallCNN


@final
class NormBehindPooling(SmallCNN):
    """A small network with weights behind its pooling."""

    def __init__(self) -> None:
        super().__init__(width=8)
        self.norm = nn.LayerNorm(self.n_features)

    def pool(self, maps: Tensor) -> Tensor:
        normalised: Tensor = self.norm(super().pool(maps))
        return normalised


@pytest.fixture
def norm_behind_pooling() -> Backbone:
    """A backbone some of whose weights take no part where its maps are not pooled."""
    return NormBehindPooling()
