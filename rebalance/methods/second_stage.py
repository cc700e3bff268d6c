"""The second stage of decoupled training: a head learns on a backbone whose parameters stay as they are.

Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020 (cRT, LWS); Zhong et al.,
Improving Calibration for Long-Tailed Recognition, CVPR 2021 (MiSLAS); Khosla et al., Supervised Contrastive Learning,
NeurIPS 2020 (linear probe).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.methods.base import Batch, Method
from rebalance.two_stage import ScaledLinearHead


@final
class SecondStageMethod(Method):
    """Trains a linear head, or scales on one, or both.

    Args:
        classifier: With the trained backbone, and a head "linear" or "scaled_linear".
        loss: Classification loss that gives (B,) for reduction="none".
        shift_batch_norm: Run the backbone in training mode, so that its batch norms normalise by the batch and their
            running statistics move to the draws of this stage, as in the originals of cRT, LWS and MiSLAS; parameters
            stay. False: evaluation mode, and nothing of the backbone changes.
        head_factor: Factor of the learning rate of a linear head under scales; 0 leaves it as it is.

    Raises:
        InputError: A negative factor.
    """

    def __init__(
        self, classifier: Classifier, loss: nn.Module, *, shift_batch_norm: bool = True, head_factor: float = 1.0
    ) -> None:
        super().__init__()
        if not head_factor >= 0:
            raise InputError("head_factor >= 0", f"{head_factor:g}", "0 leaves the head as it is")
        classifier.backbone.requires_grad_(False)
        if isinstance(classifier.head, ScaledLinearHead):
            classifier.head.linear.requires_grad_(head_factor > 0)
            self.learning_rate_factors = {"_classifier.head.linear.": head_factor}
        self._classifier = classifier
        self.loss = loss
        self.shift_batch_norm = shift_batch_norm

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def before_step(self, progress: float) -> None:
        """Put the backbone into its mode again, which an evaluation in between may have changed."""
        self._classifier.backbone.train(self.shift_batch_norm)

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        with torch.no_grad():
            features = self._classifier.features(batch.views[:, 0])
        losses = self.loss(self._classifier.logits(features), batch.targets, reduction="none")
        return {"classification": torch.dot(losses.float(), batch.weight) / len(batch.targets)}

    def export(self, classifier: Classifier) -> Classifier:
        """A plain linear head, with the scales in it."""
        if not isinstance(classifier.head, ScaledLinearHead):
            return classifier
        plain = Classifier(classifier.backbone, len(classifier.head.scaling.scales))
        plain.head = classifier.head.folded()
        return plain
