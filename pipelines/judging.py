"""The real images that candidates are judged by, seen through a classifier's features and, if given, through CLIP's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.class_names import readable
from generators.confusions import third_class, usual_confusions
from generators.filters import Candidates, RealImages, Verdicts, judge
from generators.image_text import ImageText, agreement_limits, check_clip_folder
from generators.manifest import Row
from generators.neighbours import real_distances
from generators.perceptual_hash import SMALLEST, hash_limit, perceptual_hashes
from pipelines.config_groups import FilterConfig
from pipelines.console import log
from pipelines.model_files import TrainedClassifier
from pipelines.ranges import refuse_outside
from rebalance.data.augmentation import normalize
from rebalance.data.decoding import decode
from rebalance.data.resizing import resize_images
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

_COPY_QUANTILE = 0.01
_BLOCK = 256
_COMPARED = 32  # px; pixels are compared at this size, or at their own if that is smaller


class Marks(NamedTuple):
    """What tells whether two images are the same one; never their full pixels.

    Args:
        pixels: At most 32 px, (N, 3, h, h) uint8.
        digests: Hash of all pixels, (N,).
        hashes: Perceptual hashes of the images and of the mirrored ones, (N, 64) each; None for small images.
    """

    pixels: Tensor
    digests: list[bytes]
    hashes: tuple[Tensor, Tensor] | None


class _Look(NamedTuple):
    """What is kept of images once they were looked at."""

    marks: Marks
    features: Tensor
    """Unit vectors of the space that the distance gate works in."""
    measured: Tensor
    """Unit vectors of the space that quality is measured in: CLIP's if there is one."""


@dataclass(frozen=True)
class _Seen:
    """A candidate."""

    look: _Look
    third: Tensor
    """Probability (1,) of a class that it is not usually confused with."""
    failure: str


@final
class Judge:
    """Verdicts over the candidates of a class; measured once against the real images, called for every round.

    Args:
        model: Its backbone gives the features.
        pixels: Real training images at the generator's size, (N, 3, S, S) uint8.
        table: Their table.
        config: Gates.
        folder: What the candidates' paths are relative to.
        names: Class → what CLIP is to call it, where that is not the class name read as words.

    Attributes:
        members: Rows of each class in the real images.
        real: What is kept of the real images.
        distances: The limits of the distance gate, by class.
        hash_limit: Differing bits up to which two perceptual hashes count as one image; -1 if they are not compared.
        agreement_limits: Lowest usual agreement with the class's name, by class; None without CLIP.
    """

    def __init__(
        self,
        model: TrainedClassifier,
        pixels: Tensor,
        table: ImageTable,
        config: FilterConfig,
        folder: Path,
        names: Mapping[str, str] | None = None,
    ) -> None:
        check_gates(config)
        self.model = model
        self.config = config
        self.folder = folder
        self.size = int(pixels.shape[-1])
        self.clip = None if config.clip is None else ImageText(config.clip, model.mean.device)
        self.members = [torch.from_numpy(np.flatnonzero(table.targets == c)) for c in range(len(table.classes))]
        self.real, shares = self._look_at_real(pixels, torch.from_numpy(table.targets))
        self._usual = usual_confusions(shares)
        self.distances = real_distances(
            self.real.features,
            self.real.marks.pixels.flatten(1).float() / 255,
            table.targets,
            len(table.classes),
            quantile=config.distance_quantile,
            copy_quantile=_COPY_QUANTILE,
        )
        self.hash_limit = -1
        if self.real.marks.hashes is not None:
            self.hash_limit = hash_limit(self.real.marks.hashes[0], self.members, config.hash_distance)
            if self.hash_limit < config.hash_distance and "hash" not in config.skip_gate:
                taken = "is off" if self.hash_limit < 0 else f"takes {self.hash_limit} bits"
                log.info("real images of one class are alike in perceptual hash: the hash gate %s", taken)
        self._counts = torch.from_numpy(table.counts)
        self._digests = frozenset(self.real.marks.digests)
        self.agreement_limits = None
        if self.clip is not None:
            self._texts = self.clip.classes([(names or {}).get(name, readable(name)) for name in table.classes])
            scores = (self.real.measured * self._texts[torch.from_numpy(table.targets)]).sum(dim=1)
            self.agreement_limits = agreement_limits(scores, table.targets, len(table.classes), config.text_quantile)
        self._seen: dict[str, _Seen] = {}  # by job id

    def look(self, images: Tensor) -> _Look:
        """Everything that is measured of uint8 images (N, 3, S, S), on the CPU."""
        return _joined([self._look(part)[0] for part in torch.split(images, _BLOCK)])

    def _look_at_real(self, images: Tensor, targets: Tensor) -> tuple[_Look, Tensor]:
        """What is kept of the real images, and the mean probabilities of each class's images, (C, C)."""
        n_classes = len(self.members)
        looks, shares = [], torch.zeros(n_classes, n_classes, dtype=torch.float64)
        for rows in torch.split(torch.arange(len(images)), _BLOCK):
            look, logits = self._look(images[rows])
            looks.append(look)
            shares.index_add_(0, targets[rows], logits.double().softmax(dim=1))
        return _joined(looks), shares / torch.bincount(targets, minlength=n_classes)[:, None]

    @torch.no_grad()
    def _look(self, images: Tensor) -> tuple[_Look, Tensor]:
        """What is kept of at most `_BLOCK` images, and their logits, which of many classes are large."""
        logits, features = self._classify(images)
        measured = features if self.clip is None else self.clip.images(images)
        return _Look(self.marks(images), measured if self.config.distance_in == "clip" else features, measured), logits

    def marks(self, images: Tensor) -> Marks:
        """What tells uint8 images (N, 3, S, S) apart, on the CPU."""
        images = resize_images(images.cpu(), self.size)
        return Marks(
            resize_images(images, min(self.size, _COMPARED)),
            [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images],
            (perceptual_hashes(images), perceptual_hashes(images.flip(3))) if self.size >= SMALLEST else None,
        )

    def _classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and unit feature vectors (N, D) of the classifier."""
        classifier = self.model.classifier
        images = images.to(self.model.mean.device)
        sized = resize_images(images, self.model.image_size)
        maps = classifier.backbone.run(normalize(sized, self.model.mean, self.model.std))
        pooled = classifier.backbone.pool(maps)
        logits = classifier.logits(maps if classifier.takes_maps else pooled)
        return logits.float().cpu(), F.normalize(pooled.float().cpu(), dim=1)

    def __call__(self, label: int, rows: Sequence[Row], wanted: int, *, final: bool) -> Verdicts:
        """Verdicts over the candidates `rows` of class `label`, in plan order; see `generators.filters.judge`.

        A row without a path says why in "failure".
        """
        seen = self.candidates(rows)
        failures = [self._seen[row["job"]].failure for row in rows]
        third = None
        if rows and len(self.members) > 2:
            third = torch.cat([self._seen[row["job"]].third for row in rows])
        agreement = None if self.clip is None else seen.measured @ self._texts[label]
        candidates = Candidates(
            seen.marks.pixels.float() / 255,
            seen.features,
            failures,
            seen.marks.digests,
            seen.marks.hashes,
            third,
            agreement,
        )
        members = self.members[label]
        real = RealImages(
            pixels=self.real.marks.pixels[members].float() / 255,
            features=self.real.features[members],
            limit=float(self.distances.limits[label]),
            last_limit=float(self.distances.last_limit[label]),
            copy_limit=self.distances.copy_limit,
            digests=self._digests,
            hashes=None if self.real.marks.hashes is None else self.real.marks.hashes[0],
            hash_limit=self.hash_limit,
            third_class_limit=self.config.third_class,
            agreement_limit=-1.0 if self.agreement_limits is None else float(self.agreement_limits[label]),
        )
        return judge(candidates, real, wanted, floor=self.config.floor, skip=self.config.skip_gate, final=final)

    def candidates(self, rows: Sequence[Row]) -> _Look:
        """What is kept of candidates, in the order of `rows`; each is read once."""
        missing = [row for row in rows if row["job"] not in self._seen]
        for start in range(0, len(missing), _BLOCK):
            part = missing[start : start + _BLOCK]
            images, failures = zip(*(self._read(row) for row in part), strict=True)
            look, logits = self._look(torch.stack(images))
            for i, row in enumerate(part):
                label = int(row["label"])
                third = third_class(logits[i : i + 1], label, int(self._usual[label]), self._counts)
                self._seen[row["job"]] = _Seen(_rows(look, slice(i, i + 1)), third, failures[i])
        return _joined([_rows(self.real, slice(0)), *(self._seen[row["job"]].look for row in rows)])

    def _read(self, row: Row) -> tuple[Tensor, str]:
        """Pixels (3, S, S) uint8 of a candidate, and why there are none; black then."""
        blank = torch.zeros((3, self.size, self.size), dtype=torch.uint8)
        if row["path"] is None:
            return blank, str(row.get("failure") or "not finite")
        try:
            pixels = decode(str(self.folder / row["path"]), self.size)
        except OSError:
            return blank, "not decodable"
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous(), ""


def _rows(look: _Look, rows: slice) -> _Look:
    """Some rows of a look."""
    pixels, digests, hashes = look.marks
    some = Marks(pixels[rows], digests[rows], None if hashes is None else (hashes[0][rows], hashes[1][rows]))
    return _Look(some, look.features[rows], look.measured[rows])


def _joined(looks: Sequence[_Look]) -> _Look:
    return _Look(
        join_marks([look.marks for look in looks]),
        torch.cat([look.features for look in looks]),
        torch.cat([look.measured for look in looks]),
    )


def join_marks(parts: Sequence[Marks]) -> Marks:
    """Marks of all images of the parts, one after another."""
    pairs = [part.hashes for part in parts if part.hashes is not None]
    return Marks(
        torch.cat([part.pixels for part in parts]),
        [digest for part in parts for digest in part.digests],
        (torch.cat([plain for plain, _ in pairs]), torch.cat([mirrored for _, mirrored in pairs])) if pairs else None,
    )


def check_gates(config: FilterConfig) -> None:
    """Refuse gates that cannot work, before anything is made.

    Raises:
        InputError: A limit out of range, or a folder without a CLIP model.
    """
    refuse_outside(
        {
            "--hash-distance": (config.hash_distance, 0, 32),
            "--distance-quantile": (config.distance_quantile, 0.5, 1),
            "--floor": (config.floor, 0, 1),
            "--third-class": (config.third_class, 0.5, 1),
            "--text-quantile": (config.text_quantile, 0, 0.5),
        }
    )
    if config.clip is not None:
        check_clip_folder(config.clip)
    elif config.distance_in == "clip":
        raise InputError("--clip DIR with --distance-in clip", "no --clip", "name the folder of a CLIP model")


def warn_of_feature_updates(config: FilterConfig, run: Path | str | None) -> None:
    """Say that `feature_updates` changes nothing where the features are those of another training.

    Args:
        config: The gates.
        run: Which training that is; None where one is made for the gates.
    """
    if run is not None and config.feature_updates != FilterConfig.feature_updates:
        log.warning("--feature-updates changes nothing: the gates take the features of %s", run)
