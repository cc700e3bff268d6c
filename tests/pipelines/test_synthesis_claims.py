"""What a synthesis refuses: other images than it was begun with, numbers that mean nothing, names without a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    ReportConfig,
    SynthesizeConfig,
    TrainConfig,
    class_conditional_plan,
    report,
    synthesize,
    train,
)
from pipelines.judging import Judge
from rebalance.errors import InputError

SMALL: dict[str, Any] = {
    "generator_updates": 3,
    "generator_batch_size": 8,
    "generator_channels": (8, 16),
    "steps": 2,
    "sampling_batch": 8,
}


def config(photos: Path, out: Path, data: dict[str, Any] | None = None, **generator: Any) -> SynthesizeConfig:
    return SynthesizeConfig(
        data=DataConfig(data=str(photos), **(data or {})),
        out=out,
        budget=BudgetConfig(max_images=4),
        generator=GeneratorConfig(**{**SMALL, **generator}),
        filter=FilterConfig(feature_updates=3, skip_gate=("distance", "copy", "third-class")),
        device="cpu",
    )


@pytest.mark.parametrize("done", ["half", "all"])
def test_other_images_are_refused_when_it_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(photos, data)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if done == "half":
            patch.setattr(Judge, "__init__", kill)
            with pytest.raises(KeyboardInterrupt):
                synthesize(config(data, out))
            assert (out / "generator" / "unet.safetensors").exists()
        else:
            synthesize(config(data, out))
    other = (data / "train" if (data / "train").is_dir() else data) / "aaa"
    other.mkdir()
    for number in range(3):
        Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(other / f"{number}.png")
    with pytest.raises(InputError, match=r"the images that .*out was begun with; got others: classes"):
        synthesize(config(data, out))


@pytest.mark.parametrize(
    "changes",
    [
        {"generator_updates": 0},
        {"generator_batch_size": 0},
        {"generator_lr": 0.0},
        {"generator_lr": -1.0},
        {"generator_size": 0},
        {"sampling_batch": 0},
    ],
)
def test_zeros_are_no_defaults(photos: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} from .*; got {value}"):
        synthesize(config(photos, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_batch_without_an_image_for_each_process_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_conditional_plan, "world_size", lambda: 9)
    with pytest.raises(InputError, match=r"--generator-batch-size of at least 9.*; got 8"):
        synthesize(config(photos, tmp_path / "out"))


def listed(folder: Path, names: tuple[str, ...]) -> Path:
    """A list of twelve images of the first class and two of each other."""
    lines = ["path\tlabel"]
    stream = np.random.default_rng(0)
    for label, name in enumerate(names):
        for number in range(12 if label == 0 else 2):
            file = f"{label}-{number}.png"
            Image.fromarray(stream.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / file)
            lines.append(f"{file}\t{name}")
    (folder / "list.tsv").write_text("\n".join(lines) + "\n")
    return folder / "list.tsv"


def test_the_images_of_any_class_name_train_as_a_folder(tmp_path: Path) -> None:
    data = listed(tmp_path, ("many", "..", "a/b c%"))
    result = synthesize(config(data, tmp_path / "out"))
    assert result is not None
    kept = [entry["kept"] for entry in result.summary["classes"]]
    assert sum(kept) > 0
    training = TrainConfig(
        data=DataConfig(data=str(data)),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(updates=1, batch_size=8),
        synthetic=tmp_path / "out" / "images",
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    counts = dict(zip(("..", "a/b c%", "many"), train(training).metrics["synthetic_counts"], strict=True))
    assert counts == {entry["class"]: entry["kept"] for entry in result.summary["classes"]}


def test_a_name_too_long_for_a_folder_is_refused_first(tmp_path: Path) -> None:
    data = listed(tmp_path, ("many", "猫" * 90))
    with pytest.raises(InputError, match="class names of at most 251 bytes, for folders; got 猫"):
        synthesize(config(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def quick_training(photos: Path, synthetic: Path, **data: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data=str(photos), **data),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(updates=2, batch_size=16),
        synthetic=synthetic,
        place=PlaceConfig(device="cpu", report_to="none", output=synthetic.parent / "runs"),
    )


def test_what_was_taken_out_of_the_images_by_hand_does_not_train(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "made"
    result = synthesize(config(photos, out))
    assert result is not None
    files = sorted((out / "images").rglob("*.png"))
    assert len(files) == result.summary["kept"] > 1
    files[0].unlink()
    with caplog.at_level("INFO", logger="rebalance"):
        metrics = train(quick_training(photos, out)).metrics
    assert sum(metrics["synthetic_counts"]) == len(files) - 1
    assert "1 synthetic images were removed from" in caplog.text
    assert "synthesized from other splits" not in caplog.text
    assert "synthesis_of_other_splits" not in metrics
    assert metrics["kappa"] == pytest.approx(0.3, rel=0.1)  # all of the few are drawn as real ones are, at this weight
    (out / "manifest.jsonl").write_text("")
    train(replace(quick_training(photos, out), seed=1, place=PlaceConfig(device="cpu", output=tmp_path / "empty")))
    assert f"{out} has no synthetic images to train on" in caplog.text


def test_a_synthesis_of_images_that_are_held_out_now_is_warned_of(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "made"
    synthesize(config(photos / "train", out))
    run = train(quick_training(photos / "train", out, test_fraction=0.2)).folder
    assert "was synthesized from other splits than these" in caplog.text
    words = "Some synthetic images were made from other splits than these"
    assert words in report(ReportConfig(runs=(run,))).markdown.read_text()
