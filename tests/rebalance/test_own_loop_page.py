"""The page on parts for one's own loop: its snippets run, learn, and it names what there is."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rebalance import losses
from rebalance.data.augmentation import normalize, parse_augmentation
from rebalance.data.digits import read_digits

PAGE = (Path(__file__).parents[2] / "docs" / "own-loop.md").read_text()
FIRST, LDAM, BCL = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def run(snippet: str, *, epochs: int, long_tailed: bool) -> tuple[dict[str, Any], float]:
    """What the snippet leaves behind on digits, and its accuracy on the test images."""
    digits = read_digits()
    assert digits.test is not None
    targets = digits.train.targets
    rows = np.arange(len(targets))
    if long_tailed:
        rows = np.concatenate([np.flatnonzero(targets == label)[: 110 - 10 * label] for label in range(10)])
    names: dict[str, Any] = {
        "images": torch.from_numpy(digits.train.images[rows]).permute(0, 3, 1, 2),  # type: ignore[index]  # an array
        "targets": torch.from_numpy(targets[rows]),
        "epochs": epochs,
    }
    torch.manual_seed(0)
    exec(compile(snippet, "own-loop.md", "exec"), names)
    test = torch.from_numpy(digits.test.images).permute(0, 3, 1, 2)  # type: ignore[arg-type]  # an array
    with torch.no_grad():
        found = names["classifier"](normalize(test, names["mean"], names["std"])).argmax(dim=1)
    return names, float((found == torch.from_numpy(digits.test.targets)).double().mean())


def test_the_snippet_of_all_parts_runs_and_learns() -> None:
    names, accuracy = run(FIRST, epochs=6, long_tailed=False)
    assert names["update"] == 6 * 9
    assert accuracy > 0.8


def test_the_snippet_of_ldam_learns_and_weighs_classes_in_its_last_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[Tensor] = []
    make = losses.LDAMLoss

    def watched(*counts: Any, **options: Any) -> losses.LDAMLoss:
        weights.append(torch.as_tensor(options["weight"]))
        return make(*counts, **options)

    monkeypatch.setattr(losses, "LDAMLoss", watched)
    _, accuracy = run(LDAM, epochs=10, long_tailed=True)
    assert [bool((weight == 1).all()) for weight in weights] == [True] * 8 + [False] * 2
    assert weights[-1][9] > 5 * weights[-1][0]
    assert accuracy > 0.6


def test_the_snippet_of_bcl_learns_from_three_views() -> None:
    names, accuracy = run(BCL.replace("strong,sim,sim", "crop+cutout,crop,crop"), epochs=8, long_tailed=True)
    assert names["views"].shape[1] == 3
    assert accuracy > 0.6
    run(BCL, epochs=1, long_tailed=True)


def test_the_table_names_what_there_is() -> None:
    for name in re.findall(r"^\| `(rebalance\.\w+(?:\.\w+)*)`", PAGE, flags=re.M):
        import_module(name)
    mixing = import_module("rebalance.mixing")
    assert all(hasattr(mixing, name) for name in ("remix", "cutmix", "sample_tail_partners"))
    parse_augmentation("crop+flip+autoaugment+cutout", image_size=32)
