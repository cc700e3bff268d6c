"""Every case of golden/modules.json: numbers recorded from the original implementations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.rare_features import RareFeatureGenerator
from rebalance.losses.balanced_contrastive import balanced_contrastive_loss
from rebalance.losses.balanced_softmax import BalancedSoftmaxLoss
from rebalance.losses.label_aware_smoothing import label_aware_smoothing_loss, label_smoothing_by_class
from rebalance.losses.ldam import LDAMLoss
from rebalance.losses.paco import PaCoLoss, paco_log_prior
from rebalance.losses.residual import residual_branch_loss, residual_fused_loss, residual_loss
from rebalance.momentum import MomentumEncoder
from rebalance.queue import FeatureQueue
from rebalance.residual_head import ResidualConvHead, ResidualNormHead
from rebalance.two_stage import LearnableWeightScaling, NearestClassMean, tau_norm

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "modules.json").read_text())["cases"]
}


def names(prefix: str) -> list[str]:
    found = [name for name in CASES if name.startswith(prefix)]
    assert found
    return found


class Golden:
    """One case: its inputs as tensors of its dtype, and comparison at its tolerance."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        self.inputs, self.expected = self.case["inputs"], self.case["expected"]
        self.dtype = getattr(torch, self.case["dtype"])
        self.atol = 1e-7 if self.dtype == torch.float64 else 1e-4

    def tensor(self, key: str, *, grad: bool = False) -> Tensor:
        return self.of(self.inputs[key]).requires_grad_(grad)

    def of(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def ids(self, key: str) -> Tensor:
        return torch.tensor(self.inputs[key], dtype=torch.int64)

    def close(self, actual: Tensor | float | None, expected: Any) -> None:
        if expected is None:  # the original left .grad as None
            assert actual is None or not torch.as_tensor(actual).any()
            return
        actual = torch.as_tensor(actual, dtype=self.dtype)
        torch.testing.assert_close(actual.detach(), self.of(expected), rtol=self.case["rtol"], atol=self.atol)


def load(module: nn.Module, golden: Golden, key: str, renamed: Callable[[str], str]) -> dict[str, str]:
    """Loads the case's parameters; returns the module's name of each."""
    ours = {name: renamed(name) for name in golden.inputs[key]}
    state = {ours[name]: golden.of(values) for name, values in golden.inputs[key].items()}
    missing = module.to(golden.dtype).load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert not {name for name, _ in module.named_parameters()} & set(missing.missing_keys)
    return ours


RSG_NAMES = {
    "linear": "assignment_weight",
    "bias": "assignment_bias",
    "centers": "centers",
    "vec_transformation_module.0": "transform",
    "contrastive_module.0": "contrast.0",
    "contrastive_module.2": "contrast.2",
    "contrastive_fc": "contrast.5",
}


def rsg_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    return f"{RSG_NAMES[stem]}.{leaf}" if stem else RSG_NAMES[name]


def rsg(golden: Golden) -> tuple[RareFeatureGenerator, dict[str, str]]:
    config = golden.inputs["config"]
    generator = RareFeatureGenerator(
        [1] * config["num_classes"],
        config["feature_maps_shape"][0],
        n_centers=config["n_center"],
        contrast_channels=config["contrastive_module_dim"],
        strength=config["transfer_strength"],
        head_classes=config["head_class_lists"],
        zero_unused=False,
    )
    return generator, load(generator, golden, "params", rsg_name)


@pytest.mark.parametrize("name", [name for name in names("rsg_") if not name.endswith("3steps")])
def test_rsg(name: str) -> None:
    golden = Golden(name)
    config, expected = golden.inputs["config"], golden.expected
    generator, ours = rsg(golden)
    maps, targets = golden.tensor("feature_maps", grad=True), golden.ids("target")
    for epoch in golden.inputs["epochs_run_before"]:
        generator(maps, targets, epoch > config["epoch_thresh"])
    active = golden.inputs["epoch"] > config["epoch_thresh"]
    out = generator(maps, targets, active)
    objective = (out.maps * golden.tensor("objective_weight")).sum()
    objective = objective + 0.1 * out.losses["cesc"] + 0.01 * out.losses["mv"]
    objective.backward()

    golden.close(out.maps, expected["out_features"])
    assert out.targets.tolist() == expected["out_target"]
    assert torch.equal(targets[out.source], out.targets)
    golden.close(out.losses["cesc"], expected["loss_cesc"])
    golden.close(out.losses["mv"], expected["loss_mv"])
    golden.close(objective, expected["objective"])
    golden.close(maps.grad, expected["grad_feature_maps"])
    parameters = dict(generator.named_parameters())
    for theirs, gradient in expected["grad_params"].items():
        if name == "rsg_freeze_is_sticky" and theirs.startswith("contrastive"):
            # Deviation: there one generation freezes the contrastive network for good; here it goes on learning.
            assert parameters[ours[theirs]].grad is not None
            assert parameters[ours[theirs]].grad.any()
        elif gradient is None:
            assert parameters[ours[theirs]].grad is None
        else:
            golden.close(parameters[ours[theirs]].grad, gradient)


@pytest.mark.parametrize("name", [name for name in names("rsg_") if name.endswith("3steps")])
def test_rsg_with_ldam_for_three_updates(name: str) -> None:
    golden = Golden(name)
    inputs, expected = golden.inputs, golden.expected
    generator, ours = rsg(golden)
    classifier = golden.tensor("classifier_weight_CxK", grad=True)
    options = inputs["optimizer"]
    optimizer = torch.optim.SGD(
        [*generator.parameters(), classifier],
        lr=options["lr"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
    )
    steps = zip(
        golden.tensor("feature_maps_per_step"),
        golden.ids("targets_per_step"),
        inputs["epoch_per_step"],
        inputs["ldam"]["per_step_class_weights"],
        expected["steps"],
        strict=True,
    )
    for maps, targets, epoch, weight, step in steps:
        out = generator(maps, targets, epoch > inputs["config"]["epoch_thresh"])
        cosines = F.normalize(out.maps.mean(dim=(2, 3)), dim=1) @ F.normalize(classifier, dim=0)
        ldam_options = inputs["ldam"]
        loss = LDAMLoss(
            ldam_options["cls_num_list"], max_margin=ldam_options["max_m"], scale=ldam_options["s"], weight=weight
        )
        ldam = loss(cosines, out.targets, reduction="weighted_mean")
        total = ldam + 0.1 * out.losses["cesc"] + 0.01 * out.losses["mv"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert len(out.maps) == step["n_out"]
        assert out.targets.tolist() == step["out_target"]
        golden.close(out.losses["cesc"], step["cesc"])
        golden.close(out.losses["mv"], step["mv"])
        golden.close(ldam, step["ldam"])
        golden.close(total, step["total"])
    parameters = dict(generator.named_parameters())
    for theirs, values in expected["final_params"].items():
        golden.close(parameters[ours[theirs]], values)
    golden.close(classifier, expected["final_classifier_weight"])


def paco(golden: Golden) -> PaCoLoss:
    params = golden.inputs["params"]
    return PaCoLoss(
        golden.inputs["cls_num_list"],
        alpha=params["alpha"],
        beta=params["beta"],
        gamma=params["gamma"],
        logit_temperature=params["supt"],
        temperature=params["temperature"],
        base_temperature=params.get("base_temperature"),
        label_smoothing=params.get("smooth", 0.0),
    )


def per_view(logits: Tensor, n_images: int) -> Tensor:
    """Rows in the original's order, view by view, (V·B, C) → (B, V, C), or (B, C) for one view."""
    return logits.unflatten(0, (-1, n_images)).transpose(0, 1).squeeze(1)


@pytest.mark.parametrize("name", [n for n in (*names("paco_"), *names("gpaco_")) if not n.endswith("3steps")])
def test_paco_and_gpaco(name: str) -> None:
    golden = Golden(name)
    q, k = golden.tensor("q", grad=True), golden.tensor("k", grad=True)
    logits = golden.tensor("sup_logits", grad=True)
    queue = golden.tensor("queue").reshape(-1, q.shape[1])
    targets, queue_targets = golden.ids("labels"), golden.ids("queue_labels")
    loss = paco(golden)(per_view(logits, len(q)), torch.stack([q, k], 1), targets, queue, queue_targets)
    loss.backward()
    golden.close(loss, golden.expected["loss"])
    golden.close(q.grad, golden.expected["grad_q"])
    golden.close(k.grad, golden.expected["grad_k"])
    golden.close(logits.grad, golden.expected["grad_sup_logits"])
    if golden.expected["prior_weight"] is not None:
        prior = paco_log_prior(golden.inputs["cls_num_list"]).exp() - 1e-9
        torch.testing.assert_close(
            prior, torch.tensor(golden.expected["prior_weight"][0], dtype=torch.float64), rtol=1e-6, atol=0
        )


class MocoEncoder(nn.Module):
    """The case's network: images (B, 5) → feature (B, 6) → projection (B, 5)."""

    def __init__(self, projector: nn.Sequential) -> None:
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.fc = projector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.body(images).tanh()
        return feature, F.normalize(self.fc(feature), dim=1)


class Moco(nn.Module):
    """PaCo's or GPaCo's state."""

    def __init__(self, golden: Golden, *, generalized: bool) -> None:
        super().__init__()
        params = golden.inputs["params"]
        if generalized:
            layers = (nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5))
        else:
            layers = (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))
        self.encoder_q = MocoEncoder(nn.Sequential(*layers))
        self.encoder_k = None if generalized else MomentumEncoder(self.encoder_q, momentum=params["m"])
        self.linear = nn.Linear(6, params["num_classes"])
        self.queue = FeatureQueue(params["K"], params["dim"], init="official", n_classes=params["num_classes"])
        self.to(golden.dtype)
        self.queue.keys.copy_(golden.tensor("initial_queue"))
        self.queue.targets.copy_(golden.ids("initial_queue_labels"))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) or (B, V, C), and views (B, 2, D)."""
        feature, q = self.encoder_q(first)
        logits = self.linear(feature)
        if self.encoder_k is not None:
            self.encoder_k.update(self.encoder_q)
            _, k = self.encoder_k(second)
        else:
            feature, k = self.encoder_q(second)
            logits = torch.stack([logits, self.linear(feature)], 1)
        return logits, torch.stack([q, k], 1)


def moco_name(name: str) -> str:
    return name.replace("encoder_k.", "encoder_k.encoder.", 1)


@pytest.mark.parametrize("name", [n for n in (*names("paco_"), *names("gpaco_")) if n.endswith("3steps")])
def test_paco_and_gpaco_for_three_updates(name: str) -> None:
    golden = Golden(name)
    inputs, expected = golden.inputs, golden.expected
    model = Moco(golden, generalized=name.startswith("gpaco"))
    # linear_k is a momentum copy of the classifier that the original keeps and never uses.
    initial = {key: values for key, values in inputs["initial_params"].items() if not key.startswith("linear_k")}
    golden.inputs = {**inputs, "initial_params": initial}
    load(model, golden, "initial_params", moco_name)
    options = inputs["optimizer"]
    optimizer = torch.optim.SGD(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=options["lr"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
    )
    loss_of = paco(golden)
    batches = zip(golden.tensor("im_q"), golden.tensor("im_k"), golden.ids("labels"), expected["steps"], strict=True)
    for first, second, targets, step in batches:
        logits, views = model(first, second)
        keys, key_targets = model.queue()
        loss = loss_of(logits, views, targets, keys, key_targets)
        model.queue.enqueue(views[:, -1], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        golden.close(loss, step["loss"])
        golden.close(torch.cat([views[:, 0], views[:, 1], keys]), step["features"])
        assert torch.cat([targets, targets, key_targets]).tolist() == step["labels"]
        golden.close(logits if logits.ndim == 2 else logits.transpose(0, 1).flatten(0, 1), step["logits"])
        golden.close(model.queue.keys, step["queue_after"])
        assert model.queue.targets.tolist() == step["queue_labels_after"]
        assert int(model.queue.pointer) == step["queue_ptr_after"]
    state = model.state_dict()
    for theirs, values in expected["final_params"].items():
        if not theirs.startswith("linear_k"):
            golden.close(state[moco_name(theirs)], values)
    model.eval()
    with torch.no_grad():
        feature, _ = model.encoder_q(golden.tensor("im_q")[0])
        golden.close(model.linear(feature), expected["eval_logits_first_batch"])


def reslt_groups(golden: Golden, n_branches: int) -> Tensor:
    inputs = golden.inputs
    groups = torch.zeros(3, inputs["num_classes"], dtype=torch.bool)
    groups[0] = True
    groups[1, inputs["classes_supervised_by_medium_branch"]] = True
    groups[2, inputs["classes_supervised_by_tail_branch"]] = True
    return groups[:n_branches]


@pytest.mark.parametrize("name", [name for name in names("reslt_") if "branch_head" not in name])
def test_residual_loss(name: str) -> None:
    golden = Golden(name)
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


@pytest.mark.parametrize("name", names("reslt_branch_head_cifar"))
def test_residual_norm_head(name: str) -> None:
    golden = Golden(name)
    expected = golden.expected
    maps = golden.tensor("feature_map", grad=True)
    head = ResidualNormHead(maps.shape[1], len(golden.inputs["params"]["linear.bias"]))
    ours = load(head, golden, "params", norm_head_name)
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


@pytest.mark.parametrize("name", names("reslt_branch_head_large"))
def test_residual_conv_head(name: str) -> None:
    golden = Golden(name)
    inputs, expected = golden.inputs, golden.expected
    maps = golden.tensor("feature_map")
    head = ResidualConvHead(
        maps.shape[1], len(inputs["params"]["fc.bias"]), pool_first=not inputs["after_1x1conv"], tau=inputs["gamma"]
    )
    load(head, golden, "params", conv_head_name)
    golden.close(head(maps).transpose(0, 1), expected["train_logits_H_M_T"])
    state = head.state_dict()
    for theirs, values in expected["buffers_after"].items():
        golden.close(state[conv_head_name(theirs)], values)
    golden.close(head.eval()(maps).transpose(0, 1), expected["eval_logits_H_M_T"])


@pytest.mark.parametrize("name", names("bcl_"))
def test_balanced_contrastive(name: str) -> None:
    golden = Golden(name)
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


@pytest.mark.parametrize("name", names("taunorm_"))
def test_tau_norm(name: str) -> None:
    golden = Golden(name)
    features = golden.tensor("features")
    for tau, expected in zip(golden.inputs["taus"], golden.expected["per_tau"], strict=True):
        weight, bias = tau_norm(golden.tensor("weight"), tau=tau)
        assert bias is None
        logits = features @ weight.T
        golden.close(weight, expected["weight"])
        golden.close(logits, expected["logits"])
        assert logits.argmax(1).tolist() == expected["pred"]


@pytest.mark.parametrize("name", names("lws_"))
def test_learnable_weight_scaling(name: str) -> None:
    golden = Golden(name)
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


@pytest.mark.parametrize("name", names("ncm_"))
def test_nearest_class_mean(name: str) -> None:
    golden = Golden(name)
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


@pytest.mark.parametrize("name", names("las_"))
def test_label_aware_smoothing(name: str) -> None:
    golden = Golden(name)
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
    assert sum(len(names(prefix)) for prefix in prefixes) == len(CASES)
