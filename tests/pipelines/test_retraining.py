"""Second stages: what each leaves, what it may look at, what it refuses, and that it goes on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    RetrainConfig,
    TrainConfig,
    evaluate,
    load_model,
    rebalance_and_train,
    retrain,
    retraining,
    train,
)
from pipelines.history import History
from pipelines.loading import load_splits
from pipelines.second_stages import SECOND_STAGES
from pipelines.strengths import STRENGTHS, choose_strength
from pipelines.training import TrainResult
from rebalance.data.augmentation import normalize
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

TRAINED = ("crt", "lws", "linear", "label_aware_smoothing")
SHIFTED = ("crt", "lws", "label_aware_smoothing")
"""Whose batch-norm statistics move."""
UPDATES = 6


def first(folder: Path, method: str = "ce", updates: int = 20, **settings: Any) -> Path:
    """A first stage on digits; the folder of its run."""
    objective = {"method": method, **settings.pop("objective", {})}
    config = TrainConfig(
        data=DataConfig(data="digits", **settings),
        model=ModelConfig(model="small_cnn"),
        objective=ObjectiveConfig(**objective),
        optimization=OptimizationConfig(updates=updates, batch_size=64),
        place=PlaceConfig(device="cpu", report_to="none", output=folder, experiment=f"first-{method}"),
    )
    return train(config).folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross entropy without a validation split; not to be changed."""
    return first(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross entropy with a validation split; not to be changed."""
    return first(tmp_path_factory.mktemp("validated"), imbalance_factor=4, val_fraction=0.3)


def config(run: Path, method: str, folder: Path, *options: str, **changes: Any) -> RetrainConfig:
    optimization = OptimizationConfig(updates=UPDATES, batch_size=64, warmup_epochs=0, **changes)
    place = PlaceConfig(device="cpu", report_to="none", output=folder, checkpoint_updates=2)
    return RetrainConfig(run=run, method=method, option=options, optimization=optimization, place=place)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def logits(run: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        return load_model(run).classifier(images)


def images(n: int = 8) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_a_second_stage_is_a_run_of_its_own(method: str, plain: Path, tmp_path: Path) -> None:
    result = retrain(config(plain, method, tmp_path))
    assert result.folder == tmp_path / "retrain" / f"first-ce-{method}"
    assert (result.folder / "first_stage.yaml").read_text() == (plain / "config.yaml").read_text()
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics == result.metrics
    assert (metrics["method"], metrics["first_stage"]) == (method, str(plain))
    assert metrics["updates"] == (UPDATES if method in TRAINED else 0)
    assert (result.folder / "history.csv").exists()
    again = evaluate(EvaluateConfig(run=result.folder, device="cpu"))
    assert again["confusion"] == metrics["test"]["confusion"]
    assert again["n_images"] == 697


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_the_backbone_stays_as_it_is(method: str, plain: Path, tmp_path: Path) -> None:
    """Its parameters always; its batch-norm statistics unless they are to follow the draws."""
    before, after = weights(plain), weights(retrain(config(plain, method, tmp_path)).folder)
    moved = {name for name in before if name.startswith("backbone.") and not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert moved == (statistics if method in SHIFTED else set())


def test_sharpness_is_that_of_the_head_and_moves_statistics_as_without(plain: Path, tmp_path: Path) -> None:
    without, sharp = (
        weights(retrain(config(plain, "crt", tmp_path / folder, **changes)).folder)
        for folder, changes in (("without", {}), ("sharp", {"sam": 0.5}))
    )
    assert {name for name in without if not torch.equal(without[name], sharp[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("method", "options"), [("tau_norm", ("tau=0", "use_bias=true")), ("logit_adjustment", ("tau=0",))]
)
def test_no_strength_changes_nothing(method: str, options: tuple[str, ...], plain: Path, tmp_path: Path) -> None:
    result = retrain(config(plain, method, tmp_path, *options))
    assert torch.equal(logits(result.folder, images()), logits(plain, images()))
    assert result.metrics["tau_by"] == "as given"


def test_adjustment_takes_the_log_prior_off(plain: Path, tmp_path: Path) -> None:
    counts = torch.tensor(json.loads((plain / "classes.json").read_text())["train_counts"]).double()
    found = logits(retrain(config(plain, "logit_adjustment", tmp_path, "tau=0.7")).folder, images())
    expected = logits(plain, images()) - (0.7 * (counts / counts.sum()).log()).float()
    torch.testing.assert_close(found, expected)


def test_scales_leave_the_direction_of_class_vectors(plain: Path, tmp_path: Path) -> None:
    before, after = weights(plain), weights(retrain(config(plain, "lws", tmp_path, lr=0.05)).folder)
    cosines = F.cosine_similarity(before["head.weight"], after["head.weight"])
    torch.testing.assert_close(cosines, torch.ones(10))
    factors = after["head.weight"].norm(dim=1) / before["head.weight"].norm(dim=1)
    torch.testing.assert_close(after["head.bias"], factors * before["head.bias"])
    assert factors.min() < 0.99 or factors.max() > 1.01


def test_class_means_are_those_of_the_training_images(plain: Path, tmp_path: Path) -> None:
    result = retrain(config(plain, "ncm", tmp_path, "transform=un"))
    model, table = load_model(plain), load_splits(DataConfig(data="digits")).train
    features = model.classifier.backbone(model_inputs(model, table)).detach()
    for label in range(10):
        rows = torch.from_numpy(table.targets == label)
        torch.testing.assert_close(weights(result.folder)["head.means"][label], features[rows].mean(0))


def model_inputs(model: Any, table: ImageTable) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in table.images]))
    return normalize(pixels.permute(0, 3, 1, 2), model.mean, model.std)


# Strengths


@pytest.mark.parametrize("method", ["tau_norm", "logit_adjustment"])
def test_tau_is_chosen_on_the_validation_split_alone(
    method: str, validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    predict = retraining.predict_rows

    def remember(module: Any, decoded: Any, *rest: Any) -> Any:
        read.append(len(decoded.table))
        return predict(module, decoded, *rest)

    monkeypatch.setattr(retraining, "predict_rows", remember)
    metrics = retrain(config(validated, method, tmp_path)).metrics
    val = load_splits(DataConfig(data="digits", imbalance_factor=4, val_fraction=0.3)).val
    assert val is not None
    assert read == [len(val)]
    assert metrics["tau_by"] == "balanced accuracy on the validation split"
    assert [float(tau) for tau in metrics["tried"]] == list(STRENGTHS)
    assert metrics["tried"][f"{metrics['tau']:g}"] == max(metrics["tried"].values())
    assert metrics["val"]["balanced_accuracy"] == pytest.approx(max(metrics["tried"].values()))


def test_without_a_validation_split_tau_is_the_papers(plain: Path, tmp_path: Path) -> None:
    metrics = retrain(config(plain, "tau_norm", tmp_path)).metrics
    assert (metrics["tau"], metrics["tau_by"]) == (1.0, "default: there is no validation split")


def test_of_equally_good_strengths_that_next_to_one_is_taken() -> None:
    targets = torch.tensor([0, 1])

    def made(value: float, inputs: Tensor) -> Tensor:
        return inputs if value >= 1.5 or value <= 0.3 else -inputs

    strength, facts = choose_strength("auto", (torch.eye(2), targets), made)
    assert strength == 1.5
    assert facts["tried"]["1.5"] == 1.0
    assert facts["tried"]["1"] == 0.0


@pytest.mark.parametrize("text", ["x", "", "nan", "inf"])
def test_a_strength_is_a_number(text: str) -> None:
    with pytest.raises(InputError, match=f"tau=auto or a number; got tau={text}; leave it out"):
        choose_strength(text, None, lambda value, inputs: inputs)


# What it goes on from


def test_supcon_pretraining_gets_a_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = first(tmp_path, "supcon", updates=60, objective={"option": ("share=1",)})
    assert "there is no classification loss" in caplog.text
    settings = config(run, "linear", tmp_path)
    result = retrain(replace(settings, optimization=replace(settings.optimization, updates=40)))
    assert result.metrics["test"]["balanced_accuracy"] > 0.5


def test_a_pipeline_is_gone_on_from_where_its_model_came_from(photos: Path, tmp_path: Path) -> None:
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
    result = retrain(config(pipeline.folder, "crt", tmp_path))
    assert result.folder.name == "whole-ce-seed-0-crt"
    assert result.metrics["first_stage"] == str(pipeline.folder / "arms" / "ce" / "seed-0")
    assert result.metrics["classes"] == ["f.o.u.r", "tail", "two words", "круг"]


def test_averaged_scales_are_saved_as_a_plain_head(plain: Path, tmp_path: Path) -> None:
    result = retrain(config(plain, "label_aware_smoothing", tmp_path, model_ema=0.5, amp="bf16"))
    assert set(weights(result.folder)) == set(weights(plain))
    assert load_model(result.folder).description.head == "linear"


@pytest.mark.parametrize("method", ["crt", "label_aware_smoothing"])
def test_a_killed_second_stage_goes_on(
    method: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrain(config(plain, method, tmp_path / "whole"))
    add = History.add

    def add_or_stop(self: History, step: Any) -> None:
        if step.update == 4:
            raise KeyboardInterrupt
        add(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(History, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            retrain(config(plain, method, tmp_path / "broken"))
    folder = tmp_path / "broken" / "retrain" / whole.folder.name
    assert (folder / "checkpoints" / "update_0000002").is_dir()
    resumed = retrain(config(plain, method, tmp_path / "broken"))
    assert resumed.metrics == whole.metrics
    assert (folder / "model/weights.safetensors").read_bytes() == (
        whole.folder / "model/weights.safetensors"
    ).read_bytes()
    written = (folder / "metrics.json").stat().st_mtime_ns
    assert retrain(config(plain, method, tmp_path / "broken")).metrics == whole.metrics
    assert (folder / "metrics.json").stat().st_mtime_ns == written


def test_another_first_stage_in_the_same_place_is_refused(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "first-ce"
    shutil.copytree(plain, run)
    result = retrain(config(run, "crt", tmp_path))
    (result.folder / "metrics.json").unlink()
    other = first(tmp_path / "other", updates=3)
    shutil.copyfile(other / "model/weights.safetensors", run / "model/weights.safetensors")
    with pytest.raises(InputError, match="others: first_stage differ"):
        retrain(config(run, "crt", tmp_path))


# What it refuses


@pytest.fixture(scope="module")
def runs(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """First stages by method."""
    folder = tmp_path_factory.mktemp("runs")
    methods = ("ldam", "reslt", "balanced_softmax", "paco")
    second: TrainResult = retrain(config(plain, "crt", folder))
    return {
        "ce": plain,
        "second": second.folder,
        "nothing": folder / "nothing",
        **{method: first(folder, method, updates=1) for method in methods},
        "autoencoder": first(
            folder, "autoencoder", 1, objective={"option": ("loss=balanced_softmax", "encoder=small_cnn")}
        ),
    }


@pytest.mark.parametrize(
    ("run", "method", "options", "message"),
    [
        ("ce", "crtt", (), "a second stage; got 'crtt'; did you mean 'crt'"),
        ("ce", "paco", (), "a second stage; got 'paco'; .*valid: crt, "),
        ("ce", "crt", ("tau=1",), "an option of crt; got 'tau'; valid: sampler_rule, shift_batch_norm"),
        ("ce", "crt", ("sampler_rule=foo",), "got 'foo'"),
        ("ce", "ncm", ("distance=foo",), "distance 'l2' or 'cos'; got 'foo'"),
        ("ce", "label_aware_smoothing", ("smooth_head=3",), "smooth_head.*got 3"),
        ("ce", "label_aware_smoothing", ("shape=foo",), "shape.*got 'foo'"),
        ("ce", "label_aware_smoothing", ("head_factor=-1",), "head_factor >= 0; got -1"),
        ("ldam", "tau_norm", (), "a linear head for tau_norm; got a cosine head: .* ignores the lengths.*; use crt"),
        ("ldam", "lws", (), "a linear head for lws; got a cosine head: .* cannot be folded.*; use crt"),
        ("ldam", "label_aware_smoothing", (), "a linear head for label_aware_smoothing; got a cosine head"),
        ("reslt", "tau_norm", (), "a linear head for tau_norm; got a residual_norm head: its branches"),
        (
            "balanced_softmax",
            "logit_adjustment",
            (),
            "without the class prior .*; got one of balanced_softmax, .*twice",
        ),
        ("paco", "logit_adjustment", (), "without the class prior .*; got one of paco, .*twice"),
        ("autoencoder", "logit_adjustment", (), "without the class prior .*; got one of balanced_softmax"),
        ("second", "crt", (), "a run of `rebalance train` or `rebalance run`; got .* of retrain; give the first stage"),
        ("nothing", "crt", (), "a run folder; got .*, which has no config.yaml"),
    ],
)
def test_what_cannot_be_says_why_and_writes_nothing(
    run: str, method: str, options: tuple[str, ...], message: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        retrain(config(runs[run], method, tmp_path, *options))
    assert error.value.fix
    assert not list(tmp_path.iterdir())


def test_an_unfinished_first_stage_is_refused(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run, ignore=lambda folder, names: {"model"} & set(names))
    with pytest.raises(InputError, match=r"a finished run with a model; got .*, which has none"):
        retrain(config(run, "crt", tmp_path))


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_any_first_stage_can_be_given_a_head_of_its_own(method: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """crt, linear and ncm on every head; logit adjustment on every head without a prior."""
    for name in {"crt": ("ldam", "reslt"), "linear": ("reslt",), "ncm": ("ldam", "reslt")}.get(method, ()):
        result = retrain(config(runs[name], method, tmp_path))
        assert logits(result.folder, images()).shape == (8, 10)
    if method == "logit_adjustment":
        for name in ("ldam", "reslt"):
            result = retrain(config(runs[name], method, tmp_path, "tau=1"))
            difference = logits(result.folder, images()) - logits(runs[name], images())
            torch.testing.assert_close(difference, difference[:1].expand(8, -1), atol=1e-4, rtol=1e-4)
            assert difference[0].diff().min() > 0  # rarer classes gain more


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crt", "tau_norm", "ncm"])
def test_two_ranks_make_one_second_stage(method: str, validated: Path, tmp_path: Path) -> None:
    words = ["retrain", str(validated), "--method", method, "--updates", "3", "--device", "cpu", "--report-to", "none"]
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
        alone = retrain(config(validated, method, tmp_path / "alone"))
        assert metrics["test"]["confusion"] == alone.metrics["test"]["confusion"]
        assert metrics.get("tau") == alone.metrics.get("tau")
        assert torch.equal(logits(folder, images()), logits(alone.folder, images()))
