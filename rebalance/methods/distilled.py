"""A composed recipe that also learns from a trained classifier: (1 - α) · its losses + α · distillation.

Teacher and student see the same pixels, mixed and augmented, as in Beyer et al., Knowledge Distillation: A Good Teacher
Is Patient and Consistent, CVPR 2022. With a teacher of its own kind this is self-distillation (Furlanello et al.,
Born-Again Neural Networks, ICML 2018); with balanced softmax on both sides it is DiVE (He et al., Distilling Virtual
Examples for Long-Tailed Recognition, ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self, final

import torch
from torch import Tensor, nn

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses.distillation import DistillationLoss
from rebalance.methods.base import Batch, Method
from rebalance.methods.composed import ComposedMethod


@final
class DistilledMethod(Method):
    """A composition taught by a fixed classifier.

    The teacher moves with the method from device to device and is no part of it otherwise: not of its parameters, its
    state or its mode. Rows that a feature generator adds have no image, so the teacher says nothing of them.

    Args:
        objective: Classifier and losses.
        teacher: Normalised images (B, 3, H, W) → logits (B, C).
        share: α in (0, 1]; 1 is the teacher alone.
        temperature: See `distillation_loss`.
        power: Likewise.

    Raises:
        InputError: A share out of range, or a composition that classifies nothing.
    """

    def __init__(
        self,
        objective: ComposedMethod,
        teacher: nn.Module,
        *,
        share: float = 0.5,
        temperature: float = 2.0,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise InputError("a teacher's share in (0, 1]", f"{share:g}", "use 0.5; without a teacher leave it out")
        if len(objective.contrastive) == len(objective.terms):
            raise InputError(
                "a classification loss beside the teacher",
                ", ".join(term.name for term in objective.terms),
                "add one, such as --loss ce",
            )
        self.objective = objective
        self._teacher = (teacher.requires_grad_(False).eval(),)  # a tuple, so that torch does not register it
        self.share = share
        self.distillation = DistillationLoss(temperature=temperature, power=power)
        self.n_views, self.views = objective.n_views, objective.views

    @property
    def teacher(self) -> nn.Module:
        """In evaluation mode."""
        return self._teacher[0]

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self.objective.classifier

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        terms, rows, scores = self.objective.one_pass(batch, progress)
        assert scores is not None  # there is a classification loss
        with torch.no_grad():
            teacher_logits = self.teacher(rows.images)
        n = len(teacher_logits)
        logits = self.classifier.to_logits(scores[:n], rows.features[:n])
        values = self.distillation(logits, teacher_logits, reduction="none")
        own = {name: (1 - self.share) * term for name, term in terms.items()}
        return {**own, "distillation": self.share * torch.dot(values.float(), rows.mean_weight[:n]) / n}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` does to the method, it does to the teacher."""
        self.teacher._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def before_step(self, progress: float) -> None:
        """See `Method`."""
        self.objective.before_step(progress)

    def after_step(self) -> None:
        """See `Method`."""
        self.objective.after_step()

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """See `Method`."""
        return self.objective.frozen_parameters()

    def bookmark(self) -> Callable[[], None]:
        """See `Method`."""
        return self.objective.bookmark()

    def export(self, classifier: Classifier) -> Classifier:
        """See `Method`."""
        return self.objective.export(classifier)

    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        return self.objective.pictures(images)
