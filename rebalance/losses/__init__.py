"""Long-tail, angular and contrastive losses: pure functions, and thin modules that hold what derives from the counts.

Classification losses take `(logits (B, C), targets (B,))`, angular ones cosines in place of logits, contrastive ones
`(views (B, V, D), targets (B,))`. All compute in float32 or wider, inside autocast too, and take
`reduction="mean" | "weighted_mean" | "sum" | "none"` when called; for a loop that passes none,
`functools.partial(loss, reduction="weighted_mean")` fixes it.
"""

from rebalance.losses.arcface import ArcFaceLoss, arcface_logits, arcface_loss
from rebalance.losses.balanced_contrastive import BalancedContrastiveLoss, balanced_contrastive_loss
from rebalance.losses.balanced_softmax import BalancedSoftmaxLoss, balanced_softmax_loss, log_class_prior
from rebalance.losses.class_balanced import (
    ClassBalancedFocalLoss,
    ClassBalancedSigmoidLoss,
    ClassBalancedSoftmaxLoss,
    effective_number_weight,
)
from rebalance.losses.cosface import AMSoftmaxLoss, CosFaceLoss, am_softmax_loss, cosface_logits, cosface_loss
from rebalance.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from rebalance.losses.distillation import DistillationLoss, distillation_loss
from rebalance.losses.focal_sigmoid import FocalSigmoidLoss, focal_sigmoid_loss
from rebalance.losses.focal_softmax import FocalSoftmaxLoss, focal_softmax_loss
from rebalance.losses.label_aware_smoothing import (
    LabelAwareSmoothingLoss,
    label_aware_smoothing_loss,
    label_smoothing_by_class,
)
from rebalance.losses.ldam import LDAMLoss, ldam_logits, ldam_loss, ldam_margins
from rebalance.losses.logit_adjustment import (
    LogitAdjustmentLoss,
    adjust_logits,
    logit_adjustment_loss,
    logit_adjustments,
)
from rebalance.losses.paco import PaCoLoss, paco_log_prior, paco_loss
from rebalance.losses.prior_ce import PriorCELoss
from rebalance.losses.region_rebalance import RegionRebalanceLoss, region_rebalance_loss
from rebalance.losses.residual import (
    ResidualLoss,
    branch_groups,
    residual_branch_loss,
    residual_fused_loss,
    residual_loss,
)
from rebalance.losses.sigmoid_cross_entropy import (
    SigmoidCrossEntropyLoss,
    sigmoid_bias,
    sigmoid_cross_entropy_loss,
)
from rebalance.losses.simclr import SimCLRLoss, simclr_loss
from rebalance.losses.sphereface import SphereFaceLoss, sphereface_annealing, sphereface_logits, sphereface_loss
from rebalance.losses.supcon import SupConLoss, supcon_loss
from rebalance.losses.supcon_pml import SupConPMLLoss, supcon_pml_loss

__all__ = [
    "AMSoftmaxLoss",
    "ArcFaceLoss",
    "BalancedContrastiveLoss",
    "BalancedSoftmaxLoss",
    "ClassBalancedFocalLoss",
    "ClassBalancedSigmoidLoss",
    "ClassBalancedSoftmaxLoss",
    "CosFaceLoss",
    "CrossEntropyLoss",
    "DistillationLoss",
    "FocalSigmoidLoss",
    "FocalSoftmaxLoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustmentLoss",
    "PaCoLoss",
    "PriorCELoss",
    "RegionRebalanceLoss",
    "ResidualLoss",
    "SigmoidCrossEntropyLoss",
    "SimCLRLoss",
    "SphereFaceLoss",
    "SupConLoss",
    "SupConPMLLoss",
    "adjust_logits",
    "am_softmax_loss",
    "arcface_logits",
    "arcface_loss",
    "balanced_contrastive_loss",
    "balanced_softmax_loss",
    "branch_groups",
    "cosface_logits",
    "cosface_loss",
    "cross_entropy_loss",
    "distillation_loss",
    "effective_number_weight",
    "focal_sigmoid_loss",
    "focal_softmax_loss",
    "label_aware_smoothing_loss",
    "label_smoothing_by_class",
    "ldam_logits",
    "ldam_loss",
    "ldam_margins",
    "log_class_prior",
    "logit_adjustment_loss",
    "logit_adjustments",
    "paco_log_prior",
    "paco_loss",
    "region_rebalance_loss",
    "residual_branch_loss",
    "residual_fused_loss",
    "residual_loss",
    "sigmoid_bias",
    "sigmoid_cross_entropy_loss",
    "simclr_loss",
    "sphereface_annealing",
    "sphereface_logits",
    "sphereface_loss",
    "supcon_loss",
    "supcon_pml_loss",
]
