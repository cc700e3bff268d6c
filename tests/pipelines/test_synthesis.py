"""`synthesize`: the plan, the folder it writes, resuming, and what training makes of the images."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generators.manifest import read_manifest
from pipelines import (
    DataConfig,
    SynthesizeConfig,
    TrainConfig,
    candidates,
    synthesize,
)
from pipelines.synthetic_images import open_synthetic
from rebalance.data.table import content_hash
from rebalance.errors import InputError

Config = Callable[..., SynthesizeConfig]
WANTED = {"круг": 0, "two words": 6, "f.o.u.r": 9, "tail": 12}


@pytest.fixture(scope="module")
def finished(tiny_synthesis: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished synthesis; not to be changed."""
    out = tmp_path_factory.mktemp("synthesis") / "out"
    assert synthesize(tiny_synthesis(out)) is not None
    return out


def tree(folder: Path, *, without: tuple[str, ...] = ("environment.json", "config.yaml")) -> dict[str, bytes]:
    """Every file but journals, checkpoints and run histories, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in without
        and not {"journals", "features"} & set(path.relative_to(folder).parts)
    }


def test_every_candidate_has_a_verdict_and_a_reason(finished: Path) -> None:
    rows = read_manifest(finished)
    assert {row["verdict"] for row in rows} <= {"kept", "rejected", "spare"}
    assert all(bool(row["reason"]) == (row["verdict"] == "rejected") for row in rows)
    made = Counter(row["class"] for row in rows)
    assert made.keys() == {name for name, n in WANTED.items() if n}
    assert all(made[name] <= n + -(-7 * n // 10) for name, n in WANTED.items())
    assert [row["job"] for row in rows] == sorted(row["job"] for row in rows)


def test_image_folder_holds_the_kept_images_and_no_others(finished: Path) -> None:
    kept = Counter(row["class"] for row in read_manifest(finished) if row["verdict"] == "kept")
    folders = {path.name: len(list(path.iterdir())) for path in (finished / "images").iterdir()}
    assert folders == dict(kept)


def test_image_files_say_that_they_are_synthetic_and_of_which_job(finished: Path) -> None:
    row = next(row for row in read_manifest(finished) if row["path"])
    with Image.open(finished / row["path"]) as image:
        assert image.info["Source"] == "synthetic"
        assert image.info["Job"] == row["job"]


def test_contact_sheet_for_every_class_with_candidates(finished: Path) -> None:
    sheets = {path.stem for path in (finished / "contact_sheets").iterdir()}
    assert sheets == {name for name, n in WANTED.items() if n}


def test_a_class_that_stays_short_says_so(finished: Path) -> None:
    summary = json.loads((finished / "metrics.json").read_text())
    for entry in summary["classes"]:
        assert entry["kept"] <= entry["wanted"]
        if entry["kept"] < entry["wanted"]:
            assert entry["made"] == entry["wanted"] + -(-7 * entry["wanted"] // 10)
            assert sum(entry["rejected"].values()) == entry["made"] - entry["kept"]


class StopError(Exception):
    """Stands for a kill."""


def test_interrupted_synthesis_ends_with_the_same_files(
    tiny_synthesis: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write = candidates._write
    written = 0

    def write_or_stop(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written % 11 == 0:
            raise StopError
        return write(*arguments)

    monkeypatch.setattr(candidates, "_write", write_or_stop)
    for _ in range(20):
        try:
            synthesize(tiny_synthesis(out))
        except StopError:
            continue
        break
    assert written > 22
    assert tree(out) == tree(finished)


def test_candidates_begin_from_images_of_other_classes_after_an_interruption_too(
    photos: Path, tiny_synthesis: Config, tmp_path: Path
) -> None:
    small = tiny_synthesis(tmp_path / "whole").generator
    settings = tiny_synthesis(tmp_path / "whole", generator=replace(small, head_to_tail=(0.5, 1.0)))
    assert synthesize(settings) is not None
    rows = read_manifest(tmp_path / "whole")
    classes = {content_hash(str(file)).hex(): file.parent.name for file in (photos / "train").rglob("*.jpg")}
    assert all(classes[row["source"]] != row["class"] for row in rows)
    assert {row["strength"] for row in rows} == {0.5, 1.0}
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for name in ("candidates", "images", "journals", "contact_sheets"):
        shutil.rmtree(tmp_path / "again" / name)
    (tmp_path / "again" / "metrics.json").unlink()
    synthesize(replace(settings, out=tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("strengths", "words"),
    [((0.5, 1.5), r"--head-to-tail from 0\.01 to 1; got 1\.5"), ((0.4,), r"of at least 1; got 2 × 0\.4")],
)
def test_strengths_that_cannot_work_are_refused(
    tiny_synthesis: Config, tmp_path: Path, strengths: tuple[float, ...], words: str
) -> None:
    small = tiny_synthesis(tmp_path / "out").generator
    with pytest.raises(InputError, match=words):
        synthesize(tiny_synthesis(tmp_path / "out", generator=replace(small, head_to_tail=strengths)))
    assert not (tmp_path / "out").exists()


def test_finished_synthesis_is_not_repeated(tiny_synthesis: Config, finished: Path) -> None:
    before = tree(finished)
    synthesize(tiny_synthesis(finished))
    assert tree(finished) == before


def test_changed_settings_are_refused(tiny_synthesis: Config, finished: Path) -> None:
    with pytest.raises(InputError, match=r"generator\.guidance: 2\.0 → 1\.5[^$]*or choose another --out$"):
        synthesize(tiny_synthesis(finished, generator=replace(tiny_synthesis(finished).generator, guidance=1.5)))


def test_training_takes_kept_unfiltered_or_replayed_images_in_equal_number(photos: Path, finished: Path) -> None:
    import torch

    from pipelines.config import TrainConfig
    from pipelines.loading import load_splits

    real = load_splits(DataConfig(data=str(photos))).train
    tables = {}
    for which in ("kept", "unfiltered", "replay"):
        training = TrainConfig(data=DataConfig(data=str(photos)), synthetic=finished, synthetic_set=which)  # type: ignore[arg-type]
        added = open_synthetic(training, training.data, real, 16, torch.device("cpu"))
        assert added is not None
        tables[which] = added.table
    assert tables["kept"].counts.tolist() == tables["unfiltered"].counts.tolist() == tables["replay"].counts.tolist()
    assert set(tables["replay"].images) <= set(real.images)
    assert all("candidates" in str(image) for image in tables["kept"].images)


def test_tampered_images_are_refused_by_training(photos: Path, finished: Path, tmp_path: Path) -> None:
    import torch

    from pipelines.config import TrainConfig
    from pipelines.loading import load_splits

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    row = next(row for row in read_manifest(copy) if row["verdict"] == "kept")
    Image.new("RGB", (16, 16)).save(copy / row["path"])
    training = TrainConfig(data=DataConfig(data=str(photos)), synthetic=copy)
    real = load_splits(training.data).train
    with pytest.raises(InputError, match="was changed"):
        open_synthetic(training, training.data, real, 16, torch.device("cpu"))


@pytest.mark.slow
def test_generated_digits_are_named_as_their_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 95 % of the kept images, and 80 % in every class of five or more, by a classifier of all digits."""
    from pipelines import ObjectiveConfig, OptimizationConfig, PlaceConfig, load_model, train

    monkeypatch.chdir(tmp_path)
    judge = train(
        TrainConfig(
            data=DataConfig(data="digits", imbalance_factor=1),
            objective=ObjectiveConfig(method="ce"),
            optimization=OptimizationConfig(epochs=60),
            place=PlaceConfig(device="cpu", report_to="none"),
        )
    )
    result = synthesize(SynthesizeConfig(data=DataConfig(data="digits"), out=tmp_path / "out", device="cpu"))
    assert result is not None
    kept = [row for row in read_manifest(result.folder) if row["verdict"] == "kept"]
    named = load_model(judge.folder).predict([str(result.folder / row["path"]) for row in kept])
    right = [name == row["class"] for name, row in zip(named, kept, strict=True)]
    assert sum(right) / len(right) >= 0.95
    for entry in result.summary["classes"]:
        if entry["real"] >= 5 and entry["kept"]:
            own = [ok for ok, row in zip(right, kept, strict=True) if row["class"] == entry["class"]]
            assert sum(own) / len(own) >= 0.8, entry["class"]
