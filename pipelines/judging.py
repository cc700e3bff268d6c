"""The real images that candidates are judged by, seen through a classifier's features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.filters import Candidates, RealImages, Verdicts, judge
from generators.manifest import Row
from generators.neighbours import real_distances
from pipelines.config_groups import FilterConfig
from pipelines.model_files import TrainedClassifier
from rebalance.data.augmentation import normalize
from rebalance.data.decoding import decode
from rebalance.data.table import ImageTable

_COPY_QUANTILE = 0.01


@final
class Judge:
    """Verdicts over the candidates of a class; measured once against the real images, called for every round.

    Args:
        model: Its backbone gives the features.
        pixels: Real training images at the generator's size, (N, 3, S, S) uint8.
        table: Their table.
        config: Gates.
        folder: What the candidates' paths are relative to.
    """

    def __init__(
        self, model: TrainedClassifier, pixels: Tensor, table: ImageTable, config: FilterConfig, folder: Path
    ) -> None:
        self.model = model
        self.config = config
        self.folder = folder
        self.pixels = pixels
        self.members = [torch.from_numpy(np.flatnonzero(table.targets == c)) for c in range(len(table.classes))]
        self.real_features = self.features(pixels)
        self.distances = real_distances(
            self.real_features,
            pixels.flatten(1).float() / 255,
            table.targets,
            len(table.classes),
            quantile=config.distance_quantile,
            copy_quantile=_COPY_QUANTILE,
        )
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}  # job id → pixels, features

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Unit feature vectors (N, D) of uint8 images (N, 3, S, S), on the CPU."""
        size, device = self.model.image_size, self.model.mean.device
        backbone = self.model.classifier.backbone
        parts = [torch.zeros((0, backbone.n_features))]
        for part in torch.split(images, 256):
            part = part if part.shape[-1] == size else resize(part, size)
            batch = normalize(part.to(device), self.model.mean, self.model.std)
            parts.append(F.normalize(backbone(batch).float().cpu(), dim=1))
        return torch.cat(parts)

    def __call__(self, label: int, rows: Sequence[Row], wanted: int, *, final: bool) -> Verdicts:
        """Verdicts over the candidates `rows` of class `label`, in plan order; see `generators.filters.judge`."""
        self._look_at([row for row in rows if row["job"] not in self._seen])
        seen = [self._seen[row["job"]] for row in rows]
        candidates = Candidates(
            pixels=torch.stack([pixels for pixels, _ in seen]).float() / 255,
            features=torch.stack([features for _, features in seen]),
            finite=torch.tensor([row["path"] is not None for row in rows]),
        )
        real = RealImages(
            pixels=self.pixels[self.members[label]].float() / 255,
            features=self.real_features[self.members[label]],
            limit=float(self.distances.limits[label]),
            last_limit=float(self.distances.last_limit[label]),
            copy_limit=self.distances.copy_limit,
        )
        return judge(candidates, real, wanted, floor=self.config.floor, skip=self.config.skip_gate, final=final)

    def _look_at(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        pixels = torch.stack([self._read(row) for row in rows])
        for row, image, features in zip(rows, pixels, self.features(pixels), strict=True):
            self._seen[row["job"]] = (image, features)

    def _read(self, row: Row) -> Tensor:
        """Pixels (3, S, S) uint8 of a candidate; black where it was not finite and has no file."""
        if row["path"] is None:
            return torch.zeros_like(self.pixels[0])
        return torch.from_numpy(decode(str(self.folder / row["path"])).copy()).permute(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 images (N, 3, H, W) at another size, antialiased."""
    scaled = F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).byte()
