"""A classifier whose backbone must also be able to reconstruct the image: classification + λ · reconstruction.

    reconstruction_i = mean over pixels of (decoder(maps_i) - image_i)², on normalised images

What can be reconstructed was not thrown away, which helps where labels are few. The decoder is `rebalance.decoder`;
nothing of it is left at inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Literal, final

import torch
from torch import Tensor, nn

from rebalance.classifier import Classifier
from rebalance.decoder import Decoder
from rebalance.errors import InputError, nearest
from rebalance.methods.base import Batch, Method
from rebalance.methods.composed import ComposedMethod

STAGES = ("end_to_end", "separate", "classifier")


@final
class AutoencoderMethod(Method):
    """A composition of classification losses and a decoder.

    Args:
        objective: Classifier and classification losses.
        decoder: For the backbone's maps; not kept in stage "classifier".
        stage: "end_to_end": both losses all the time. "separate": first reconstruction alone, then classification
            alone, on an encoder that stays as it is to the last bit, batch-norm statistics included. "classifier": no
            reconstruction, for comparison.
        reconstruction_weight: λ.
        pretraining: Share of training that reconstructs, in stage "separate".

    Raises:
        InputError: An unknown stage, a number out of range, or losses that are not of classification.
    """

    def __init__(
        self,
        objective: ComposedMethod,
        decoder: Decoder,
        *,
        stage: Literal["end_to_end", "separate", "classifier"] = "end_to_end",
        reconstruction_weight: float = 1.0,
        pretraining: float = 0.5,
    ) -> None:
        super().__init__()
        if stage not in STAGES:
            raise InputError("a stage", repr(stage), nearest(stage, STAGES))
        if not reconstruction_weight > 0:
            raise InputError(
                "reconstruction_weight > 0", f"{reconstruction_weight:g}", "without reconstruction: stage=classifier"
            )
        if not 0 < pretraining < 1:
            raise InputError("pretraining in (0, 1)", f"{pretraining:g}", "use 0.5 for one half")
        if objective.contrastive or objective.generation is not None or objective.mix is not None:
            raise InputError(
                "classification losses for the autoencoder",
                "a contrastive loss, a feature generator or a batch mix",
                "leave it out: images are reconstructed one by one",
            )
        self.objective = objective
        self.decoder = None if stage == "classifier" else decoder
        self.stage = stage
        self.reconstruction_weight = reconstruction_weight
        self.pretraining = pretraining
        self._reconstructs = self._classifies = True
        self.before_step(0.0)

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self.objective.classifier

    def before_step(self, progress: float) -> None:
        """Which of the losses are on; an encoder that is done is in evaluation mode."""
        separate = self.stage == "separate"
        self._reconstructs = self.decoder is not None and not (separate and progress >= self.pretraining)
        self._classifies = not separate or progress >= self.pretraining
        if separate and self._classifies:
            self.classifier.backbone.eval()

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        images, backbone = batch.views[:, 0], self.classifier.backbone
        done = self.stage == "separate" and self._classifies
        with torch.no_grad() if done else nullcontext():
            maps = backbone.stage_maps(images)
        if self._classifies:
            terms = self.objective.classify(backbone.pool(maps[-1]), batch, progress)
        else:
            unused = 0.0 * backbone.pool(maps[-1]).float().sum()  # which may have weights too, as the head has
            terms = dict.fromkeys(self.objective.losses, _nothing(self.classifier.head) + unused)
        if self._reconstructs:
            terms["reconstruction"] = self._reconstruction(maps, images, batch)
        elif self.decoder is not None:
            terms["reconstruction"] = _nothing(backbone, self.decoder)
        return terms

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """In stage "separate" first the head, then encoder and decoder."""
        if not self._classifies:
            yield from self.classifier.head.parameters()
        if self.stage == "separate" and self._classifies and self.decoder is not None:
            yield from self.classifier.backbone.parameters()
            yield from self.decoder.parameters()

    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        """Images over what the decoder makes of them."""
        if self.decoder is None:
            return {}
        decoded = self.decoder(self.classifier.backbone.stage_maps(images), _size(images))
        return {"reconstructions": torch.stack([images, decoded.to(images.dtype)])}

    def _reconstruction(self, maps: list[Tensor], images: Tensor, batch: Batch) -> Tensor:
        assert self.decoder is not None
        errors = (self.decoder(maps, _size(images)).float() - images).square().mean(dim=(1, 2, 3))
        return self.reconstruction_weight * torch.dot(errors, batch.weight) / len(batch.targets)


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width


def _nothing(*modules: nn.Module) -> Tensor:
    """0, with every parameter in the graph, as DDP wants."""
    return 0.0 * torch.stack([parameter.sum() for module in modules for parameter in module.parameters()]).sum()
