"""The page on networks: its class trains, is measured and exported from the folder that it is saved in."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from cli import main
from rebalance.backbones import build_backbone

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
(SNIPPET,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
COMMANDS = [line.removeprefix("PYTHONPATH=. ") for line in PAGE.splitlines() if line.startswith("PYTHONPATH=. ")]
QUICK = {
    "train": "--updates 2 --batch-size 16 --report-to none --device cpu --rsg-start 0.5",
    "evaluate": "--device cpu",
}


def test_the_class_of_the_page_is_trained_measured_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(SNIPPET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    assert [line.split()[1] for line in COMMANDS] == ["train", "evaluate"]
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        assert main([*words, *shlex.split(QUICK[words[0]])]) == 0
    run = shlex.split(COMMANDS[-1])[-1]
    assert main(["export", run, "--out", "a.pt2"]) == 0

    monkeypatch.delitem(sys.modules, "nets")
    (tmp_path / "nets.py").unlink()
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert torch.export.load("a.pt2").module()(pixels).shape == (2, 10), "needs neither module nor package"
    capsys.readouterr()
    assert main(["evaluate", run, "--device", "cpu"]) == 2
    assert "No module named 'nets'" in capsys.readouterr().err


def test_every_network_of_the_table_can_be_built() -> None:
    table = PAGE.partition("| name |")[2].partition("Stages are")[0]
    names = set(re.findall(r"`([^`]+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:] if line)))
    for name in names - {"timm/NAME", "transformers", "package.module:Class"}:
        assert build_backbone(name, image_size=32).name == name
