"""The page on parts for one's own loop: its snippet runs, learns, and names what there is."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from rebalance.data.augmentation import normalize, parse_augmentation
from rebalance.data.digits import read_digits

PAGE = (Path(__file__).parents[2] / "docs" / "own-loop.md").read_text()


def test_the_snippet_runs_and_learns() -> None:
    digits = read_digits()
    assert digits.test is not None
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    names: dict[str, Any] = {
        "images": torch.from_numpy(digits.train.images).permute(0, 3, 1, 2),  # type: ignore[arg-type]  # an array
        "targets": torch.from_numpy(digits.train.targets),
        "epochs": 6,
    }
    torch.manual_seed(0)
    exec(compile(snippet, "own-loop.md", "exec"), names)
    assert names["update"] == 6 * 9
    test = torch.from_numpy(digits.test.images).permute(0, 3, 1, 2)  # type: ignore[arg-type]  # an array
    with torch.no_grad():
        found = names["classifier"](normalize(test, names["mean"], names["std"])).argmax(dim=1)
    assert float((found == torch.from_numpy(digits.test.targets)).double().mean()) > 0.8


def test_the_table_names_what_there_is() -> None:
    for name in re.findall(r"^\| `(rebalance\.\w+(?:\.\w+)*)`", PAGE, flags=re.M):
        import_module(name)
    mixing = import_module("rebalance.mixing")
    assert all(hasattr(mixing, name) for name in ("remix", "cutmix", "sample_tail_partners"))
    parse_augmentation("crop+flip+autoaugment+cutout", image_size=32)
