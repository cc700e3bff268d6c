"""Two CPU ranks under torchrun: equal weights, every drawn row once, exact figures, resuming, and a killed launcher."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipelines import (
    DataConfig,
    RebalanceConfig,
    SynthesizeConfig,
    rebalance_and_train,
    rebalancing,
    synthesis,
    synthesize,
)

ROOT = Path(__file__).parents[2]
TRAIN = "--model small_cnn --report-to none --device cpu --batch-size 64 --checkpoint-updates 5".split()


class StartedError(Exception):
    """A session was asked for."""


def torchrun(arguments: Sequence[str], folder: Path, n_ranks: int = 2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_ranks), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rebalance(*arguments: str) -> list[str]:
    """The command line as torchrun starts it."""
    return ["-m", "cli", *arguments]


def finish(process: subprocess.Popen[str], timeout: float = 500) -> str:
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("module", "start"),
    [
        (synthesis, lambda: synthesize(SynthesizeConfig(data=DataConfig(data="digits")))),
        (rebalancing, lambda: rebalance_and_train(RebalanceConfig(data=DataConfig(data="digits")))),
    ],
    ids=["synthesize", "run"],
)
def test_ranks_wait_for_the_one_that_judges(
    module: ModuleType, start: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, patient: bool = False, **__: object) -> None:
        raise StartedError(patient)

    monkeypatch.setattr(module, "start_session", ask)
    with pytest.raises(StartedError) as started:
        start()
    assert started.value.args == (True,)


@pytest.mark.parametrize("n_train", [1000, 961])
def test_ranks_agree_and_train_every_drawn_row_once(n_train: int, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    script = str(Path(__file__).parent / "two_ranks.py")
    n_epochs = 2
    updates = n_epochs * {1000: 16, 961: 15}[n_train]
    finish(torchrun([script, str(output), str(n_train), str(updates)], tmp_path))
    result = json.loads(output.read_text())
    one, other = result["ranks"]
    assert result["per_epoch"] * n_epochs == one["steps"] == other["steps"] == updates
    assert one["parameters"] == other["parameters"]
    assert one["state"] == other["state"]
    assert Counter(one["seen"] + other["seen"]) == dict.fromkeys(range(n_train), n_epochs)


def test_command_line_under_torchrun_speaks_once_and_judges_each_image_once(tmp_path: Path) -> None:
    arguments = rebalance("train", "digits", "--method", "balanced_softmax", "--updates", "14", *TRAIN)
    output = finish(torchrun(arguments, tmp_path))
    assert output.count("run folder:") == 1
    metrics = json.loads((tmp_path / "runs/train/digits-balanced_softmax/metrics.json").read_text())
    assert metrics["test"]["n_images"] == 697


PREDICTING = """
import sys
from pathlib import Path
from pipelines import EvaluateConfig, PredictConfig, evaluate, predict
from pipelines.session import end_session

run, data = map(Path, sys.argv[1:])
shared = {"run": run, "skip_corrupt": True, "batch_size": 5, "device": "cpu"}
evaluate(EvaluateConfig(**shared, data=str(data), predictions=Path("judged.csv")))
made = predict(PredictConfig(**shared, images=(data,), out=Path("predicted.csv"), top=2))
assert len(made.paths) == 37 and len(made.skipped) == 3
end_session()
"""


def test_predictions_of_two_ranks_are_those_of_one(photos: Path, untrained: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, other in zip("abcd", sorted((photos / "test").iterdir()), strict=True):
        shutil.copytree(other, data / name)
    for row in (2, 17, 18):
        sorted(data.rglob("*.jpg"))[row].write_bytes(b"broken")
    (tmp_path / "predicting.py").write_text(PREDICTING)
    found = []
    for n in (1, 2):
        finish(torchrun(["predicting.py", str(untrained), str(data)], tmp_path, n))
        tables = [(tmp_path / name).read_text().splitlines() for name in ("judged.csv", "predicted.csv")]
        found.append([[_numbers_apart(line) for line in lines] for lines in tables])
    for one, two in zip(*found, strict=True):
        assert len(one) == 38
        assert [words for words, _ in one] == [words for words, _ in two]
        np.testing.assert_allclose([numbers for _, numbers in one[1:]], [numbers for _, numbers in two[1:]], rtol=1e-4)


def _numbers_apart(line: str) -> tuple[list[str], list[float]]:
    parts = line.split(",")
    numbers = [part for part in parts if re.fullmatch(r"[\d.e-]+", part)]
    return [part for part in parts if part not in numbers], [float(number) for number in numbers]


def test_killed_launcher_leaves_no_rank_writing_and_the_run_goes_on(tmp_path: Path) -> None:
    arguments = rebalance("train", "digits", "--method", "ce", "--updates", "60", *TRAIN)
    finish(torchrun([*arguments, "--experiment", "whole"], tmp_path))
    process = torchrun([*arguments, "--experiment", "killed"], tmp_path)
    last = tmp_path / "runs/train/killed/checkpoints/last.json"
    while not last.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in ranks):
        assert time.monotonic() < deadline, "a rank goes on without its launcher"
        time.sleep(0.1)
    process.communicate()
    finish(torchrun([*arguments, "--experiment", "killed"], tmp_path))
    files = [tmp_path / "runs/train" / name / "model/weights.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_synthesis_gives_the_same_files_on_two_ranks_and_on_one(photos: Path, tmp_path: Path) -> None:
    """Given the same generator; training it on two ranks adds gradients in another order.

    Its objective is the hardest for ranks: two passes over a batch, then one gradient.
    """
    arguments = rebalance(
        *("synthesize", str(photos), "--device", "cpu", "--max-images", "24", "--skip-gate", "distance"),
        *"--generator-updates 6 --generator-batch-size 8 --generator-channels 8 16".split(),
        *"--generator-objective cbdm --steps 2 --sampling-batch 8 --feature-updates 4 --out".split(),
    )
    finish(torchrun([*arguments, "two"], tmp_path))
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for name in ("candidates", "images", "journals", "contact_sheets"):
        shutil.rmtree(tmp_path / "one" / name)
    (tmp_path / "one" / "metrics.json").unlink()
    finish(torchrun([*arguments, "one"], tmp_path, n_ranks=1))
    for name in ("manifest.jsonl", "metrics.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for file in (tmp_path / "two" / "images").rglob("*.png"):
        assert (tmp_path / "one" / file.relative_to(tmp_path / "two")).read_bytes() == file.read_bytes()


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


def is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
