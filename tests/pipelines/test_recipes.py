"""Every recipe in every mode: saved and loaded, bf16, killed and resumed, averaged, synthetic images, ranks.

The images are noise of 8 px and trainings have four updates, in which every phase of a recipe occurs. A core runs in
the normal tests, the rest is slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pipelines import (
    MixingConfig,
    ObjectiveConfig,
    OptimizationConfig,
    TrainConfig,
    load_model,
)
from pipelines.config_files import to_dict
from pipelines.history import History
from pipelines.loop import Step, training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import build_optimizer
from pipelines.preparation import Prepared, prepare_training
from pipelines.recipes import RECIPES
from pipelines.runs import RunFolder
from pipelines.session import start_session
from pipelines.training import train_in
from pipelines.training_run import TrainingRun
from rebalance.methods.base import Batch

Config = Callable[..., TrainConfig]
"""See the fixture `recipe_config`."""
COUNTS = (24, 12, 6, 4)
UPDATES = 4
CORE = (
    "balanced_mixup",
    "ldam_drw",
    "sphereface",
    "mixup_drw",
    "supcon",
    "rsg",
    "paco",
    "bcl",
    "reslt",
    "autoencoder",
    "composed",
)
OWN_LOSSES = ("cesc", "mv")
"""Losses of the rare-feature generator, which no sample weight scales."""


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise as synthetic images of the two rare classes."""
    folder, stream = tmp_path_factory.mktemp("synthetic"), np.random.default_rng(2)
    for number, pixels in enumerate(stream.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)):
        target = folder / "cd"[number % 2]
        target.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(target / f"{number}.png")
    return folder


def prepared(config: Config, name: str, opened: OpenData, **changes: Any) -> Prepared:
    return prepare_training(config(name, **changes), opened, torch.device("cpu"))


def steps(parts: Prepared, optimization: OptimizationConfig) -> Iterator[Step]:
    method = parts.method
    optimizer = build_optimizer(method, optimization, method.learning_rate_factors)
    return training_steps(method, method, optimizer, parts.data, parts.batches, optimization, seed=0)


def state_of(folder: Path) -> dict[str, bytes]:
    """The last checkpoint and the model of a run, file by file."""
    files = [*folder.glob("checkpoints/update_*/*.safetensors"), folder / "model" / "weights.safetensors"]
    return {file.name: file.read_bytes() for file in files}


def images(n: int = 5) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# The modes. Each takes the settings of every recipe, and the recipe's name.


def saved_and_loaded(config: Config, name: str, opened: OpenData, folder: Path) -> None:
    """What was trained is what comes back, without anything that only training needs."""
    settings = config(name)
    session = start_session("cpu")
    parts = prepare_training(settings, opened, session.device)
    before = {key: value.clone() for key, value in parts.method.classifier.state_dict().items()}
    with RunFolder(folder, "train", settings) as run:
        metrics = TrainingRun(settings, opened, parts, session, run).run()
    after = parts.method.classifier.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == set(before)
    assert metrics["updates"] == UPDATES
    assert metrics["test"]["support"] == [3, 3, 3, 3]
    model = load_model(folder)
    with torch.no_grad():
        expected = parts.method.eval().predict(images())
        assert torch.equal(model.classifier(images()), expected)
        assert expected.shape == (5, 4)
        assert torch.equal(model.classifier(images()[:1])[0].argmax(), expected[0].argmax())


def in_bf16(config: Config, name: str, opened: OpenData, folder: Path) -> None:
    """The first losses are those of float32 to bf16's three digits; weights stay float32; the rest is finite."""
    terms = {}
    for amp in ("no", "bf16"):
        parts = prepared(config, name, opened, optimization={"amp": amp})
        run = list(steps(parts, OptimizationConfig(updates=UPDATES, batch_size=16, warmup_epochs=0.0, amp=amp)))
        terms[amp] = {key: float(value) for key, value in run[0].terms.items()}
        assert all(bool(torch.isfinite(value)) for step in run for value in step.terms.values())
        assert {p.dtype for p in parts.method.parameters()} == {torch.float32}
        assert all(bool(torch.isfinite(p).all()) for p in parts.method.parameters())
    assert terms["bf16"] == pytest.approx(terms["no"], rel=0.03, abs=1e-3)


def killed_and_resumed(config: Config, name: str, opened: OpenData, folder: Path, **changes: Any) -> None:
    """Networks, queues, memories and optimiser end to the bit like those of an undisturbed run."""
    add = History.add

    def add_or_stop(self: History, step: Step) -> None:
        if step.update == 3:
            raise KeyboardInterrupt
        add(self, step)

    settings = config(name, **changes)
    whole = train_in(folder / "whole", settings, opened)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            train_in(folder / "broken", settings, opened)
    assert (folder / "broken" / "checkpoints" / "update_0000002").is_dir()
    resumed = train_in(folder / "broken", settings, opened)
    assert resumed.metrics == whole.metrics
    assert state_of(resumed.folder) == state_of(whole.folder)


def averaged(config: Config, name: str, opened: OpenData, folder: Path) -> None:
    """The average of the weights is what is evaluated and saved."""
    settings = config(name, optimization={"model_ema": 0.9})
    result = train_in(folder, settings, opened)
    (checkpoint,) = folder.glob("checkpoints/update_*")
    average = {
        key.removeprefix("average."): value for key, value in load_file(checkpoint / "average.safetensors").items()
    }
    model = load_model(folder).classifier.state_dict()
    assert all(torch.equal(value, average[key]) for key, value in model.items())
    trained = load_file(checkpoint / "method.safetensors")
    own = next(key for key in trained if key.endswith("backbone.stages.0.0.weight") and "key_encoder" not in key)
    assert not torch.equal(trained[own], average["backbone.stages.0.0.weight"])
    assert result.metrics["selected"] == {"by": "averaged weights at the last epoch"}


def sharpness_aware(config: Config, name: str, opened: OpenData, folder: Path) -> None:
    """The first loss, and all that is counted or queued, are those of plain training; other weights come of it."""
    runs = []
    for sam in (None, 0.1):
        parts = prepared(config, name, opened)
        run = list(steps(parts, config(name, optimization={"sam": sam}).optimization))
        runs.append((parts.method, run))
    (plain, plain_run), (sharp, sharp_run) = runs
    assert sharp_run[0].terms == plain_run[0].terms
    weights = dict(plain.named_parameters())
    assert all(bool(torch.isfinite(p).all()) for p in sharp.parameters())
    assert any(not torch.equal(p, weights[key]) for key, p in sharp.named_parameters())
    buffers = dict(plain.named_buffers())
    for key, buffer in sharp.named_buffers():
        assert buffer.is_floating_point() or torch.equal(buffer, buffers[key]), key


def with_synthetic_images(config: Config, name: str, opened: OpenData, folder: Path, synthetic: Path) -> None:
    """Synthetic images take part; and the loss is linear in the weights of the samples."""
    mixing = MixingConfig(real_share=0.5, synthetic_weight=0.3, real_only_last=0.25, kappa=0.5)
    result = train_in(folder, config(name, synthetic=synthetic, mixing=mixing), opened)
    assert result.metrics["train_counts"] == list(COUNTS)
    assert result.metrics["synthetic_counts"] == [0, 0, 6, 6]
    parts = prepared(config, name, opened, synthetic=synthetic, mixing=mixing)
    rows = next(parts.batches.from_update(0))[1]
    assert sorted(set(parts.data.weight[rows].tolist())) == pytest.approx([0.3, 1.0])
    weights = torch.rand(2, len(rows), generator=torch.Generator().manual_seed(1))
    for progress in (0.0, 0.9):
        one, other, both = (weighted_terms(parts, rows, w, progress) for w in (*weights, weights.sum(0)))
        for key in both.keys() - OWN_LOSSES:
            torch.testing.assert_close(both[key], one[key] + other[key], rtol=1e-4, atol=1e-5)


def weighted_terms(parts: Prepared, rows: Any, weight: Tensor, progress: float) -> dict[str, Tensor]:
    """Loss terms of a batch with these sample weights, everything else the same."""
    method, data = deepcopy(parts.method), parts.data
    uniforms = data.augment.draw(len(rows), torch.Generator().manual_seed(0))
    batch: Batch = data.batch(data.store.get(rows), rows, uniforms, False)
    torch.manual_seed(0)
    method.before_step(progress)
    terms = method(batch._replace(weight=weight), torch.tensor(progress))
    return {key: value.detach() for key, value in terms.items()}


MODES: dict[str, Callable[..., None]] = {
    "saved": saved_and_loaded,
    "bf16": in_bf16,
    "resumed": killed_and_resumed,
    "averaged": averaged,
    "sam": sharpness_aware,
    "synthetic": with_synthetic_images,
}


def crossed() -> Iterator[Any]:
    for mode in MODES:
        core = {"saved": tuple(RECIPES), "sam": tuple(RECIPES)}.get(mode, CORE)
        for name in RECIPES:
            yield pytest.param(mode, name, marks=[] if name in core else [pytest.mark.slow], id=f"{mode}-{name}")


@pytest.mark.parametrize(("mode", "name"), list(crossed()))
def test_every_recipe_works_in_every_mode(
    mode: str, name: str, recipe_config: Config, recipe_data: OpenData, synthetic: Path, tmp_path: Path
) -> None:
    if mode == "synthetic":
        MODES[mode](recipe_config, name, recipe_data, tmp_path, synthetic)
    else:
        MODES[mode](recipe_config, name, recipe_data, tmp_path)


@pytest.mark.parametrize("name", ["sphereface", "paco", "gpaco", "autoencoder"])
def test_a_sharpness_aware_training_that_was_killed_goes_on(
    name: str, recipe_config: Config, recipe_data: OpenData, tmp_path: Path
) -> None:
    settings = {"sam": 0.1, "sam_from": 0.25, "grad_accum_steps": 2, "model_ema": 0.9}
    killed_and_resumed(recipe_config, name, recipe_data, tmp_path, optimization=settings)


@pytest.mark.parametrize(
    "names", [pytest.param(CORE, id="core"), pytest.param(tuple(RECIPES), marks=pytest.mark.slow, id="all")]
)
def test_two_ranks_have_the_same_network_and_queue(
    names: tuple[str, ...], recipe_config: Config, recipe_data: OpenData, tmp_path: Path
) -> None:
    config, table = recipe_config, recipe_data.splits.train
    teacher = train_in(tmp_path / "teacher", config("ce"), recipe_data).folder / "model"
    np.savez(tmp_path / "images.npz", images=table.images, targets=table.targets)
    configs = {name: config(name) for name in names}
    sharp = {"sam": 0.1, "grad_accum_steps": 2}
    configs |= {f"{name} --sam": config(name, optimization=sharp) for name in ("sphereface", "paco", "autoencoder")}
    configs["taught"] = replace(config("balanced_mixup"), objective=ObjectiveConfig(teacher=teacher))
    (tmp_path / "configs.json").write_text(json.dumps({name: to_dict(one) for name, one in configs.items()}))
    script = str(Path(__file__).parent / "recipes_on_ranks.py")
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    one, other = json.loads((tmp_path / "result.json").read_text())
    assert list(one) == list(configs)
    for name in configs:
        assert one[name] == other[name], name
        assert len(one[name]["loss"]) == UPDATES
        assert np.isfinite(one[name]["loss"]).all(), name
