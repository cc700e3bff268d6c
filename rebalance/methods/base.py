"""The one abstraction: a Method owns everything that a recipe changes, and the training loop nothing of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rebalance.bookmark import bookmark
from rebalance.classifier import Classifier


class Mix(NamedTuple):
    """What mixup, CutMix, Remix or CMO made of a batch: image i is λ_i of its own class and 1 - λ_i of another."""

    targets: Tensor  # (B,) class ids of the partners
    lam: Tensor  # (B,) share of the image's own class in the loss


class Batch(NamedTuple):
    """Rows of the training table as the loop hands them to a method, all on its device."""

    views: Tensor  # (B, V, 3, H, W) float, normalised
    targets: Tensor  # (B,) class ids
    mix: Mix | None  # None until a method mixes
    weight: Tensor  # (B,) loss weight of the sample; a synthetic image may weigh less
    synthetic: Tensor  # (B,) bool
    index: Tensor  # type: ignore[assignment]  # (B,) row of the training table; hides tuple.index


class Method(nn.Module, ABC):
    """A training recipe: networks, objective and state.

    Training calls `forward` and nothing else (DDP, autocast and compile hook only there), then `after_step` once per
    optimiser step. `forward` may run several times a step, over parts of a batch and over the same rows again; what it
    changes beside gradients, `bookmark` can undo. Everything random in `forward` comes from torch's global generator,
    which the loop seeds from (seed, update, rank), so that a resumed run repeats an undisturbed one.
    """

    n_views: int = 1
    """Augmented views of each image that the loader supplies."""
    views: str | None = None
    """How the paper augments them, in the words of `parse_views`; None for the usual crop and flip."""
    learning_rate_factors: Mapping[str, float] = {}
    """Factor of the learning rate by the beginning of a parameter's name; 1 for all others."""

    @property
    @abstractmethod
    def classifier(self) -> Classifier:
        """What is left at inference, and all that is saved in `model/`."""

    @abstractmethod
    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Named loss terms; their sum is the loss.

        Args:
            batch: The rows of this rank.
            progress: Share of updates done, a 0-dim float32 tensor in [0, 1).

        Returns:
            Scalars, each a sum over the batch divided by the batch size.
        """

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of normalised images (B, 3, H, W); training-only parts are not used."""
        logits: Tensor = self.classifier(images)
        return logits

    def before_step(self, progress: float) -> None:
        """Once before each optimiser step: choices that change the graph, such as when a generator starts."""

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that the next optimiser step must not touch, with weight decay and momentum neither."""
        return ()

    def after_step(self) -> None:
        """Once after each optimiser step: momentum encoders and queues. Nothing by default."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in torch, but once for each size of a batch, of which an epoch has two, and without `untraced` parts.

        Code for any size, which torch would make at the last batch of an epoch, is slower in all epochs that follow;
        only where a part `varies_rows` is it made. Parts whose numbers or shapes are others for every batch would be
        compiled again and again; they stay eager. Nothing before this loads the compiler.
        """
        for module in self.modules():
            if getattr(module, "untraced", False):
                module.forward = torch.compiler.disable(module.forward)  # type: ignore[no-untyped-call]
        varied = any(getattr(module, "varies_rows", False) for module in self.modules())
        super().compile(*args, **{"dynamic": None if varied else False, **kwargs})

    def bookmark(self) -> Callable[[], None]:
        """A function that puts back what `forward` changes beside gradients: buffers; a method with more adds it."""
        return bookmark(self.buffers())

    def export(self, classifier: Classifier) -> Classifier:
        """What is saved of this method's classifier, as it was trained or averaged: itself, unless it gets simpler."""
        return classifier

    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        """Something to look at in the report: name → pictures (R, B, 3, H, W), R rows, normalised like the images.

        Args:
            images: Normalised training images (B, 3, H, W), in evaluation mode.
        """
        return {}
