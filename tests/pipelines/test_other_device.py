"""The commands on a device that is not the CPU, where there is no GPU: one beside the CPU, which computes as it does.

A tensor left behind on the CPU is an error there, as on a GPU, and so is a random number of the wrong generator.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("on_other_device.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("c++") and shutil.which("ninja")), reason="the device is built by c++ and ninja"
    ),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What was done on the CPU, and on the other device."""
    here = tmp_path_factory.mktemp("devices")
    for name in ("cpu", "other", "build"):
        (here / name).mkdir()
    for name in ("cpu", "other"):
        process = subprocess.run(
            [sys.executable, SCRIPT, name, here / name, here / "build"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr[-4000:]
        assert (here / name / "device.txt").read_text().startswith(name)
    return here / "cpu", here / "other"


def test_trainings_end_with_the_weights_of_the_cpu(folders: tuple[Path, Path]) -> None:
    cpu, other = folders
    names = sorted(path.relative_to(cpu) for path in cpu.rglob("model/weights.safetensors"))
    assert len(names) == 15 + 3 + 1
    for name in names:
        expected, found = load_file(cpu / name), load_file(other / name)
        tolerance = 0.05 if "bf16" in name.parts else 1e-4
        for key, value in expected.items():
            torch.testing.assert_close(
                found[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_predictions_are_those_of_the_cpu(folders: tuple[Path, Path]) -> None:
    expected, found = (list(csv.DictReader((folder / "predicted.csv").read_text().splitlines())) for folder in folders)
    assert len(found) == 5
    for one, other in zip(expected, found, strict=True):
        assert Path(one["path"]).name == Path(other["path"]).name
        assert float(other["probability"]) == pytest.approx(float(one["probability"]), abs=0.1)


def test_as_many_synthetic_images_are_made(folders: tuple[Path, Path]) -> None:
    cpu, other = (sorted((folder / "synthetic" / "images").rglob("*.png")) for folder in folders)
    assert len(cpu) > 0
    assert len(other) == len(cpu)
