"""Arms on the same images: found by the manifest, trained once, and not shown as evidence."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from generators.filters import GATES
from generators.manifest import KEPT, REJECTED, SPARE, read_manifest, write_manifest
from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ModelConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    SynthesizeConfig,
    rebalance_and_train,
    synthesize,
)
from pipelines.same_images import same_images

ARMS = ("unfiltered", "synthetic")


def two_seeds(photos: Path, arms: Any) -> RebalanceConfig:
    """Nothing is rejected."""
    return RebalanceConfig(
        data=DataConfig(data=str(photos)),
        model=ModelConfig(model="small_cnn"),
        optimization=OptimizationConfig(updates=4, batch_size=16),
        budget=BudgetConfig(max_images=10),
        generator=GeneratorConfig(
            generator_updates=2, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
        ),
        filter=FilterConfig(skip_gate=GATES, feature_updates=4),  # type: ignore[arg-type]  # all its literals
        arms=arms,
        seeds=2,
        place=PlaceConfig(device="cpu", report_to="none"),
    )


def test_arms_take_the_same_images_where_rejections_were_not_replaced(
    tiny_synthesis: Callable[..., SynthesizeConfig], tmp_path: Path
) -> None:
    assert synthesize(tiny_synthesis(tmp_path / "out")) is not None
    rows = read_manifest(tmp_path / "out")
    lost, *others = sorted({row["class"] for row in rows})
    rejected = [row | {"verdict": REJECTED, "reason": "distance"} for row in rows if row["class"] == lost]
    kept = [row | {"verdict": KEPT, "reason": ""} for row in rows if row["class"] in others]
    for row in rows:
        (tmp_path / "out" / "images" / Path(*Path(row["path"]).parts[1:])).touch()
    write_manifest(tmp_path / "out", rejected + kept)
    assert same_images(ARMS, tmp_path / "out") == {lost: 0} | Counter(row["class"] for row in kept)
    assert same_images(("rebalanced", "synthetic"), tmp_path / "out") is None
    first = min(kept, key=lambda row: int(row["index"]))
    first |= {"verdict": REJECTED, "reason": "distance"}
    write_manifest(tmp_path / "out", rejected + kept)
    assert same_images(ARMS, tmp_path / "out") is None
    first |= {"verdict": SPARE, "reason": ""}
    write_manifest(tmp_path / "out", rejected + kept)
    assert same_images(ARMS, tmp_path / "out") is None


@pytest.mark.parametrize("arms", [("rebalanced", *ARMS), ("synthetic", "unfiltered")])
def test_arms_of_the_same_images_are_trained_once_and_not_compared(
    arms: Any, photos: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = two_seeds(photos, arms)
    with caplog.at_level(logging.INFO):
        result = rebalance_and_train(settings)
    assert caplog.text.count("not trained again") == 1
    assert "finished already" not in caplog.text
    assert len(re.findall(r"training \d of \d: re-balanced \+ synthetic", caplog.text)) == 2
    assert result.metrics["same_images"] == [["synthetic", "unfiltered"]]
    compared = {(pair["arm"], pair["against"]) for pair in result.metrics["differences"]}
    assert compared == ({("synthetic", "rebalanced")} if "rebalanced" in arms else set())
    said = "re-balanced + synthetic, filtered: the same images as re-balanced + synthetic, unfiltered"
    assert result.metrics["words"][-1].startswith(said)
    assert said in (result.folder / "report.md").read_text()
    saved = yaml.safe_load((result.folder / "arms" / "synthetic" / "seed-1" / "config.yaml").read_text())
    assert (saved["synthetic_set"], saved["seed"]) == ("kept", 1)
    figures = [(result.folder / "arms" / arm / "seed-1" / "metrics.json").read_text() for arm in ARMS]
    assert json.loads(figures[0]) == json.loads(figures[1])
    assert rebalance_and_train(settings).metrics == result.metrics


def test_a_training_on_images_that_were_taken_out_since_does_not_stand_for_another(photos: Path, here: Path) -> None:
    settings = two_seeds(photos, ARMS)
    folder = rebalance_and_train(settings).folder
    for done in ("metrics.json", "report.html"):
        (folder / done).unlink()
    for begun in ("arms/synthetic", "arms/unfiltered/seed-1"):
        shutil.rmtree(folder / begun)
    lost = max((folder / "synthesis" / "images").iterdir(), key=lambda images: len(list(images.iterdir())))
    shutil.rmtree(lost)
    metrics = rebalance_and_train(settings).metrics
    took = {
        arm: [
            json.loads((folder / "arms" / arm / f"seed-{seed}" / "classes.json").read_text())["synthetic_counts"]
            for seed in (0, 1)
        ]
        for arm in ARMS
    }
    assert took["synthetic"][0] == took["synthetic"][1] == took["unfiltered"][1] != took["unfiltered"][0]
    assert metrics["same_images"] == []
    assert ("synthetic", "unfiltered") in {(pair["arm"], pair["against"]) for pair in metrics["differences"]}
