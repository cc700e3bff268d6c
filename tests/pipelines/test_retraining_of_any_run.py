"""Which second stage goes with which first stage: what is refused, and that the rest works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    load_model,
    retrain,
    train,
)
from pipelines.second_stages import SECOND_STAGES
from pipelines.training import TrainResult
from rebalance.errors import InputError


def logits(run: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        return load_model(run).classifier(images)


def images(n: int = 8) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def runs(
    train_first_stage: Callable[..., Path],
    retrain_config: Callable[..., RetrainConfig],
    plain_stage: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """First stages by method."""
    folder = tmp_path_factory.mktemp("runs")
    methods = ("ldam", "reslt", "balanced_softmax", "paco")
    second: TrainResult = retrain(retrain_config(plain_stage, "crt", folder))
    return {
        "ce": plain_stage,
        "second": second.folder,
        "nothing": folder / "nothing",
        **{method: train_first_stage(folder, method, updates=1) for method in methods},
        "autoencoder": train_first_stage(
            folder, "autoencoder", 1, objective={"option": ("loss=balanced_softmax", "encoder=small_cnn")}
        ),
    }


def test_a_second_stage_sees_the_first_view_of_the_first_stage(photos: Path, tmp_path: Path) -> None:
    place = PlaceConfig(device="cpu", report_to="none", output=tmp_path)
    first = train(
        TrainConfig(
            data=DataConfig(data=str(photos), image_size=16),
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(method="paco"),
            optimization=OptimizationConfig(updates=1, batch_size=16),
            place=place,
        )
    )
    assert first.metrics["augment"] == "strong,sim"
    optimization = OptimizationConfig(updates=1, batch_size=16)
    second = retrain(RetrainConfig(run=first.folder, method="crt", optimization=optimization, place=place))
    assert second.metrics["augment"] == "strong"


def test_every_form_of_label_aware_smoothing_can_be_named(
    retrain_config: Callable[..., RetrainConfig], runs: dict[str, Path], tmp_path: Path
) -> None:
    forms = ((), ("shape=exp", "power=1e-9"), ("shape=exp", "power=3"), ("to_others_only=true",))
    heads = set()
    for i, form in enumerate(forms):
        config = retrain_config(runs["ce"], "label_aware_smoothing", tmp_path / str(i), "smooth_head=0.9", *form)
        heads.add((retrain(config).folder / "model" / "weights.safetensors").read_bytes())
    assert len(heads) == len(forms)


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
        ("ce", "label_aware_smoothing", ("shape=exp",), "a power with shape 'exp'"),
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
        (
            "second",
            "crt",
            (),
            "a run of `rebalance train` or `rebalance run`; got .* of retrain; give the first stage",
        ),
        ("nothing", "crt", (), "a run folder; got .*, which has no config.yaml"),
    ],
)
def test_what_cannot_be_says_why_and_writes_nothing(
    retrain_config: Callable[..., RetrainConfig],
    run: str,
    method: str,
    options: tuple[str, ...],
    message: str,
    runs: dict[str, Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        retrain(retrain_config(runs[run], method, tmp_path, *options))
    assert error.value.fix
    assert not list(tmp_path.iterdir())


def test_an_unfinished_first_stage_is_refused(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_stage, run, ignore=lambda folder, names: {"model"} & set(names))
    with pytest.raises(InputError, match=r"a finished run with a model; got .*, which has none"):
        retrain(retrain_config(run, "crt", tmp_path))


@pytest.mark.parametrize("method", SECOND_STAGES)
def test_any_first_stage_can_be_given_a_head_of_its_own(
    retrain_config: Callable[..., RetrainConfig], method: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    """crt, linear and ncm on every head; logit adjustment on every head without a prior."""
    for name in {"crt": ("ldam", "reslt"), "linear": ("reslt",), "ncm": ("ldam", "reslt")}.get(method, ()):
        result = retrain(retrain_config(runs[name], method, tmp_path))
        assert logits(result.folder, images()).shape == (8, 10)
    if method == "logit_adjustment":
        for name in ("ldam", "reslt"):
            result = retrain(retrain_config(runs[name], method, tmp_path, "tau=1"))
            difference = logits(result.folder, images()) - logits(runs[name], images())
            torch.testing.assert_close(difference, difference[:1].expand(8, -1), atol=1e-4, rtol=1e-4)
            assert difference[0].diff().min() > 0  # rarer classes gain more
