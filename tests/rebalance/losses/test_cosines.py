"""Who gives logits to a loss of cosines is told, once, and where nobody has to wait for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import pytest
import torch
from torch import Tensor, nn

from rebalance import losses
from rebalance.losses import _cosines

COSINES = torch.tensor([[1.0, -1.0], [0.5, 0.0]])
TARGETS = torch.tensor([0, 1])
SAID = r"expected cosines in [-1, 1], of a cosine head without a scale; got scores from -3 to 3; put rebalance.heads."
Call = Callable[[Tensor], Tensor]
CALLS: dict[str, Call] = {
    "ldam": lambda scores: losses.LDAMLoss([9, 1])(scores, TARGETS),
    "arcface": lambda scores: losses.ArcFaceLoss()(scores, TARGETS),
    "cosface": lambda scores: losses.CosFaceLoss()(scores, TARGETS),
    "sphereface": lambda scores: losses.SphereFaceLoss()(scores, TARGETS, torch.ones(2)),
}


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cosines, "_told", Event())


@pytest.mark.parametrize("name", CALLS)
def test_logits_are_told_of_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    CALLS[name](COSINES * 1.01)
    assert caplog.text == ""
    for _ in range(3):
        CALLS[name](3 * COSINES)
    assert caplog.text.count(SAID) == 1


def test_cosines_that_the_head_has_scaled_are_as_they_should_be(caplog: pytest.LogCaptureFixture) -> None:
    losses.LDAMLoss([9, 1], prescaled=True)(30 * COSINES, TARGETS)
    assert caplog.text == ""


def test_the_values_of_another_device_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "aminmax", lambda _: pytest.fail("its values were asked for"))
    _cosines.tell_of_logits(3 * COSINES.to("meta"))


def test_compiled_and_mapped_calls_go_unwatched(caplog: pytest.LogCaptureFixture) -> None:
    module: nn.Module = losses.LDAMLoss([9, 1])
    torch.compiler.reset()
    torch.compile(module, fullgraph=True, backend="eager")(3 * COSINES, TARGETS)
    each = torch.func.vmap(lambda scores, target: module(scores[None], target[None]))(3 * COSINES, TARGETS)
    assert "expected cosines" not in caplog.text
    torch.testing.assert_close(each, module(3 * COSINES, TARGETS, reduction="none"))


def test_no_row_is_nothing_to_tell_of(caplog: pytest.LogCaptureFixture) -> None:
    losses.ldam_loss(COSINES[:0], TARGETS[:0], torch.ones(2), reduction="sum")
    assert caplog.text == ""
