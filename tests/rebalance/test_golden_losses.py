"""Every number of golden/losses.json, recorded by running the original implementations, through the public API.

Cases of kind "golden" match within their own tolerance, values and gradients. Cases of kind "quirk" record degenerate
or disputed behaviour: `QUIRKS` says what this package does instead, and a case without an entry there fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rebalance import losses, mixing
from rebalance.errors import InputError
from rebalance.heads import CosineHead, cosine_similarity
from rebalance.profiles import long_tail_counts, long_tail_subset
from rebalance.schedules import Schedule, learning_rate_factor
from rebalance.weights import class_weights

CASES = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())["cases"]
BY_NAME = {case["name"]: case for case in CASES}
assert len(BY_NAME) == len(CASES)

Inputs = dict[str, Any]
Outputs = dict[str, Any]


def numbers(value: Any) -> Any:
    """Nested lists of numbers, with "nan" and "inf" decoded."""
    return [numbers(item) for item in value] if isinstance(value, list) else float(value)


def tensor(value: Any, case: Inputs, *, grad: bool = False) -> Tensor:
    return torch.tensor(numbers(value), dtype=getattr(torch, case["dtype"]), requires_grad=grad)


def weight_of(inputs: Inputs) -> Tensor | None:
    value = inputs.get("class_weights")
    return None if value is None else torch.tensor(value, dtype=torch.float64)


def on_logits(loss: Callable[..., Tensor]) -> Callable[[Inputs], Outputs]:
    """A method whose case gives logits and labels: loss and its gradient."""

    def run(case: Inputs) -> Outputs:
        logits = tensor(case["inputs"]["logits"], case, grad=True)
        value = loss(logits, torch.tensor(case["inputs"]["labels"]), case["inputs"])
        value.backward()
        return {"loss": value.detach(), "grad_logits": logits.grad}

    return run


def on_embeddings(loss: Callable[..., tuple[Tensor, Outputs]]) -> Callable[[Inputs], Outputs]:
    """A method whose case gives features (B, D) and class vectors (D, C): loss, gradients, and what else it says."""

    def run(case: Inputs) -> Outputs:
        features = tensor(case["inputs"]["features"], case, grad=True)
        weight = tensor(case["inputs"]["weight"], case, grad=True)
        targets = torch.tensor(case["inputs"]["labels"])
        cosines = cosine_similarity(features, weight)
        value, more = loss(cosines, targets, features.norm(dim=1), case["inputs"])
        value.backward()
        outputs = {"loss": value.detach(), "grad_features": features.grad, "grad_weight": weight.grad, **more}
        return {key: outputs[key] for key in case["expected"]}

    return run


def on_views(loss: Callable[..., Tensor]) -> Callable[[Inputs], Outputs]:
    def run(case: Inputs) -> Outputs:
        views = tensor(case["inputs"]["features"], case, grad=True)
        labels = case["inputs"].get("labels")
        value = loss(views, None if labels is None else torch.tensor(labels), case["inputs"])
        value.backward()
        return {"loss": value.detach(), "grad_features": views.grad}

    return run


def normed_linear(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    features = tensor(inputs["features"], case, grad=True)
    head = CosineHead(*np.shape(inputs["weight"])).to(features.dtype)
    head.load_state_dict({"weight": tensor(inputs["weight"], case)})
    output = head(features)
    output.backward(tensor(inputs["grad_output"], case))
    return {"output": output, "grad_features": features.grad, "grad_weight": head.weight.grad}


def effective_number(case: Inputs) -> Outputs:
    counts, beta = case["inputs"]["class_counts"], case["inputs"]["beta"]
    weight = class_weights(counts, "effective-number", cb_beta=beta)
    torch.testing.assert_close(losses.effective_number_weight(counts, cb_beta=beta), torch.tensor(weight))
    return {"weights": weight}


def inverse(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    options: dict[str, Any] = {
        "sum_to_num_classes": {"normalization": "classes"},
        "min_over_n_pow_gamma": {"normalization": "max", "strength": inputs.get("gamma", 1.0)},
        "sklearn_balanced": {"normalization": "samples"},
    }[inputs["normalisation"]]
    return {"weights": class_weights(inputs["class_counts"], "inverse", **options)}


def deferred_weight(counts: list[int], epoch: int, start: int, cb_beta: float) -> Tensor:
    """LDAM-DRW's weights: the rule, `strength` 0 or 1 as the schedule says; the share of training is epoch / epochs."""
    factor = Schedule("deferred", start / 400)(epoch / 400)
    return torch.tensor(class_weights(counts, "effective-number", cb_beta=cb_beta, strength=factor))


def drw_weights(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    weight = deferred_weight(inputs["class_counts"], inputs["epoch"], inputs["drw_epoch"], inputs["betas"][1])
    return {"weights": weight}


def lr_schedule(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    return {"lr": [inputs["base_lr"] * learning_rate_factor(epoch, 200) for epoch in inputs["epochs_0based"]]}


def img_num_per_cls(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    if inputs["imb_type"] in ("exp", "step"):
        counts = long_tail_counts(
            inputs["num_images"],
            inputs["num_classes"],
            imbalance_factor=inputs["imb_factor"],
            profile=inputs["imb_type"],
        )
    else:  # the original's "anything else": balanced
        counts = long_tail_counts(inputs["num_images"], inputs["num_classes"], imbalance_factor=1)
    return {"counts": counts, "total": counts.sum()}


def imbalanced_subset(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    targets = np.array(inputs["targets"])
    counts = long_tail_counts(
        len(targets), inputs["num_classes"], imbalance_factor=inputs["imb_factor"], profile=inputs["imb_type"]
    )
    rows = long_tail_subset(targets, counts, inputs["seed"])
    return {"counts": counts, "indices": rows, "targets": targets[rows]}


def mixed_case(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    images, targets = tensor(inputs["x"], case), torch.tensor(inputs["labels"])
    permutation = torch.tensor(inputs["index"])
    if case["method"] == "mixup":
        mixed, pair = mixing.mixup(images, targets, inputs["lam"], permutation)
    else:
        counts, kappa, tau = inputs["class_counts"], inputs["kappa"], inputs["tau"]
        mixed, pair = mixing.remix(images, targets, inputs["lam"], permutation, counts, kappa=kappa, tau=tau)
    logits = tensor(inputs["logits"], case, grad=True)
    value = mixing.mixed_loss(losses.cross_entropy_loss, logits, targets, *pair)
    value.backward()
    outputs = {
        "mixed_x": mixed,
        "labels_b": pair[0],
        "lam_y": pair[1],
        "loss": value.detach(),
        "grad_logits": logits.grad,
    }
    return {key: outputs[key] for key in case["expected"]}


def cb_focal(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    module = losses.ClassBalancedFocalLoss(inputs["class_counts"], cb_beta=inputs["beta"], gamma=inputs["gamma"])
    return {**on_logits(lambda z, y, i: module(z, y))(case), "weights": module.weight}


def ldam(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    module = losses.LDAMLoss(
        inputs["class_counts"], max_margin=inputs["max_m"], scale=inputs["s"], weight=inputs["class_weights"]
    )
    loss_of = on_logits(lambda z, y, i: module(z, y, reduction="weighted_mean"))
    return {**loss_of(case), "margins": module.margins}


def ldam_drw(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    weight = deferred_weight(inputs["class_counts"], inputs["epoch"], inputs["drw_epoch"], inputs["beta"])
    module = losses.LDAMLoss(inputs["class_counts"], max_margin=inputs["max_m"], scale=inputs["s"], weight=weight)
    loss_of = on_logits(lambda z, y, i: module(z, y, reduction="weighted_mean"))
    return {**loss_of(case), "margins": module.margins, "weights": weight}


def label_aware_smoothing(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    options = {key: inputs[key] for key in ("smooth_head", "smooth_tail", "shape", "power")}
    module = losses.LabelAwareSmoothingLoss(inputs["class_counts"], **options)
    return {**on_logits(lambda z, y, i: module(z, y))(case), "smooth": module.smoothing}


def logit_adjustment_posthoc(case: Inputs) -> Outputs:
    inputs = case["inputs"]
    adjusted = losses.adjust_logits(
        tensor(inputs["logits"], case), inputs["class_counts"], tau=inputs["tau"], eps=inputs["eps"]
    )
    return {"adjusted_logits": adjusted, "predictions": adjusted.argmax(dim=1)}


def margin_of(inputs: Inputs) -> float:
    return float(inputs["margin"]) if inputs.get("margin_unit") == "radians" else math.radians(inputs["margin"])


def arcface(cosines: Tensor, targets: Tensor, norms: Tensor, inputs: Inputs) -> tuple[Tensor, Outputs]:
    options = {"margin_rad": margin_of(inputs), "scale": inputs["scale"]}
    value = losses.arcface_loss(cosines, targets, **options)
    return value, {"logits": losses.arcface_logits(cosines, targets, **options)}


def cosface(cosines: Tensor, targets: Tensor, norms: Tensor, inputs: Inputs) -> tuple[Tensor, Outputs]:
    options = {"margin": inputs["margin"], "scale": inputs["scale"]}
    value = losses.cosface_loss(cosines, targets, **options)
    return value, {"logits": losses.cosface_logits(cosines, targets, **options)}


def sphereface(cosines: Tensor, targets: Tensor, norms: Tensor, inputs: Inputs) -> tuple[Tensor, Outputs]:
    options = {"margin": inputs["margin"], "scale": inputs["scale"]}
    value = losses.sphereface_loss(cosines, targets, norms, **options)
    return value, {"logits": losses.sphereface_logits(cosines, targets, norms, **options)}


def annealed(cosines: Tensor, targets: Tensor, norms: Tensor, inputs: Inputs) -> tuple[Tensor, Outputs]:
    annealing = losses.sphereface_annealing(
        inputs["iteration"],
        base=inputs["lambda_base"] if "lambda_base" in inputs else inputs["lambda_max"],
        gamma=inputs["lambda_gamma"],
        power=inputs.get("lambda_power", 1.0),
        minimum=inputs["lambda_min"],
    )
    options = {"margin": inputs["m"], "annealing": annealing}
    value = losses.sphereface_loss(cosines, targets, norms, **options)
    return value, {"lambda": annealing, "logits": losses.sphereface_logits(cosines, targets, norms, **options)}


def insightface(
    logits_of: Callable[..., Tensor], options_of: Callable[[Inputs], Inputs]
) -> Callable[[Inputs], Outputs]:
    def run(case: Inputs) -> Outputs:
        cosines = tensor(case["inputs"]["logits"], case, grad=True)
        targets = torch.tensor(case["inputs"]["labels"])
        logits = logits_of(cosines, targets, **options_of(case["inputs"]))
        value = losses.cross_entropy_loss(logits, targets)
        value.backward()
        return {"loss": value.detach(), "grad_logits": cosines.grad, "logits_out": logits}

    return run


def supcon_options(inputs: Inputs) -> Inputs:
    return {
        "temperature": inputs["temperature"],
        "base_temperature": inputs["base_temperature"],
        "mode": inputs["contrast_mode"],
    }


def supcon(views: Tensor, targets: Tensor | None, inputs: Inputs) -> Tensor:
    mask = None if inputs.get("mask") is None else torch.tensor(inputs["mask"])
    return losses.supcon_loss(views, targets, mask=mask, **supcon_options(inputs))


def supcon_pml(case: Inputs) -> Outputs:
    features = tensor(case["inputs"]["features"], case, grad=True)
    targets = torch.tensor(case["inputs"]["labels"])
    value = losses.supcon_pml_loss(features[:, None], targets, temperature=case["inputs"]["temperature"])
    value.backward()
    return {"loss": value.detach(), "grad_features": features.grad}


METHODS: dict[str, Callable[[Inputs], Outputs]] = {
    "weights_effective_number": effective_number,
    "weights_inverse": inverse,
    "drw_weights": drw_weights,
    "lr_schedule": lr_schedule,
    "img_num_per_cls": img_num_per_cls,
    "imbalanced_subset": imbalanced_subset,
    "ce_weighted": on_logits(
        lambda z, y, i: losses.cross_entropy_loss(z, y, weight=weight_of(i), reduction="weighted_mean")
    ),
    "ce_weighted_batchmean": on_logits(lambda z, y, i: losses.cross_entropy_loss(z, y, weight=weight_of(i))),
    "focal_softmax": on_logits(
        lambda z, y, i: losses.focal_softmax_loss(z, y, gamma=i["gamma"], weight=weight_of(i), weight_in_modulator=True)
    ),
    "focal_softmax_detached": on_logits(
        lambda z, y, i: losses.focal_softmax_loss(z, y, gamma=i["gamma"], detach_modulator=True)
    ),
    "focal_sigmoid": on_logits(
        lambda z, y, i: (
            torch.tensor(i["alpha_per_sample"], dtype=z.dtype)
            * losses.focal_sigmoid_loss(z, y, gamma=i["gamma"], reduction="none")
        ).mean()
    ),
    "cb_softmax": on_logits(
        lambda z, y, i: losses.ClassBalancedSoftmaxLoss(i["class_counts"], cb_beta=i["beta"])(z, y)
    ),
    "cb_sigmoid": on_logits(
        lambda z, y, i: losses.ClassBalancedSigmoidLoss(i["class_counts"], cb_beta=i["beta"])(z, y)
    ),
    "cb_focal": cb_focal,
    "cb_ce_weightedmean": on_logits(
        lambda z, y, i: losses.ClassBalancedSoftmaxLoss(i["class_counts"], cb_beta=i["beta"])(
            z, y, reduction="weighted_mean"
        )
    ),
    "ldam": ldam,
    "ldam_drw": ldam_drw,
    "ldam_prescaled": on_logits(
        lambda z, y, i: losses.LDAMLoss(
            i["class_counts"], max_margin=i["max_m"], scale=i["s"], prescaled=True, weight=i["class_weights"]
        )(z, y, reduction="weighted_mean")
    ),
    "normed_linear": normed_linear,
    "balanced_softmax": on_logits(lambda z, y, i: losses.BalancedSoftmaxLoss(i["class_counts"])(z, y)),
    "logit_adjustment": on_logits(
        lambda z, y, i: losses.LogitAdjustmentLoss(i["base_probs"], tau=i["tau"], eps=i["eps"])(z, y)
    ),
    "logit_adjustment_posthoc": logit_adjustment_posthoc,
    "prior_ce": on_logits(lambda z, y, i: losses.PriorCELoss(i["class_counts"], eps=i["eps"])(z, y)),
    "label_aware_smoothing": label_aware_smoothing,
    "supcon": on_views(supcon),
    "simclr": on_views(lambda v, y, i: losses.simclr_loss(v, **supcon_options(i))),
    "supcon_pml": supcon_pml,
    "arcface": on_embeddings(arcface),
    "arcface_insightface": insightface(
        losses.arcface_logits,
        lambda i: {"margin_rad": margin_of(i), "scale": i["scale"], "straight_through": True},
    ),
    "cosface": on_embeddings(cosface),
    "cosface_insightface": insightface(losses.cosface_logits, lambda i: {"margin": i["margin"], "scale": i["scale"]}),
    "sphereface": on_embeddings(sphereface),
    "asoftmax_annealed": on_embeddings(annealed),
    "asoftmax_caffe_forward": on_embeddings(annealed),
    "mixup": mixed_case,
    "remix": mixed_case,
}


def check(outputs: Outputs, expected: Inputs, tol: dict[str, float]) -> None:
    """Every recorded number is there, and within the case's tolerance."""
    assert set(outputs) == set(expected)
    for key, value in expected.items():
        output = outputs[key]
        got = output.detach().double() if isinstance(output, Tensor) else torch.tensor(np.asarray(output, np.float64))
        torch.testing.assert_close(
            got, torch.tensor(numbers(value), dtype=torch.float64), **tol, msg=partial("{}: {}".format, key)
        )


@pytest.mark.parametrize("name", [case["name"] for case in CASES if case["kind"] == "golden"])
def test_matches_the_original(name: str) -> None:
    case = BY_NAME[name]
    check(METHODS[case["method"]](case), case["expected"], case["tol"])


def as_recorded(case: Inputs) -> None:
    """The quirk is ours too."""
    check(METHODS[case["method"]](case), case["expected"], case["tol"])


def safe(case: Inputs) -> None:
    """The value under `stable`, which a numerically safe implementation gives."""
    check(METHODS[case["method"]](case), case["stable"], case["tol"])


def refuses(error: type[Exception], match: str) -> Callable[[Inputs], None]:
    def run(case: Inputs) -> None:
        with pytest.raises(error, match=match):
            METHODS[case["method"]](case)

    return run


def zero(case: Inputs) -> None:
    """Loss and gradients are 0 where the original has NaN."""
    outputs = METHODS[case["method"]](case)
    assert all(not torch.as_tensor(value).any() for value in outputs.values())


def all_but_the_nan(case: Inputs) -> None:
    """The loss, and the gradients that are finite, are the original's; its NaN gradients are 0."""
    expected = {
        key: torch.tensor(numbers(value), dtype=torch.float64).nan_to_num(0.0).tolist()
        for key, value in case["expected"].items()
    }
    check(METHODS[case["method"]](case), expected, case["tol"])


def dead_feature(case: Inputs) -> None:
    """Cosines of a zero feature are 0, and so is its gradient, which is 1e12 in the original."""
    outputs = METHODS["normed_linear"](case)
    assert all(not value.any() for value in outputs.values())


def smooth_head_everywhere(case: Inputs) -> None:
    smooth = losses.label_smoothing_by_class(case["inputs"]["class_counts"], smooth_head=0.3, smooth_tail=0.0)
    torch.testing.assert_close(smooth, torch.full((3,), 0.3, dtype=torch.float64))


def true_cross_entropy(case: Inputs) -> None:
    """`cb_softmax_bce` is no cross entropy: the class-balanced softmax of the paper's own code is another number."""
    if "raises" in case["expected"]:  # the port's "sigmoid" never ran; ours does
        value = losses.ClassBalancedSigmoidLoss(case["inputs"]["class_counts"])(
            torch.tensor(case["inputs"]["logits"]), torch.tensor(case["inputs"]["labels"])
        )
        assert value.isfinite()
        return
    twin = BY_NAME[case["name"].replace("cb_softmax_bce", "cb_softmax")]
    assert twin["inputs"] == case["inputs"]
    got = METHODS["cb_softmax"](twin)["loss"]
    assert got == pytest.approx(twin["expected"]["loss"], rel=1e-9)
    assert got != pytest.approx(case["expected"]["loss"], rel=0.1)


def paired_with_its_sample(case: Inputs) -> None:
    """BagofTricks averages Remix's λ over the batch; here each λ stays with its sample, as in the twin golden case."""
    twin = BY_NAME[case["name"].removesuffix("_bagoftricks")]
    assert twin["inputs"] == case["inputs"]
    outputs = mixed_case(twin)
    check(outputs, twin["expected"], twin["tol"])
    if len(set(case["expected"]["lam_y"])) > 1:
        assert float(outputs["loss"]) != pytest.approx(case["expected"]["loss"], rel=1e-3)


def weight_after_epoch_320(case: Inputs) -> None:
    weight = deferred_weight(case["inputs"]["class_counts"], 320, 160, 0.9999)
    torch.testing.assert_close(weight, losses.effective_number_weight(case["inputs"]["class_counts"]))


def last_class_kept(case: Inputs) -> None:
    assert img_num_per_cls(case)["counts"].tolist() == [*case["expected"]["counts"], 10]


def one_class(case: Inputs) -> None:
    assert img_num_per_cls(case)["counts"].tolist() == [10]


QUIRKS: dict[str, Callable[[Inputs], None]] = {
    "weights_effective_number/zero_count": refuses(InputError, "0 images of class 0"),
    "drw_weights/epoch_past_320": weight_after_epoch_320,
    "ce_weighted/all_weights_zero": zero,
    "focal_softmax/gamma_half_saturated": all_but_the_nan,
    "focal_softmax/gamma_half_float32_gap17": safe,
    "cb_softmax_bce/basic": true_cross_entropy,
    "cb_softmax_bce/absent_class": true_cross_entropy,
    "cb_softmax_bce/batch1": true_cross_entropy,
    "cb_softmax_bce/count1": true_cross_entropy,
    "cb_softmax_bce/sigmoid_raises": true_cross_entropy,
    "ldam/zero_count": refuses(ValueError, "0 images of class 1"),
    "normed_linear/zero_feature": dead_feature,
    "balanced_softmax/zero_count_is_target": as_recorded,
    "logit_adjustment/eps_dominates": as_recorded,
    "label_aware_smoothing/equal_counts": smooth_head_everywhere,
    "supcon/batch1_views1": zero,
    "supcon/unnormalised_underflow": safe,
    "supcon_pml/all_same_class": as_recorded,
    "arcface/colinear_embedding": as_recorded,
    "remix/low_lam_bagoftricks": paired_with_its_sample,
    "remix/high_lam_bagoftricks": paired_with_its_sample,
    "img_num_per_cls/exp_N50_C10_0.01": refuses(InputError, "class 4 would be empty"),
    "img_num_per_cls/odd_step_C7": last_class_kept,
    "img_num_per_cls/one_class_exp": one_class,
}


@pytest.mark.parametrize("name", [case["name"] for case in CASES if case["kind"] == "quirk"])
def test_quirk_is_met_on_purpose(name: str) -> None:
    QUIRKS[name](BY_NAME[name])


def test_no_quirk_is_forgotten_or_gone() -> None:
    assert set(QUIRKS) == {case["name"] for case in CASES if case["kind"] == "quirk"}
