"""The whole toolkit in one command: every switch at once, on two ranks, killed and resumed, to the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]
SWITCHES = (
    "--model resnext50_32x4d --stem small --head cosine --rsg --rsg-start 0.5 --loss ldam:0.1 --loss supcon:0.9 "
    "--sampler-rule effective-number --loss-rule inverse --loss-schedule deferred:0.5 "
    "--generator stable-diffusion --mode image --steps 4 --sampling-batch 8 --max-images 16 --skip-gate hash "
    "--synthetic-weight 0.3 --real-share 0.5 --arms ce rebalanced synthetic --seeds 1 "
    "--updates 6 --batch-size 16 --checkpoint-updates 2 --image-size 16 --report-to none --device cpu"
)
COUNTS = {"zero": 24, "one": 16, "two": 10, "three": 6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as image folders, long-tailed, with a test split."""
    root = tmp_path_factory.mktemp("digits") / "numbers"
    images, targets = load_digits(return_X_y=True)
    for label, (name, n_train) in enumerate(COUNTS.items()):
        for i, pixels in enumerate(images[targets == label][: n_train + 8]):
            folder = root / ("train" if i < n_train else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype("uint8")).resize((16, 16))
            image.save(folder / f"{i}.png")
    return root


def start(photos: Path, folder: Path) -> subprocess.Popen[str]:
    checkpoint = str(ROOT / "tests" / "assets" / "tiny_sd")
    command = ["-m", "cli", "run", str(photos), *SWITCHES.split(), "--checkpoint", checkpoint]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_switch_at_once_on_two_ranks_killed_and_resumed(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run" / "numbers-composed"
    process = start(photos, tmp_path)
    while not list(run.glob("arms/rebalanced/seed-0/checkpoints/last.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / "metrics.json").exists()

    process = start(photos, tmp_path)
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["arms"]) == {"ce", "rebalanced", "synthetic"}
    assert "What helped" in (run / "report.html").read_text()
    arm = run / "arms" / "synthetic" / "seed-0"
    config = yaml.safe_load((arm / "config.yaml").read_text())
    assert config["model"]["model"] == "resnext50_32x4d"
    assert config["objective"]["rsg"] is True
    figures = json.loads((arm / "metrics.json").read_text())
    assert figures["updates"] == 6
    assert sum(figures["synthetic_counts"]) == json.loads((run / "synthesis" / "metrics.json").read_text())["kept"] > 0
    description = json.loads((run / "model" / "model.json").read_text())
    assert description["head"] == "cosine"
