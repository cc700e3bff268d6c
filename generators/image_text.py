"""Does CLIP find that an image shows what its class is called?

Raw cosines mean little: they differ from class to class with the words alone, and pairs that match score about 0.2 to
0.35. So an image is held to what the real images of its class score.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from generators.clip_pixels import clip_normalization
from generators.neighbours import POOL_WEIGHT
from generators.prompts import CLIP_LENGTH
from rebalance.counts import FloatArray, IntArray
from rebalance.errors import InputError
from rebalance.files import read_json
from rebalance.quiet import quiet_transformers

_ADVICE = "give a folder that transformers' CLIPModel was saved in, with its tokenizer, as safetensors"


@final
class ImageText:
    """A CLIP model from a local folder.

    Args:
        folder: In the layout of transformers: config.json, model.safetensors, the tokenizer's files.
        device: On which it runs.

    Raises:
        InputError: No such folder, or one that does not hold a whole CLIP model.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        check_clip_folder(folder)
        try:
            with quiet_transformers():
                self.model, report = CLIPModel.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
                )
                self.tokenizer = CLIPTokenizer.from_pretrained(
                    folder, local_files_only=True, model_max_length=CLIP_LENGTH
                )
        except Exception as error:
            raise InputError("a CLIP model", f"{folder}: {error}", _ADVICE) from error
        absent = [key for key in report["missing_keys"] if not str(key).endswith("position_ids")]
        if absent:
            raise InputError("weights for every layer", f"none in {folder} for {sorted(absent)[0]}", _ADVICE)
        self.model.eval().requires_grad_(False).to(device)
        self.size = int(self.model.config.vision_config.image_size)
        mean, std = clip_normalization(folder)
        self.mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Unit vectors (N, D), on the CPU, of uint8 images (N, 3, S, S)."""
        parts = [torch.zeros((0, int(self.model.config.projection_dim)))]
        for part in torch.split(pixels, 64):
            scaled = part.to(self.mean.device).float() / 255
            if scaled.shape[-2:] != (self.size, self.size):
                scaled = F.interpolate(
                    scaled, size=(self.size, self.size), mode="bicubic", antialias=True, align_corners=False
                ).clamp(0, 1)
            found = self.model.get_image_features(pixel_values=(scaled - self.mean) / self.std).pooler_output
            parts.append(F.normalize(found, dim=1).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, D), on the CPU, of texts; what is longer than 77 tokens is cut."""
        device = self.mean.device
        parts = []
        for start in range(0, len(texts), 64):
            batch = list(texts[start : start + 64])
            tokens = self.tokenizer(batch, padding="max_length", truncation=True, return_tensors="pt").to(device)
            parts.append(F.normalize(self.model.get_text_features(**tokens).pooler_output, dim=1).cpu())
        return torch.cat(parts)

    def classes(self, names: Sequence[str]) -> Tensor:
        """Unit vectors (C, D) of "a photo of a NAME".

        Args:
            names: What each class is called, see `generators.class_names`.

        Raises:
            InputError: A tokenizer to which all classes read alike.
        """
        vectors = self.texts([f"a photo of a {name}" for name in names])
        if len(vectors) > 1 and torch.allclose(vectors, vectors[:1].expand_as(vectors), atol=1e-6):
            raise InputError(
                "a CLIP model that tells classes apart",
                f"the same text vector for {names[0]!r} and {names[1]!r}",
                _ADVICE,
            )
        return vectors


def check_clip_folder(folder: Path) -> None:
    """Refuse, before anything is loaded, what cannot be a CLIP model.

    Raises:
        InputError: No such folder, or none with a CLIP configuration.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError("a local folder with a CLIP model", f"{folder}, without config.json", _ADVICE)
    kind = read_json(file).get("model_type")
    if kind != "clip":
        raise InputError("a local folder with a CLIP model", f"{folder} with a model of type {kind!r}", _ADVICE)


def agreement_limits(scores: Tensor, targets: IntArray, n_classes: int, quantile: float) -> FloatArray:
    """The lowest usual agreement with its class, for each class, (C,).

    A class's quantile is drawn towards its mean plus what all classes show around theirs, the more the fewer images it
    has.

    Args:
        scores: Cosine of each real image to the text of its class, (N,).
        targets: Class ids (N,); every class has an image.
        n_classes: C.
        quantile: Share of the real images that score lower.
    """
    values = scores.double().numpy()
    means = np.array([values[targets == label].mean() for label in range(n_classes)])
    around = float(np.quantile(values - means[targets], quantile))
    limits = np.zeros(n_classes)
    for label in range(n_classes):
        own = values[targets == label]
        limits[label] = (len(own) * np.quantile(own, quantile) + POOL_WEIGHT * (means[label] + around)) / (
            len(own) + POOL_WEIGHT
        )
    return limits
