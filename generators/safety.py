"""The safety checker of a Stable Diffusion checkpoint: says which images it objects to, and blackens none.

An image is flagged where the cosine of its CLIP embedding to one of 17 concepts exceeds the concept's threshold,
lowered by 0.01 where one of three "special care" concepts exceeds its own; differences count in thousandths.
https://github.com/CompVis/stable-diffusion, safety_checker.py; Rando et al., Red-Teaming the Stable Diffusion Safety
Filter, 2022.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.clip_pixels import clip_normalization
from generators.stable_diffusion_checkpoint import Checkpoint
from generators.stable_diffusion_loading import load_model


@final
class SafetyChecker:
    """Images → whether each is objected to.

    Args:
        checkpoint: One that has a safety checker.
        dtype: In which it runs.
        device: On which it runs.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        self.model = load_model(checkpoint, "safety_checker", dtype).to(device)
        self.size = int(self.model.config.vision_config.image_size)
        mean, std = clip_normalization(checkpoint.folder / "feature_extractor")
        self.mean = torch.tensor(mean, dtype=dtype, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=dtype, device=device).view(-1, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Flags (B,) bool of square images (B, 3, S, S) in [0, 1]; one that is not finite is not flagged."""
        scaled = F.interpolate(
            images.float().nan_to_num(),
            size=(self.size, self.size),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        ).clamp(0, 1)
        pixels = (scaled.to(self.mean.dtype) - self.mean) / self.std
        embedding = self.model.visual_projection(self.model.vision_model(pixels).pooler_output)
        special = self._excess(embedding, self.model.special_care_embeds, self.model.special_care_embeds_weights)
        concepts = self._excess(embedding, self.model.concept_embeds, self.model.concept_embeds_weights)
        lowered = 0.01 * (special.round(decimals=3) > 0).any(dim=1, keepdim=True)
        flags: Tensor = ((concepts + lowered).round(decimals=3) > 0).any(dim=1)
        return flags

    def _excess(self, embedding: Tensor, concepts: Tensor, thresholds: Tensor) -> Tensor:
        """Cosine minus threshold (B, K) float32."""
        cosine = F.normalize(embedding) @ F.normalize(concepts).T
        return cosine.float() - thresholds.float()
