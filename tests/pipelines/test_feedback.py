"""`run --rounds`: the budget in rounds, by what validation fails on; deterministic, and resumed anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.manifest import read_manifest
from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    candidates,
    rebalance_and_train,
)
from pipelines.feedback import failure, share_out
from rebalance.errors import InputError


def config(output: Path, **changes: Any) -> RebalanceConfig:
    settings: dict[str, Any] = {
        "data": DataConfig(data="digits", imbalance_factor=3, val_fraction=0.2),
        "optimization": OptimizationConfig(updates=6, batch_size=32),
        "budget": BudgetConfig(max_images=30),
        "generator": GeneratorConfig(
            generator_updates=4, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
        ),
        "filter": FilterConfig(skip_gate=("distance", "copy"), feature_updates=4),
        "arms": ("synthetic",),
        "tune": (),
        "rounds": 3,
        "seeds": 1,
        "place": PlaceConfig(device="cpu", report_to="none", output=output),
    }
    return RebalanceConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pipeline of three rounds; not to be changed."""
    return rebalance_and_train(config(tmp_path_factory.mktemp("rounds"))).folder


def rounds(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "feedback" / "rounds.json").read_text())
    return found


def test_rounds_have_the_budget_of_making_all_at_once(finished: Path) -> None:
    images = np.array([one["images"] for one in rounds(finished)["rounds"]])
    assert images.sum(axis=1).tolist() == [10, 20, 30]
    assert (np.diff(images, axis=0) >= 0).all()
    whole = json.loads((finished / "synthesis" / "metrics.json").read_text())
    assert whole["wanted"] == 30
    last = json.loads((finished / "feedback" / "round-3" / "synthesis" / "metrics.json").read_text())
    assert [entry["wanted"] for entry in last["classes"]] == images[-1].tolist()


def test_a_rounds_share_goes_where_validation_failed(finished: Path) -> None:
    found = rounds(finished)
    budget = [entry["wanted"] for entry in json.loads((finished / "synthesis" / "metrics.json").read_text())["classes"]]
    for number in (1, 2):
        metrics = json.loads((finished / "feedback" / f"round-{number}" / "training" / "metrics.json").read_text())
        before, after = (np.array(found["rounds"][i]["images"]) for i in (number - 1, number))
        assert found["rounds"][number - 1]["recall"] == metrics["val"]["recall"]
        weights = np.where(np.array(budget) > 0, failure(metrics["val"]["recall"], metrics["val"]["support"]), 0)
        assert (after - before).tolist() == share_out(10, weights, np.full(10, 10**6)).tolist()


def test_rounds_share_generator_and_images_with_the_whole(finished: Path) -> None:
    whole = {row["job"]: row for row in read_manifest(finished / "synthesis")}
    for number in (1, 2, 3):
        folder = finished / "feedback" / f"round-{number}" / "synthesis"
        rows = {row["job"]: row for row in read_manifest(folder)}
        shared = rows.keys() & whole.keys()
        assert len(shared) >= 8
        assert all(rows[job]["sha256"] == whole[job]["sha256"] for job in shared)
        own = (folder / "generator" / "unet.safetensors").read_bytes()
        assert own == (finished / "synthesis" / "generator" / "unet.safetensors").read_bytes()


def test_the_arm_is_compared_with_making_all_at_once_and_may_be_selected(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["arms"]) == {"synthetic", "feedback"}
    assert [(d["arm"], d["against"]) for d in metrics["differences"]] == [("feedback", "synthetic")]
    assert set(metrics["selected"]["balanced_accuracy"]) == {"synthetic", "feedback"}
    arm = json.loads((finished / "arms" / "feedback" / "seed-0" / "metrics.json").read_text())
    kept = json.loads((finished / "feedback" / "round-3" / "synthesis" / "metrics.json").read_text())["kept"]
    assert sum(arm["synthetic_counts"]) == kept > 0


def test_the_report_has_a_table_of_rounds(finished: Path) -> None:
    html, markdown = (finished / "report.html").read_text(), (finished / "report.md").read_text()
    for text in (html, markdown):
        assert "Images in rounds" in text
        assert "images, round 3" in text
    assert "re-balanced + synthetic, in rounds" in html


class StopError(Exception):
    """Stands for a kill."""


def test_interrupted_rounds_end_alike(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = candidates._write, 0

    def write_or_stop(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written in (5, 42, 44):
            raise StopError
        return write(*arguments)

    from pipelines import feedback

    link, linked = feedback._link, 0

    def link_or_stop(*arguments: Any) -> None:
        nonlocal linked
        linked += 1
        if linked in (3, 50):
            raise StopError
        link(*arguments)

    monkeypatch.setattr(candidates, "_write", write_or_stop)
    monkeypatch.setattr(feedback, "_link", link_or_stop)
    stops = 0
    for _ in range(9):
        try:
            result = rebalance_and_train(config(tmp_path))
        except StopError:
            stops += 1
            continue
        break
    assert stops >= 3
    assert result.metrics == json.loads((finished / "metrics.json").read_text())
    for number in (1, 2, 3):
        place = Path("feedback") / f"round-{number}" / "synthesis" / "manifest.jsonl"
        assert (result.folder / place).read_bytes() == (finished / place).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 0}, "--rounds of at least 1"),
        ({"rounds": 1, "arms": ("synthetic", "feedback")}, "for the arm feedback"),
        ({"arms": ("ce", "rebalanced")}, "which rounds are compared with"),
        ({"data": DataConfig(data="digits", imbalance_factor=3)}, "a validation split for --rounds"),
        ({"rounds": 1, "select": "feedback"}, "--select of an arm that is run"),
    ],
)
def test_rounds_that_cannot_be_are_refused_before_work(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rebalance_and_train(replace(config(tmp_path / "runs"), **changes))
    assert not (tmp_path / "runs").exists()


# Shares


@given(
    st.integers(0, 400),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 60)), min_size=1, max_size=8),
)
def test_shares_add_up_and_keep_to_the_room(total: int, classes: list[tuple[float, int]]) -> None:
    weights, room = np.array([w for w, _ in classes]), np.array([r for _, r in classes])
    given_ = share_out(total, weights, room)
    assert (given_ >= 0).all()
    assert (given_ <= room).all()
    assert (given_[weights == 0] == 0).all()
    assert given_.sum() == min(total, room[weights > 0].sum())


def test_shares_are_in_proportion_where_there_is_room() -> None:
    assert share_out(100, [1, 2, 5, 0], np.full(4, 1000)).tolist() == [13, 25, 62, 0]
    assert share_out(7, [1, 1, 1], np.full(3, 9)).tolist() == [3, 2, 2]


def test_failure_is_drawn_to_the_middle_where_little_is_known() -> None:
    assert failure([1.0, 1.0, 0.0], [1, 99, 99]).tolist() == [0.25, 0.005, 0.995]
    assert failure([None, 0.5], [0, 9]).tolist() == [0.5, 0.5]
