"""Every case of golden/modules.json that is of ResLT: numbers recorded from the original implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rebalance.losses.residual import residual_branch_loss, residual_fused_loss, residual_loss
from rebalance.residual_head import ResidualConvHead, ResidualNormHead

Golden = Any
"""See the fixture `golden`."""


def reslt_groups(golden: Golden, n_branches: int) -> Tensor:
    inputs = golden.inputs
    groups = torch.zeros(3, inputs["num_classes"], dtype=torch.bool)
    groups[0] = True
    groups[1, inputs["classes_supervised_by_medium_branch"]] = True
    groups[2, inputs["classes_supervised_by_tail_branch"]] = True
    return groups[:n_branches]


@pytest.mark.golden("reslt_*", without="*branch_head*")
def test_residual_loss(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    branches = [key for key in ("head", "medium", "tail") if inputs[f"logits_{key}"] is not None]
    leaves = {key: golden.tensor(f"logits_{key}", grad=True) for key in branches}
    logits = torch.stack(list(leaves.values()), 1)
    targets, groups = golden.ids("target"), reslt_groups(golden, len(branches))
    eps, smoothing = inputs["log_eps"], inputs["label_smoothing"]
    fused_eps = eps if inputs["fused_term"].startswith("-log(softmax") else 0.0
    loss = residual_loss(
        logits,
        targets,
        groups,
        alpha=inputs["alpha_code_beta"],
        eps=eps,
        fused_eps=fused_eps,
        label_smoothing=smoothing,
    )
    loss.backward()
    golden.close(loss, expected["loss"])
    branch = residual_branch_loss(logits, targets, groups, eps=eps, label_smoothing=smoothing)
    golden.close(branch.mean(), expected["loss_individual_branches"])
    fused = residual_fused_loss(logits, targets, eps=fused_eps, label_smoothing=smoothing)
    golden.close(fused.mean(), expected["loss_fused"])
    golden.close(logits.sum(1), expected["fused_logits"])
    for key in branches:
        golden.close(leaves[key].grad, expected[f"grad_logits_{key}"])


def norm_head_name(name: str) -> str:
    for index, branch in enumerate(("BNH", "BNM", "BNT")):
        name = name.replace(branch, f"norms.{index}")
    return name.replace("linear", "classifier")


@pytest.mark.golden("reslt_branch_head_cifar*")
def test_residual_norm_head(golden: Golden) -> None:
    expected = golden.expected
    maps = golden.tensor("feature_map", grad=True)
    head = ResidualNormHead(maps.shape[1], len(golden.inputs["params"]["linear.bias"]))
    ours = golden.load(head, "params", norm_head_name)
    logits = head(maps)
    (logits.transpose(0, 1) * golden.tensor("objective_weights")).sum().backward()
    golden.close(logits.transpose(0, 1), expected["train_logits_H_M_T"])
    golden.close(maps.grad, expected["grad_feature_map"])
    parameters = dict(head.named_parameters())
    for theirs, gradient in expected["grad_params"].items():
        golden.close(parameters[ours[theirs]].grad, gradient)
    state = head.state_dict()
    for theirs, values in expected["buffers_after"].items():
        golden.close(state[norm_head_name(theirs)], values)
    golden.close(head.eval()(maps).transpose(0, 1), expected["eval_logits_H_M_T"])


def conv_head_name(name: str) -> str:
    return name.replace("finalBlock", "split").replace("fc", "classifier")


@pytest.mark.golden("reslt_branch_head_large*")
def test_residual_conv_head(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    maps = golden.tensor("feature_map")
    head = ResidualConvHead(
        maps.shape[1], len(inputs["params"]["fc.bias"]), pool_first=not inputs["after_1x1conv"], tau=inputs["gamma"]
    )
    golden.load(head, "params", conv_head_name)
    golden.close(head(maps).transpose(0, 1), expected["train_logits_H_M_T"])
    state = head.state_dict()
    for theirs, values in expected["buffers_after"].items():
        golden.close(state[conv_head_name(theirs)], values)
    golden.close(head.eval()(maps).transpose(0, 1), expected["eval_logits_H_M_T"])
