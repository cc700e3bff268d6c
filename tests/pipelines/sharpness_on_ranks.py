"""A sharpness-aware training of a network without batch norm, as one rank of several or alone.

Usage: sharpness_on_ranks.py PREFIX, under torchrun or not; rank r writes its weights to PREFIXr.npy.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from pipelines.batches import TrainingBatches
from pipelines.config_groups import OptimizationConfig
from pipelines.loop import TrainingData, training_steps
from pipelines.optimization import build_optimizer
from pipelines.session import end_session, start_session, wrap
from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.data.augmentation import parse_views
from rebalance.data.store import ResidentStore
from rebalance.losses import CrossEntropyLoss
from rebalance.methods.composed import ComposedMethod, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.ranks import rank
from rebalance.samplers import EpochSampler

COUNTS = [30, 10, 4]


def main() -> None:
    session = start_session("cpu")
    torch.manual_seed(0)
    backbone = SmallCNN(width=4)
    for stage in backbone.stages:
        for name, module in stage.named_children():
            if isinstance(module, nn.BatchNorm2d):
                setattr(stage, name, nn.GroupNorm(1, module.num_features))
    method = ComposedMethod(
        Classifier(backbone, 3), [LossTerm("ce", CrossEntropyLoss())], ClassWeighting(COUNTS, "inverse")
    )
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    pixels = np.random.default_rng(0).integers(0, 256, (len(targets), 3, 8, 8), dtype=np.uint8)
    data = TrainingData(
        ResidentStore(torch.from_numpy(pixels)),
        targets,
        torch.zeros(len(targets), dtype=torch.bool),
        torch.ones(len(targets)),
        parse_views("crop", image_size=8),
        torch.full((3,), 0.5),
        torch.full((3,), 0.3),
    )
    config = OptimizationConfig(lr=0.05, warmup_epochs=0, grad_accum_steps=2, sam=0.5, sam_from=0.25)
    batches = TrainingBatches(EpochSampler(targets.numpy()), batch_size=16, epochs=1, updates=8)
    optimizer = build_optimizer(method, config)
    module, backward = wrap(session, method), session.accelerator.backward
    for _ in training_steps(method, module, optimizer, data, batches, config, seed=0, backward=backward):
        pass
    weights = torch.cat([parameter.detach().flatten() for parameter in method.parameters()])
    np.save(f"{sys.argv[1]}{rank()}.npy", weights.numpy())
    end_session()


if __name__ == "__main__":
    main()
