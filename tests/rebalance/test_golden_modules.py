"""The cases of golden/modules.json that are of no family: numbers recorded from the original implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rebalance.losses.balanced_contrastive import balanced_contrastive_loss
from rebalance.losses.balanced_softmax import BalancedSoftmaxLoss
from rebalance.losses.label_aware_smoothing import label_aware_smoothing_loss, label_smoothing_by_class
from rebalance.two_stage import LearnableWeightScaling, NearestClassMean, tau_norm

NAMES = [
    case["name"] for case in json.loads((Path(__file__).parents[1] / "golden" / "modules.json").read_text())["cases"]
]
Golden = Any
"""See the fixture `golden`."""


@pytest.mark.golden("bcl_*")
def test_balanced_contrastive(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    second, third = golden.tensor("view2_features", grad=True), golden.tensor("view3_features", grad=True)
    prototypes, logits = golden.tensor("class_centers", grad=True), golden.tensor("logits_view1", grad=True)
    targets = golden.ids("targets")
    contrastive = balanced_contrastive_loss(
        torch.stack([second, third], 1), targets, prototypes, temperature=inputs["temperature"]
    )
    adjusted = BalancedSoftmaxLoss(inputs["cls_num_list"])(logits, targets)
    total = inputs["alpha_ce"] * adjusted + inputs["beta_scl"] * contrastive
    total.backward()
    golden.close(contrastive, expected["loss_scl"])
    golden.close(adjusted, expected["loss_logit_adjusted_ce"])
    golden.close(total, expected["loss_total"])
    golden.close(second.grad, expected["grad_view2"])
    golden.close(third.grad, expected["grad_view3"])
    golden.close(prototypes.grad, expected["grad_centers"])
    golden.close(logits.grad, expected["grad_logits"])


@pytest.mark.golden("taunorm_*")
def test_tau_norm(golden: Golden) -> None:
    features = golden.tensor("features")
    for tau, expected in zip(golden.inputs["taus"], golden.expected["per_tau"], strict=True):
        weight, bias = tau_norm(golden.tensor("weight"), tau=tau)
        assert bias is None
        logits = features @ weight.T
        golden.close(weight, expected["weight"])
        golden.close(logits, expected["logits"])
        assert logits.argmax(1).tolist() == expected["pred"]


@pytest.mark.golden("lws_*")
def test_learnable_weight_scaling(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    params = {key: golden.of(values) for key, values in inputs["params"].items()}
    scaling = LearnableWeightScaling(len(params["scales"])).to(golden.dtype)
    scaling.scales.data.copy_(params["scales"])
    options = inputs["optimizer"]
    optimizer = torch.optim.SGD(
        scaling.parameters(), lr=options["lr"], momentum=options["momentum"], weight_decay=options["weight_decay"]
    )
    batches = zip(golden.tensor("features_per_step"), golden.ids("labels_per_step"), expected["steps"], strict=True)
    for features, targets, step in batches:
        logits = scaling(F.linear(features, params["fc.weight"], params["fc.bias"]))
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        golden.close(logits, step["logits"])
        golden.close(loss, step["loss"])
        golden.close(scaling.scales.grad, step["grad_scales"])
        optimizer.step()
    golden.close(scaling.scales, expected["final_scales"])


@pytest.mark.golden("ncm_*")
def test_nearest_class_mean(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    classifier = NearestClassMean(
        golden.tensor("train_features"),
        golden.ids("train_labels"),
        len(expected["centroids"]),
        transform=inputs["feat_type"],
        distance=inputs["dist_type"],
    )
    logits = classifier(golden.tensor("query_features"))
    golden.close(classifier.center, expected["feature_mean"])
    golden.close(classifier.means, expected["centroids"])
    golden.close(logits, expected["logits"])
    assert logits.argmax(1).tolist() == expected["pred"]


@pytest.mark.golden("las_*")
def test_label_aware_smoothing(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    smoothing = label_smoothing_by_class(
        inputs["cls_num_list"],
        smooth_head=inputs["smooth_head"],
        smooth_tail=inputs["smooth_tail"],
        shape=inputs["shape"],
        power=inputs["power"],
    )
    logits = golden.tensor("logits", grad=True)
    loss = label_aware_smoothing_loss(logits, golden.ids("target"), smoothing)
    loss.backward()
    golden.close(smoothing, expected["smooth_per_class"])
    golden.close(loss, expected["loss"])
    golden.close(logits.grad, expected["grad_logits"])


def test_no_case_is_left_out() -> None:
    prefixes = ("rsg_", "paco_", "gpaco_", "reslt_", "bcl_", "taunorm_", "lws_", "ncm_", "las_")
    assert all(name.startswith(prefixes) for name in NAMES)
