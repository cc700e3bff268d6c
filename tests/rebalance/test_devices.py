from __future__ import annotations

import pytest
import torch

from rebalance.devices import kept_random_state, pick_device
from rebalance.errors import InputError


def test_names_of_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a device of this machine; got"):
        pick_device(name)


def test_the_random_state_is_put_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with kept_random_state(torch.device("cpu")):
        torch.manual_seed(9)
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


def test_a_device_without_float64_is_refused() -> None:
    with pytest.raises(InputError, match="a device with float64: cpu or cuda; got 'mps'"):
        pick_device("mps")
