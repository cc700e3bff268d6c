"""The cases of golden/modules.json and golden/segmentation.json, recorded from the original implementations."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@cache
def cases() -> dict[str, dict[str, Any]]:
    folder = Path(__file__).parents[1] / "golden"
    files = [json.loads((folder / name).read_text()) for name in ("modules.json", "segmentation.json")]
    return {case["name"]: case for file in files for case in file["cases"]}


class Golden:
    """One case: its inputs as tensors of its dtype, and comparison at its tolerance."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.case = cases()[name]
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

    def load(self, module: nn.Module, key: str, renamed: Callable[[str], str]) -> dict[str, str]:
        """Loads the case's parameters; returns the module's name of each."""
        ours = {name: renamed(name) for name in self.inputs[key]}
        state = {ours[name]: self.of(values) for name, values in self.inputs[key].items()}
        missing = module.to(self.dtype).load_state_dict(state, strict=False)
        assert not missing.unexpected_keys
        assert not {name for name, _ in module.named_parameters()} & set(missing.missing_keys)
        return ours


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The case that a test is about; `pytest.mark.golden` says of which."""
    return Golden(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `golden` every case that fits a pattern of the test's `@pytest.mark.golden(PATTERN, …, without=PATTERN)`."""
    for marker in metafunc.definition.iter_markers("golden"):
        without = marker.kwargs.get("without", "")
        found = [
            name for pattern in marker.args for name in cases() if fnmatch(name, pattern) and not fnmatch(name, without)
        ]
        assert found, f"no case fits {marker.args}"
        metafunc.parametrize("golden", found, indirect=True)
