"""Every number of golden/losses.json, recorded by running the original implementations, through the public API.

The calls are those of the table in docs/methods.md, run as they stand there. Cases of kind "golden" match within their
own tolerance, values and gradients. Cases of kind "quirk" record degenerate or disputed behaviour: `QUIRKS` says what
this package does instead, and a case without an entry there fails.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rebalance
from rebalance import long_tail_counts, long_tail_subset, losses, mixing
from rebalance.errors import InputError
from rebalance.heads import cosine_similarity
from rebalance.schedules import Schedule, learning_rate_factor

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "tests" / "golden" / "losses.json").read_text())["cases"]
BY_NAME = {case["name"]: case for case in CASES}
CALLS = {
    method: "\n".join(re.findall(r"`([^`]+)`", call))
    for method, call in re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "docs" / "methods.md").read_text(), re.MULTILINE)
}

INPUTS = {name for case in CASES for name in case["inputs"]}

Case = dict[str, Any]
NAMES = {
    "Schedule": Schedule,
    "cosine_similarity": cosine_similarity,
    "learning_rate_factor": learning_rate_factor,
    "long_tail_counts": long_tail_counts,
    "long_tail_subset": long_tail_subset,
    "losses": losses,
    "math": math,
    "mixing": mixing,
    "rebalance": rebalance,
}


def numbers(value: Any) -> Any:
    """Nested lists of numbers, with "nan" and "inf" decoded."""
    return [numbers(item) for item in value] if isinstance(value, list) else float(value)


def inputs_of(case: Case) -> Case:
    """The case's inputs, tensors where docs/methods.md says so; None for those of other cases."""
    inputs = {name: case["inputs"].get(name) for name in INPUTS}
    for name in set(case["inputs"]) - {name for name, value in inputs.items() if value is None}:
        if name in ("labels", "index"):
            inputs[name] = torch.tensor(inputs[name])
        elif name in ("mask", "alpha_per_sample", "class_weights"):
            inputs[name] = torch.tensor(inputs[name], dtype=torch.float64)
        elif name in ("logits", "features", "x", "weight", "grad_output"):
            inputs[name] = torch.tensor(numbers(inputs[name]), dtype=getattr(torch, case["dtype"]))
            inputs[name].requires_grad_(name in ("logits", "features", "weight"))
        elif name == "targets":
            inputs[name] = np.array(inputs[name])
    return inputs


def run(case: Case) -> Case:
    """Expected output → what the table's code gives, gradients included."""
    inputs = inputs_of(case)
    space = {**NAMES, **inputs}
    exec(CALLS[case["method"]], space)
    if "grad_output" in case["inputs"]:
        space["output"].backward(inputs["grad_output"])
    elif "loss" in space:
        space["loss"].backward()
    outputs = {}
    for name in case["expected"]:
        of_input = name.removeprefix("grad_")
        value = inputs[of_input].grad if of_input != name else space["lambda_" if name == "lambda" else name]
        outputs[name] = value.detach() if isinstance(value, Tensor) else value
    return outputs


def check(outputs: Case, expected: Case, tol: dict[str, float]) -> None:
    """Every recorded number is there, and within the case's tolerance."""
    for key, value in expected.items():
        output = outputs[key]
        got = output.double() if isinstance(output, Tensor) else torch.tensor(np.asarray(output, np.float64))
        torch.testing.assert_close(
            got, torch.tensor(numbers(value), dtype=torch.float64), **tol, msg=partial("{}: {}".format, key)
        )


@pytest.mark.parametrize("name", [case["name"] for case in CASES if case["kind"] == "golden"])
def test_matches_the_original(name: str) -> None:
    case = BY_NAME[name]
    check(run(case), case["expected"], case["tol"])


def as_recorded(case: Case) -> None:
    """The quirk is ours too."""
    check(run(case), case["expected"], case["tol"])


def safe(case: Case) -> None:
    """The value under `stable`, which a numerically safe implementation gives."""
    check(run(case), case["stable"], case["tol"])


def refuses(error: type[Exception], match: str) -> Callable[[Case], None]:
    def expect(case: Case) -> None:
        with pytest.raises(error, match=match):
            run(case)

    return expect


def zero(case: Case) -> None:
    """Loss and gradients are 0 where the original has NaN."""
    outputs = run(case)
    assert all(not torch.as_tensor(value).any() for value in outputs.values())


def all_but_the_nan(case: Case) -> None:
    """The loss, and the gradients that are finite, are the original's; its NaN gradients are 0."""
    expected = {
        key: torch.tensor(numbers(value), dtype=torch.float64).nan_to_num(0.0).tolist()
        for key, value in case["expected"].items()
    }
    check(run(case), expected, case["tol"])


def dead_feature(case: Case) -> None:
    """Cosines of a zero feature are 0, and so is its gradient, which is 1e12 in the original."""
    outputs = run(case)
    assert all(not value.any() for value in outputs.values())


def smooth_head_everywhere(case: Case) -> None:
    smooth = losses.label_smoothing_by_class(case["inputs"]["class_counts"], smooth_head=0.3, smooth_tail=0.0)
    torch.testing.assert_close(smooth, torch.full((3,), 0.3, dtype=torch.float64))


def true_cross_entropy(case: Case) -> None:
    """`cb_softmax_bce` is no cross entropy: the class-balanced softmax of the paper's own code is another number."""
    if "raises" in case["expected"]:  # the port's "sigmoid" never ran; ours does
        value = losses.ClassBalancedSigmoidLoss(case["inputs"]["class_counts"])(
            torch.tensor(case["inputs"]["logits"]), torch.tensor(case["inputs"]["labels"])
        )
        assert value.isfinite()
        return
    twin = BY_NAME[case["name"].replace("cb_softmax_bce", "cb_softmax")]
    assert twin["inputs"] == case["inputs"]
    got = run(twin)["loss"]
    assert got == pytest.approx(twin["expected"]["loss"], rel=1e-9)
    assert got != pytest.approx(case["expected"]["loss"], rel=0.1)


def paired_with_its_sample(case: Case) -> None:
    """BagofTricks averages Remix's λ over the batch; here each λ stays with its sample, as in the twin golden case."""
    twin = BY_NAME[case["name"].removesuffix("_bagoftricks")]
    assert twin["inputs"] == case["inputs"]
    outputs = run(twin)
    check(outputs, twin["expected"], twin["tol"])
    if len(set(case["expected"]["lam_y"])) > 1:
        assert float(outputs["loss"]) != pytest.approx(case["expected"]["loss"], rel=1e-3)


def weight_after_epoch_320(case: Case) -> None:
    late = {**case, "inputs": {**case["inputs"], "drw_epoch": 160, "betas": [0, 0.9999]}, "expected": {"weights": []}}
    weight = torch.tensor(run(late)["weights"])
    torch.testing.assert_close(weight, losses.effective_number_weight(case["inputs"]["class_counts"]))


def last_class_kept(case: Case) -> None:
    assert run(case)["counts"].tolist() == [*case["expected"]["counts"], 10]


def one_class(case: Case) -> None:
    assert run({**case, "expected": {"counts": []}})["counts"].tolist() == [10]


QUIRKS: dict[str, Callable[[Case], None]] = {
    "weights_effective_number/zero_count": refuses(ValueError, "0 images of class 0"),
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
