"""Every case of golden/segmentation.json: numbers recorded from the original implementation of region rebalance."""

from __future__ import annotations

from typing import Any

import pytest

from rebalance.losses import RegionRebalanceLoss
from rebalance.region_rebalance import RegionBranch

Golden = Any
"""See the fixture `golden`."""


@pytest.mark.golden("rr_*")
def test_region_rebalance(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    shapes = {name: golden.of(values).shape for name, values in inputs["params"].items()}
    width, channels = shapes["reduce.0.weight"][:2]
    n_classes, hidden = shapes["img_cls.1.weight"]
    branch = RegionBranch(
        channels, n_classes, width=width, hidden=hidden, dropout=0.0, scale=inputs["scale"], frozen=False
    )
    golden.load(branch, "params", str)
    region_loss = RegionRebalanceLoss(inputs["image_level_class_frequency"], label_smoothing=1 - inputs["smooth"])
    maps, labels = golden.tensor("pixel_features", grad=True), golden.ids("seg_label")
    regions = branch(maps, labels)
    loss = inputs["weight"] * region_loss(*regions)
    loss.backward()

    assert regions.targets[regions.present].tolist() == expected["present_classes"]
    golden.close(regions.logits[regions.present], expected["region_logits"])
    golden.close(loss, expected["loss"])
    golden.close(maps.grad, expected["grad_pixel_features"])
    parameters = dict(branch.named_parameters())
    assert parameters.keys() == expected["grad_params"].keys()
    for name, gradient in expected["grad_params"].items():
        golden.close(parameters[name].grad, gradient)

    rows = (regions.logits[regions.present], regions.targets[regions.present])  # as in the original
    golden.close(inputs["weight"] * region_loss(*rows), expected["loss"])
