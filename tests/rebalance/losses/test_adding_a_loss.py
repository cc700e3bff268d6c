"""The page on adding a loss: its pieces are run as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import cli
from pipelines import loss_recipes, loss_terms, recipes
from pipelines.method_list import find_methods
from rebalance import losses

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "adding-a-loss.md").read_text()
LOSS, NAME, TEST, RECIPE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S) for line in block.splitlines()]


@pytest.fixture
def poly(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's loss as `rebalance.losses.poly`, with its name and its recipe, for the length of a test."""
    module = ModuleType("rebalance.losses.poly")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(LOSS, "docs/adding-a-loss.md", "exec"), vars(module))
    monkeypatch.setitem(loss_terms.LOSSES, "poly", None)  # taken out again afterwards
    monkeypatch.setitem(recipes.RECIPES, "poly", None)
    exec(NAME, {**vars(loss_terms), "PolyLoss": module.PolyLoss})  # type: ignore[attr-defined]
    exec(compile(RECIPE, "docs/adding-a-loss.md", "exec"), {**vars(loss_recipes), "RECIPES": recipes.RECIPES})
    return module


def test_the_example_is_not_there_already() -> None:
    assert not any("poly" in name.lower() for name in losses.__all__)
    assert "poly" not in loss_terms.LOSSES


def test_files_that_it_names_are_there() -> None:
    for name in re.findall(r"`([\w/.]+\.(?:py|md))`", PAGE):
        if not re.search("NAME|poly|_counts", name) and name != "CHANGELOG.md":
            assert any((ROOT / folder / name).is_file() for folder in (".", "tests/rebalance/losses")), name


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", TEST, flags=re.M))
def test_its_test_passes(name: str, poly: ModuleType) -> None:
    torch.manual_seed(0)
    space: dict[str, Any] = {**vars(poly)}
    exec(TEST, space)
    space[name]()


def test_its_commands_train(poly: ModuleType, here: Path) -> None:
    assert len(COMMANDS) == 2
    for i, command in enumerate(COMMANDS):
        words = shlex.split(command)[1:]
        quick = f"--updates 2 --model small_cnn --device cpu --report-to none --experiment poly-{i}"
        assert cli.main([*words, *quick.split()]) == 0
        history = (here / f"runs/train/poly-{i}/history.csv").read_text()
        assert "train_poly" in history


def test_its_recipe_trains_and_explains_itself(poly: ModuleType, here: Path) -> None:
    (method,) = find_methods("poly")
    assert method.summary == "Poly-1: cross entropy that presses harder on unsure answers."
    assert [(option.name, option.default, option.help) for option in method.options] == [
        ("eps", 2.0, "ε; 0 is cross entropy.")
    ]
    quick = "--updates 2 --model small_cnn --device cpu --report-to none"
    assert cli.main(f"train digits --method poly -o eps=1 {quick}".split()) == 0
    assert cli.main(f"train digits --method poly -o eps=-2 {quick}".split()) == 2
