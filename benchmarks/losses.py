"""Time of a forward and backward pass of every loss, beside pytorch-metric-learning and torch on the same loss.

    pip install pytorch-metric-learning
    OMP_NUM_THREADS=1 python benchmarks/losses.py [--json FILE]

Classification losses take logits (4096, 1000); angular ones features (4096, 128) and class vectors (128, 1000), the
head being part of the time as it is part of pytorch-metric-learning's loss; contrastive ones 1024 features of length
128. Ours and theirs take turns, round by round, on the same inputs; the time is that of the fastest round, the ratio
ours / theirs. Losses without a counterpart have no ratio. Values are checked to agree before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytorch_metric_learning
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from rebalance import losses
from rebalance.heads import cosine_similarity

B, C, D, B_CONTRASTIVE = 4096, 1000, 128, 1024
Loss = Callable[[], Tensor]
Row = tuple[str, str, list[Tensor], Loss, Loss | None]  # name, counterpart, what gets a gradient, ours, theirs


def rows(device: str) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(B, C, generator=generator).to(device).requires_grad_()
    cosines = (torch.rand(B, C, generator=generator) - 0.5).to(device).requires_grad_()
    targets = torch.randint(C, (B,), generator=generator).to(device)
    counts = (1000 * 0.01 ** (torch.arange(C) / (C - 1))).int()
    weight = losses.effective_number_weight(counts).to(device)

    def one_hot() -> Tensor:
        return F.one_hot(targets, C).float()

    def module(loss: torch.nn.Module) -> Loss:
        loss.to(device)
        return lambda: loss(logits, targets)

    on_logits: list[Row] = [
        (name, peer, [logits], ours, theirs)
        for name, peer, ours, theirs in (
            (
                "cross entropy, weighted",
                "torch cross_entropy",
                lambda: losses.cross_entropy_loss(logits, targets, weight=weight, reduction="weighted_mean"),
                lambda: F.cross_entropy(logits, targets, weight=weight.float()),
            ),
            ("focal, softmax", "", module(losses.FocalSoftmaxLoss()), None),
            (
                "focal, sigmoid",
                "torchvision sigmoid_focal_loss",
                module(losses.FocalSigmoidLoss()),
                lambda: sigmoid_focal_loss(logits, one_hot(), alpha=-1, gamma=2, reduction="sum") / B,
            ),
            (
                "sigmoid cross entropy",
                "torch binary_cross_entropy",
                module(losses.SigmoidCrossEntropyLoss()),
                lambda: F.binary_cross_entropy_with_logits(logits, one_hot(), reduction="sum") / B,
            ),
            ("class-balanced softmax", "", module(losses.ClassBalancedSoftmaxLoss(counts)), None),
            ("class-balanced sigmoid", "", module(losses.ClassBalancedSigmoidLoss(counts)), None),
            ("class-balanced focal", "", module(losses.ClassBalancedFocalLoss(counts)), None),
            ("balanced softmax", "", module(losses.BalancedSoftmaxLoss(counts)), None),
            ("logit adjustment", "", module(losses.LogitAdjustmentLoss(counts)), None),
            ("PriorCE", "", module(losses.PriorCELoss(counts)), None),
            (
                "label-aware smoothing",
                "torch cross_entropy, smoothed",
                module(losses.LabelAwareSmoothingLoss(counts, smooth_head=0.2, smooth_tail=0.2)),
                lambda: F.cross_entropy(logits, targets, label_smoothing=0.2),
            ),
        )
    ]
    ldam = losses.LDAMLoss(counts).to(device)
    on_logits.append(("LDAM", "", [cosines], lambda: ldam(cosines, targets), None))

    features = torch.randn(B, D, generator=generator).to(device).requires_grad_()
    margin_rad = math.radians(28.6)
    on_embeddings: list[Row] = []
    for name, theirs, of_cosines in (
        (
            "ArcFace",
            pml.ArcFaceLoss(C, D),
            lambda c: losses.arcface_loss(c, targets, margin_rad=margin_rad),
        ),
        ("CosFace", pml.CosFaceLoss(C, D), lambda c: losses.cosface_loss(c, targets)),
        (
            "SphereFace",
            pml.SphereFaceLoss(C, D),
            lambda c: losses.sphereface_loss(c, targets, features.norm(dim=1)),
        ),
    ):
        theirs.to(device)
        on_embeddings.append(
            (
                f"{name}, head included",
                f"pytorch-metric-learning {type(theirs).__name__}",
                [features, theirs.W],
                lambda f=of_cosines, w=theirs.W: f(cosine_similarity(features, w)),
                lambda loss=theirs: loss(features, targets),
            )
        )

    views = torch.randn(B_CONTRASTIVE, D, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(B_CONTRASTIVE) % 100).to(device)
    supcon, ntxent = pml.SupConLoss(), pml.SupConLoss(temperature=0.5)
    half = B_CONTRASTIVE // 2
    pairs = torch.arange(half).repeat(2).to(device)
    contrastive: list[Row] = [
        (
            "SupCon",
            "pytorch-metric-learning SupConLoss",
            [views],
            lambda: losses.supcon_loss(F.normalize(views)[:, None], labels, temperature=0.1, base_temperature=0.1),
            lambda: supcon(views, labels),
        ),
        (
            "SupCon, their mean",
            "pytorch-metric-learning SupConLoss",
            [views],
            lambda: losses.supcon_pml_loss(views[:, None], labels),
            lambda: supcon(views, labels),
        ),
        (
            "SimCLR",
            "pytorch-metric-learning SupConLoss",  # its NTXentLoss is the same loss and takes 45 s
            [views],
            lambda: losses.simclr_loss(F.normalize(torch.stack([views[:half], views[half:]], dim=1), dim=2)),
            lambda: ntxent(views, pairs),
        ),
    ]
    return on_logits + on_embeddings + contrastive


def seconds(loss: Loss, inputs: list[Tensor], device: str) -> float:
    start = time.perf_counter()
    torch.autograd.grad(loss(), inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(row: Row, rounds: int, device: str) -> dict[str, str | float | None]:
    name, peer, inputs, ours, theirs = row
    if theirs is not None:
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(seconds(ours, inputs, device))
        if theirs is not None:
            times[1].append(seconds(theirs, inputs, device))
    our_ms = 1e3 * min(times[0])
    their_ms = 1e3 * min(times[1]) if theirs is not None else None
    return {
        "loss": name,
        "ms": our_ms,
        "counterpart": peer or None,
        "counterpart_ms": their_ms,
        "ratio": None if their_ms is None else our_ms / their_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="__array_wrap__ must accept context", category=DeprecationWarning)

    device = "cuda" if options.device.startswith("cuda") else options.device
    hardware = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    setting = {
        "torch": torch.__version__,
        "pytorch_metric_learning": pytorch_metric_learning.__version__,
        "device": f"{options.device}, {hardware}",
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "shapes": {"logits": [B, C], "features": [B, D], "contrastive": [B_CONTRASTIVE, D]},
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items() if key != "shapes"))
    print(f"{'loss':<28}{'ms':>9}  {'counterpart':<40}{'ms':>9}{'ratio':>8}")
    figures = []
    for row in rows(options.device):
        figure = measure(row, options.rounds, device)
        figures.append(figure)
        print(f"{figure['loss']:<28}{figure['ms']:>9.2f}", end="")
        if figure["counterpart_ms"] is not None:
            print(f"  {figure['counterpart']:<40}{figure['counterpart_ms']:>9.2f}{figure['ratio']:>8.2f}", end="")
        print()
    if options.json:
        options.json.write_text(json.dumps({"setting": setting, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
