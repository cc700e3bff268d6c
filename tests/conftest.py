"""What several tests share: a folder of photographs, and settings that make every command quick."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pipelines.open_data import OpenData

TRAIN_COUNTS = {"круг": 40, "two words": 16, "f.o.u.r": 7, "tail": 3}
"""Classes of the photographs, long-tailed, with names as people give them."""
TEST_COUNT = 10


def draw_photo(label: int, number: int, size: int) -> Image.Image:
    """A picture of class `label`: a bright shape whose place, size and colour vary with `number`."""
    stream = np.random.default_rng([label, number])
    rows, columns = np.mgrid[:size, :size] / size - 0.5 - stream.uniform(-0.1, 0.1, (2, 1, 1))
    radius = stream.uniform(0.2, 0.35)
    shapes = [
        np.hypot(rows, columns) < radius,
        np.maximum(abs(rows), abs(columns)) < radius,
        abs(rows) < radius / 2,
        abs(rows - columns) < radius / 2,
    ]
    pixels = stream.uniform(0, 60, (size, size, 3))
    pixels[shapes[label]] += stream.uniform(120, 190, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder train/<class>/*.jpg, test/<class>/*.jpg; not to be changed."""
    root = tmp_path_factory.mktemp("photos") / "my photos"
    for label, (name, n_train) in enumerate(TRAIN_COUNTS.items()):
        for split, n, first in (("train", n_train, 0), ("test", TEST_COUNT, 1000)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(first, first + n):
                draw_photo(label, number, 16 + number % 3).save(folder / f"{number}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def noise() -> OpenData:
    """Noise of 8 px, decoded, in four classes of 24, 12, 6 and 4 images; not to be changed."""
    import torch

    from pipelines import DataConfig
    from pipelines.open_data import open_data
    from rebalance.data.table import ImageTable, Splits

    targets = np.repeat(np.arange(4), (24, 12, 6, 4))
    images = np.random.default_rng(0).integers(0, 256, (len(targets), 8, 8, 3), dtype=np.uint8)
    splits = Splits(ImageTable(images, targets, tuple("abcd")))
    return open_data(DataConfig(data="made", image_size=8), torch.device("cpu"), splits)


@pytest.fixture(scope="session")
def untrained(noise: OpenData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a classifier of `noise` that has learnt nothing; not to be changed."""
    from pipelines import TrainConfig
    from pipelines.model_files import build_classifier, save_model
    from pipelines.objective import build_objective

    counts = noise.train.table.counts.astype(float)
    _, description = build_objective(TrainConfig(data=noise.config), noise, counts, counts / counts.sum())
    folder = tmp_path_factory.mktemp("untrained")
    save_model(folder, build_classifier(description), description)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where runs go to `runs/`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _quiet_logging() -> Iterator[None]:
    """Leave no handlers of the command line behind."""
    from pipelines.console import log

    yield
    log.handlers = []
    log.propagate = True
    log.setLevel(logging.NOTSET)


Start = Callable[[Sequence[str], Path], subprocess.Popen[str]]


@pytest.fixture(scope="session")
def start() -> Start:
    """Start `rebalance ARGUMENTS` as a process of its own, in a folder."""

    def run(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture
def on_two_ranks(tmp_path: Path) -> Callable[[str], None]:
    """Run a program on two ranks, which is told its rank and the file to meet at; both have to end well."""

    def run(program: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        ranks = [
            subprocess.Popen([sys.executable, "-c", program, str(rank), str(tmp_path / "store")], env=environment)
            for rank in range(2)
        ]
        try:
            assert [rank.wait(timeout=400) for rank in ranks] == [0, 0]
        finally:
            for rank in ranks:
                rank.kill()

    return run


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model of random weights and 16 px, with a tokenizer that tells letters apart; not to be changed."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip") / "tiny_clip"
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,")
    tokens = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**layers, **ends, "vocab_size": len(tokens)},
        vision_config={**layers, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder
