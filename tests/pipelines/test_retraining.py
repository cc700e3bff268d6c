"""Second stages: what each leaves, what it goes on from, and that it goes on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from pipelines import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    RetrainConfig,
    evaluate,
    load_model,
    rebalance_and_train,
    retrain,
)
from pipelines.history import History
from pipelines.loading import load_splits
from pipelines.second_stages import SECOND_STAGES
from rebalance.data.augmentation import normalize
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

UPDATES = 6
TRAINED = ("crt", "lws", "linear", "label_aware_smoothing")
SHIFTED = ("crt", "lws", "label_aware_smoothing")
"""Whose batch-norm statistics move."""


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def logits(run: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        return load_model(run).classifier(images)


def images(n: int = 8) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_a_second_stage_is_a_run_of_its_own(
    retrain_config: Callable[..., RetrainConfig], method: str, plain_stage: Path, tmp_path: Path
) -> None:
    result = retrain(retrain_config(plain_stage, method, tmp_path))
    assert result.folder == tmp_path / "retrain" / f"first-ce-{method}"
    assert (result.folder / "first_stage.yaml").read_text() == (plain_stage / "config.yaml").read_text()
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics == result.metrics
    assert (metrics["method"], metrics["first_stage"]) == (method, str(plain_stage))
    assert metrics["updates"] == (UPDATES if method in TRAINED else 0)
    assert (result.folder / "history.csv").exists()
    again = evaluate(EvaluateConfig(run=result.folder, device="cpu"))
    assert again["confusion"] == metrics["test"]["confusion"]
    assert again["n_images"] == 697


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_the_backbone_stays_as_it_is(
    retrain_config: Callable[..., RetrainConfig], method: str, plain_stage: Path, tmp_path: Path
) -> None:
    """Its parameters always; its batch-norm statistics unless they are to follow the draws."""
    before, after = weights(plain_stage), weights(retrain(retrain_config(plain_stage, method, tmp_path)).folder)
    moved = {name for name in before if name.startswith("backbone.") and not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert moved == (statistics if method in SHIFTED else set())


def test_sharpness_is_that_of_the_head_and_moves_statistics_as_without(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    without, sharp = (
        weights(retrain(retrain_config(plain_stage, "crt", tmp_path / folder, **changes)).folder)
        for folder, changes in (("without", {}), ("sharp", {"sam": 0.5}))
    )
    assert {name for name in without if not torch.equal(without[name], sharp[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("method", "options"), [("tau_norm", ("tau=0", "use_bias=true")), ("logit_adjustment", ("tau=0",))]
)
def test_no_strength_changes_nothing(
    retrain_config: Callable[..., RetrainConfig],
    method: str,
    options: tuple[str, ...],
    plain_stage: Path,
    tmp_path: Path,
) -> None:
    result = retrain(retrain_config(plain_stage, method, tmp_path, *options))
    assert torch.equal(logits(result.folder, images()), logits(plain_stage, images()))
    assert result.metrics["tau_by"] == "as given"


def test_adjustment_takes_the_log_prior_off(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    counts = torch.tensor(json.loads((plain_stage / "classes.json").read_text())["train_counts"]).double()
    found = logits(retrain(retrain_config(plain_stage, "logit_adjustment", tmp_path, "tau=0.7")).folder, images())
    expected = logits(plain_stage, images()) - (0.7 * (counts / counts.sum()).log()).float()
    torch.testing.assert_close(found, expected)


def test_scales_leave_the_direction_of_class_vectors(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    before, after = weights(plain_stage), weights(retrain(retrain_config(plain_stage, "lws", tmp_path, lr=0.05)).folder)
    cosines = F.cosine_similarity(before["head.weight"], after["head.weight"])
    torch.testing.assert_close(cosines, torch.ones(10))
    factors = after["head.weight"].norm(dim=1) / before["head.weight"].norm(dim=1)
    torch.testing.assert_close(after["head.bias"], factors * before["head.bias"])
    assert factors.min() < 0.99 or factors.max() > 1.01


def test_class_means_are_those_of_the_training_images(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    result = retrain(retrain_config(plain_stage, "ncm", tmp_path, "transform=un"))
    model, table = load_model(plain_stage), load_splits(DataConfig(data="digits")).train
    features = model.classifier.backbone(model_inputs(model, table)).detach()
    for label in range(10):
        rows = torch.from_numpy(table.targets == label)
        torch.testing.assert_close(weights(result.folder)["head.means"][label], features[rows].mean(0))


def model_inputs(model: Any, table: ImageTable) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in table.images]))
    return normalize(pixels.permute(0, 3, 1, 2), model.mean, model.std)


def test_supcon_pretraining_gets_a_classifier(
    train_first_stage: Callable[..., Path],
    retrain_config: Callable[..., RetrainConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = train_first_stage(tmp_path, "supcon", updates=60, objective={"option": ("share=1",)})
    assert "there is no classification loss" in caplog.text
    settings = retrain_config(run, "linear", tmp_path)
    result = retrain(replace(settings, optimization=replace(settings.optimization, updates=40)))
    assert result.metrics["test"]["balanced_accuracy"] > 0.5


def test_a_pipeline_is_gone_on_from_where_its_model_came_from(
    retrain_config: Callable[..., RetrainConfig], photos: Path, tmp_path: Path
) -> None:
    pipeline = rebalance_and_train(
        RebalanceConfig(
            data=DataConfig(data=str(photos)),
            model=ModelConfig(model="small_cnn"),
            optimization=OptimizationConfig(updates=3, batch_size=16),
            arms=("ce", "rebalanced"),
            seeds=1,
            select="ce",
            place=PlaceConfig(device="cpu", report_to="none", output=tmp_path, experiment="whole"),
        )
    )
    result = retrain(retrain_config(pipeline.folder, "crt", tmp_path))
    assert result.folder.name == "whole-ce-seed-0-crt"
    assert result.metrics["first_stage"] == str(pipeline.folder / "arms" / "ce" / "seed-0")
    assert result.metrics["classes"] == ["f.o.u.r", "tail", "two words", "круг"]


def test_averaged_scales_are_saved_as_a_plain_head(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    result = retrain(retrain_config(plain_stage, "label_aware_smoothing", tmp_path, model_ema=0.5, amp="bf16"))
    assert set(weights(result.folder)) == set(weights(plain_stage))
    assert load_model(result.folder).description.head == "linear"


@pytest.mark.parametrize("method", ["crt", "label_aware_smoothing"])
def test_a_killed_second_stage_goes_on(
    retrain_config: Callable[..., RetrainConfig],
    method: str,
    plain_stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = retrain(retrain_config(plain_stage, method, tmp_path / "whole"))
    add = History.add

    def add_or_stop(self: History, step: Any) -> None:
        if step.update == 4:
            raise KeyboardInterrupt
        add(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(History, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            retrain(retrain_config(plain_stage, method, tmp_path / "broken"))
    folder = tmp_path / "broken" / "retrain" / whole.folder.name
    assert (folder / "checkpoints" / "update_0000002").is_dir()
    resumed = retrain(retrain_config(plain_stage, method, tmp_path / "broken"))
    assert resumed.metrics == whole.metrics
    assert (folder / "model/weights.safetensors").read_bytes() == (
        whole.folder / "model/weights.safetensors"
    ).read_bytes()
    written = (folder / "metrics.json").stat().st_mtime_ns
    assert retrain(retrain_config(plain_stage, method, tmp_path / "broken")).metrics == whole.metrics
    assert (folder / "metrics.json").stat().st_mtime_ns == written


def test_another_first_stage_in_the_same_place_is_refused(
    train_first_stage: Callable[..., Path],
    retrain_config: Callable[..., RetrainConfig],
    plain_stage: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "first-ce"
    shutil.copytree(plain_stage, run)
    result = retrain(retrain_config(run, "crt", tmp_path))
    (result.folder / "metrics.json").unlink()
    other = train_first_stage(tmp_path / "other", updates=3)
    shutil.copyfile(other / "model/weights.safetensors", run / "model/weights.safetensors")
    with pytest.raises(InputError, match="others: first_stage differ"):
        retrain(retrain_config(run, "crt", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crt", "tau_norm", "ncm"])
def test_two_ranks_make_one_second_stage(
    retrain_config: Callable[..., RetrainConfig], method: str, validated_stage: Path, tmp_path: Path
) -> None:
    words = [
        "retrain",
        str(validated_stage),
        "--method",
        method,
        "--updates",
        "3",
        "--device",
        "cpu",
        "--report-to",
        "none",
    ]
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "cli", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("run folder:") == 1
    folder = tmp_path / "runs" / "retrain" / f"first-ce-{method}"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["n_images"] == 697
    if method != "crt":
        alone = retrain(retrain_config(validated_stage, method, tmp_path / "alone"))
        assert metrics["test"]["confusion"] == alone.metrics["test"]["confusion"]
        assert metrics.get("tau") == alone.metrics.get("tau")
        assert torch.equal(logits(folder, images()), logits(alone.folder, images()))
