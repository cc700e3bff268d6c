"""`synthesize --generator stable-diffusion`, with a small but whole checkpoint from disk, on a few real digits."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import generators.lora_training
from cli import main
from generators.lora_training import AdaptationSettings
from generators.manifest import Row, read_manifest
from generators.stable_diffusion_checkpoint import DEFAULT_CHECKPOINT
from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ImageFilesConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    StableDiffusionConfig,
    SynthesizeConfig,
    TrainConfig,
    candidates,
    synthesize,
    train,
)
from pipelines.generator_flags import check_generator
from pipelines.loading import load_splits
from pipelines.synthetic_images import open_synthetic
from rebalance.data.digits import read_digits
from rebalance.data.table import content_hash
from rebalance.errors import InputError, RunError

TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"
COUNTS = {"zero": 30, "four": 8, "seven": 2}
WANTED = {"four": 7, "seven": 6}
MODES = ("text", "image", "adapted")
Edit = Callable[[str, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of real digits, 16 px; not to be changed."""
    root, table = tmp_path_factory.mktemp("digits"), read_digits().train
    for name, n in COUNTS.items():
        (root / name).mkdir()
        rows = np.flatnonzero(table.targets == {"zero": 0, "four": 4, "seven": 7}[name])[:n]
        for row in rows:
            Image.fromarray(table.images[row]).resize((16, 16)).save(root / name / f"{row}.png")
    return root


@cache
def features(digits: Path) -> Path:
    """A classifier that hardly learnt, for the gates."""
    training = TrainConfig(
        data=DataConfig(data=str(digits)),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(updates=6),
        place=PlaceConfig(output=digits.parent / f"{digits.name}-features", device="cpu", report_to="none"),
    )
    return train(training).folder


def config(digits: Path, out: Path, mode: str = "text", **changes: Any) -> SynthesizeConfig:
    """Settings that are quick; names of any of the groups' fields."""
    groups: dict[str, tuple[type, dict[str, Any]]] = {
        "budget": (BudgetConfig, {"budget": "explicit", "count": tuple(f"{k}={n}" for k, n in WANTED.items())}),
        "generator": (GeneratorConfig, {"generator": "stable-diffusion", "steps": 4, "sampling_batch": 4}),
        "stable_diffusion": (StableDiffusionConfig, {"checkpoint": str(TINY_SD), "mode": mode}),
        "filter": (FilterConfig, {"features": features(digits), "skip_gate": ("distance", "third-class")}),
        "files": (ImageFilesConfig, {}),
    }
    if mode == "adapted":
        changes = {"generator_updates": 6, "generator_batch_size": 4, "generator_lr": 1e-2, **changes}
    settings = {}
    for name, (cls, values) in groups.items():
        own = {key: changes.pop(key) for key in list(changes) if key in cls.__dataclass_fields__}
        settings[name] = cls(**values | own)
    return SynthesizeConfig(data=DataConfig(data=str(digits)), out=out, device="cpu", **settings, **changes)


def run(given: SynthesizeConfig) -> list[Row]:
    result = synthesize(given)
    assert result is not None
    return read_manifest(result.folder)


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished synthesis of each mode; not to be changed."""
    root = tmp_path_factory.mktemp("synthesis")
    for mode in MODES:
        synthesize(config(digits, root / mode, mode))
    return {mode: root / mode for mode in MODES}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but journals and what names the folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("environment.json", "config.yaml")
        and "journals" not in path.relative_to(folder).parts
    }


# What is made


@pytest.mark.parametrize("mode", MODES)
def test_the_manifest_says_everything_that_made_an_image(finished: dict[str, Path], mode: str) -> None:
    rows = read_manifest(finished[mode])
    assert {row["class"] for row in rows} == set(WANTED)
    for row in rows:
        assert row["mode"] == ("image" if mode == "image" else "text")
        assert row["class"] in row["prompt"]
        assert (row["steps"], row["guidance"], row["scheduler"], row["negative"]) == (4, 2.0, "dpmsolver++", "")
        made_by = row["made_by"]
        assert (made_by["checkpoint"], made_by["revision"], made_by["device"]) == ("tiny_sd", None, "cpu")
        assert made_by["licence"] == "unknown: see the model card"
        assert (made_by["dtype"], made_by["batch_size"], made_by["size"]) == ("float32", 4, 16)
        assert made_by["versions"].keys() == {"torch", "diffusers", "transformers", "peft"}
        assert made_by["safety_checker"] == "on"
        assert len(made_by["weights"]) == 64
        assert ("strength" in row, "source" in row, "adapter" in row) == (
            mode == "image",
            mode == "image",
            mode == "adapted",
        )
    header = (finished[mode] / "manifest.csv").read_text().partition("\n")[0].split(",")
    assert {"made_by.versions.torch", "made_by.licence", "prompt", "scores.distance", "reason"} <= set(header)


def test_images_are_of_the_size_of_the_checkpoint_and_differ(finished: dict[str, Path]) -> None:
    files = list((finished["text"] / "images").rglob("*.png"))
    assert {read(file).shape for file in files} == {(16, 16, 3)}
    assert len({file.read_bytes() for file in files}) == len(files) >= 8


def test_sources_are_the_classs_own_images_and_donors_where_they_are_few(
    digits: Path, finished: dict[str, Path]
) -> None:
    hashes = {name: {content_hash(str(file)).hex() for file in (digits / name).iterdir()} for name in COUNTS}
    rows = read_manifest(finished["image"])
    fours = [row for row in rows if row["class"] == "four"]
    assert {row["source"] for row in fours} <= hashes["four"]
    assert {row["strength"] for row in fours} == {0.4, 0.55, 0.7, 0.85}
    sevens = [row for row in rows if row["class"] == "seven"]
    own = [row for row in sevens if not row["donor"]]
    donated = [row for row in sevens if row["donor"]]
    assert {row["source"] for row in own} == hashes["seven"]
    assert donated
    assert {row["source"] for row in donated} <= hashes["zero"] | hashes["four"]
    assert {row["strength"] for row in donated} == {0.85}


def test_an_adapter_changes_the_images_and_can_be_used_again(
    digits: Path, finished: dict[str, Path], tmp_path: Path
) -> None:
    adapted, base = read_manifest(finished["adapted"]), read_manifest(finished["text"])
    assert {row["seed"] for row in adapted} == {row["seed"] for row in base}
    assert not {row["sha256"] for row in adapted} & {row["sha256"] for row in base}
    assert not (finished["adapted"] / "generator" / "checkpoints").exists()
    folder = finished["adapted"] / "generator" / "adapter"
    again = run(config(digits, tmp_path / "again", "text", adapter=folder))
    assert [(row["job"], row["sha256"]) for row in again] == [(row["job"], row["sha256"]) for row in adapted]


def test_tokens_are_learnt_used_in_prompts_and_come_with_the_adapter(digits: Path, tmp_path: Path) -> None:
    learnt = run(config(digits, tmp_path / "learnt", "adapted", class_tokens=True, max_images=4))
    assert {row["prompt"] for row in learnt if row["class"] == "four"} <= {
        row["prompt"] for row in learnt if "<class-0> four" in row["prompt"]
    }
    adapter = tmp_path / "learnt" / "generator" / "adapter"
    again = run(config(digits, tmp_path / "again", "text", adapter=adapter, max_images=4))
    assert [row["sha256"] for row in again] == [row["sha256"] for row in learnt]
    (tmp_path / "others").mkdir()
    for old, new in (("zero", "one"), ("four", "four"), ("seven", "seven")):
        shutil.copytree(digits / old, tmp_path / "others" / new)
    with pytest.raises(InputError, match="an adapter with tokens for the classes of the data"):
        synthesize(config(tmp_path / "others", tmp_path / "no", adapter=adapter))


def test_prompts_come_from_templates_descriptions_and_names(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "says.yaml").write_text("four: [drawn in red, drawn in blue]\nseven: 'a large {name}'\n")
    (tmp_path / "names.csv").write_text("class,name\nfour,number four\n")
    rows = run(
        config(
            digits,
            tmp_path / "out",
            template=("a drawing of a {name}",),
            descriptions=tmp_path / "says.yaml",
            class_names=tmp_path / "names.csv",
            negative_prompt="yellow",
        )
    )
    prompts = {name: {row["prompt"] for row in rows if row["class"] == name} for name in WANTED}
    assert prompts["four"] == {f"a drawing of a number four, drawn in {colour}" for colour in ("red", "blue")}
    assert prompts["seven"] == {"a large seven"}
    assert {row["negative"] for row in rows} == {"yellow"}


# Interrupted


class StopError(Exception):
    """Stands for a kill."""


def stopping(function: Callable[..., Any], every: int) -> Callable[..., Any]:
    """`function`, which stops at every so-manieth call."""
    calls = 0

    def stop_or_call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            raise StopError
        return function(*arguments)

    return stop_or_call


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_synthesis_ends_with_the_same_files(
    mode: str, digits: Path, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_write", stopping(candidates._write, 5))
    monkeypatch.setattr(generators.lora_training, "_step", stopping(generators.lora_training._step, 4))
    frequent = partial(AdaptationSettings, checkpoint_updates=2)
    monkeypatch.setattr("pipelines.stable_diffusion_plan.AdaptationSettings", frequent)
    stops = 0
    while stops < 9:
        try:
            synthesize(config(digits, tmp_path / "out", mode))
        except StopError:
            stops += 1
            continue
        break
    assert 1 <= stops < 9
    assert tree(tmp_path / "out") == tree(finished[mode])


def test_a_full_disk_is_said_and_nothing_is_lost(
    digits: Path, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = candidates._write

    def write_or_fail(folder: Path, job: Any, *rest: Any) -> Any:
        if job.index == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "_write", write_or_fail)
        with pytest.raises(RunError, match=r"No space left on device; once there is room, the same command goes on"):
            synthesize(config(digits, tmp_path / "out"))
    with pytest.raises(RunError, match="raise --max-gb"):
        synthesize(config(digits, tmp_path / "out", max_gb=1e-6))
    synthesize(config(digits, tmp_path / "out"))
    assert tree(tmp_path / "out") == tree(finished["text"])


def test_an_adapter_of_other_weights_is_not_taken_up(digits: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(TINY_SD, base)
    given = config(digits, tmp_path / "out", "adapted", checkpoint=str(base))
    synthesize(given)
    (tmp_path / "out" / "metrics.json").unlink()
    edit(base / "unet" / "diffusion_pytorch_model.safetensors", lambda name, tensor: tensor * 0.9)
    with pytest.raises(InputError, match="the checkpoint that the adapter was trained on"):
        synthesize(given)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["text", "image"])
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_ranks_make_the_files_of_one(
    n_ranks: int, mode: str, digits: Path, finished: dict[str, Path], tmp_path: Path
) -> None:
    words = f"--generator stable-diffusion --checkpoint {TINY_SD} --mode {mode} --steps 4 --sampling-batch 4"
    words += f" --budget explicit --count four=7 --count seven=6 --features {features(digits)}"
    words += f" --skip-gate distance --skip-gate third-class --device cpu --out {tmp_path / 'out'}"
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_ranks), "-m", "cli"]
    process = subprocess.run(
        [sys.executable, *ranks, "synthesize", str(digits), *words.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    made, expected = tree(tmp_path / "out"), tree(finished[mode])
    assert made == expected


# Gates and files


def edit(file: Path, change: Edit) -> None:
    save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def test_what_the_safety_checker_objects_to_is_never_saved_and_spare_candidates_are_tried(
    digits: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(TINY_SD, folder)

    def object_to_some(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "concept_embeds":
            return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5)).to(tensor.dtype)
        return torch.full_like(tensor, 0.36) if name == "concept_embeds_weights" else tensor

    edit(folder / "safety_checker" / "model.safetensors", object_to_some)
    rows = run(config(digits, tmp_path / "out", checkpoint=str(folder)))
    flagged = [row for row in rows if row.get("failure")]
    assert 0 < len(flagged) < len(rows)
    assert {(row["failure"], row["reason"], row["path"], row["bytes"]) for row in flagged} == {
        ("safety checker", "safety checker", None, 0)
    }
    assert len(list((tmp_path / "out" / "candidates").rglob("*.png"))) == len(rows) - len(flagged)
    assert len(rows) > sum(WANTED.values())
    assert len(rows) <= sum(n + -(-7 * n // 10) for n in WANTED.values())
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert sum(entry["rejected"].get("safety checker", 0) for entry in summary["classes"]) == len(flagged)

    unchecked = run(config(digits, tmp_path / "off", checkpoint=str(folder), safety_checker=False))
    assert {row["made_by"]["safety_checker"] for row in unchecked} == {"off"}
    assert not any(row.get("failure") for row in unchecked)


def test_images_that_are_not_finite_are_recorded_and_the_rest_goes_on(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(TINY_SD, folder)
    edit(
        folder / "unet" / "diffusion_pytorch_model.safetensors", lambda name, tensor: torch.full_like(tensor, torch.nan)
    )
    rows = run(config(digits, tmp_path / "out", checkpoint=str(folder)))
    assert {(row["failure"], row["reason"], row["path"]) for row in rows} == {("not finite", "not finite", None)}
    assert len(rows) == sum(n + -(-7 * n // 10) for n in WANTED.values())
    assert not list((tmp_path / "out" / "images").iterdir())


@pytest.mark.parametrize(("kind", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
def test_other_formats_and_sizes_hold_the_same_images(
    kind: str, suffix: str, digits: Path, finished: dict[str, Path], tmp_path: Path
) -> None:
    rows = run(config(digits, tmp_path / "same", format=kind))
    base = {(row["class"], row["index"]): row for row in read_manifest(finished["text"])}
    for row in rows:
        other = base[row["class"], row["index"]]
        assert Path(row["path"]).suffix == suffix
        assert row["job"] == other["job"]
        gap = np.abs(read(tmp_path / "same" / row["path"]) - read(finished["text"] / other["path"]))
        assert gap.max() == 0 if kind == "webp" else 0 < gap.mean() < 4
        with Image.open(tmp_path / "same" / row["path"]) as image:
            assert image.getexif()[0x010D] == row["job"]
    small = run(config(digits, tmp_path / "small", format=kind, output_size=8))
    assert read(tmp_path / "small" / small[0]["path"]).shape == (8, 8, 3)
    assert not {row["job"] for row in small} & {row["job"] for row in rows}


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image, dtype=int)


def test_shards_hold_the_kept_images_and_train_like_the_folder(
    digits: Path, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(digits, tmp_path / "out", shards=True, shard_images=4)
    with monkeypatch.context() as patch:
        patch.setattr("generators.shards.write_json", stopping(lambda *arguments: None, 1))
        with pytest.raises(StopError):
            synthesize(given)
    first = (tmp_path / "out" / "shards" / "000000.tar").read_bytes()
    rows = run(given)
    assert (tmp_path / "out" / "shards" / "000000.tar").read_bytes() == first
    assert not (tmp_path / "out" / "images").exists()
    kept = [row for row in rows if row["verdict"] == "kept"]
    shards = sorted((tmp_path / "out" / "shards").glob("*"))
    assert [file.name for file in shards] == [*(f"{i:06d}.tar" for i in range(-(-len(kept) // 4))), "classes.json"]
    names: list[str] = []
    for file in shards[:-1]:
        with tarfile.open(file) as tar:
            names += tar.getnames()
    assert len(names) == 3 * len(kept)
    assert {Path(name).suffix for name in names} == {".png", ".cls", ".json"}

    real = load_splits(given.data).train
    tables = {}
    for place in ("out", "out/shards"):
        training = TrainConfig(data=given.data, synthetic=tmp_path / place)
        added = open_synthetic(training, given.data, real, 16, torch.device("cpu"))
        assert added is not None
        tables[place] = added
    everything = np.arange(len(kept))
    assert tables["out"].table.targets.tolist() == tables["out/shards"].table.targets.tolist()
    assert torch.equal(tables["out"].store.get(everything), tables["out/shards"].store.get(everything))
    few = TrainConfig(data=DataConfig(data=str(digits), cache_gb=1e-6), synthetic=tmp_path / "out" / "shards")
    with pytest.raises(InputError, match="--cache-gb"):
        open_synthetic(few, few.data, real, 16, torch.device("cpu"))


def test_class_conditional_images_have_the_same_choice_of_files(digits: Path, tmp_path: Path) -> None:
    own = GeneratorConfig(
        generator_updates=2, generator_batch_size=4, generator_channels=(8, 16), steps=2, sampling_batch=4
    )
    given = config(digits, tmp_path / "out", format="webp", output_size=24, shards=True, max_images=4)
    given = replace(given, generator=own, stable_diffusion=StableDiffusionConfig())
    rows = run(given)
    assert {Path(row["path"]).suffix for row in rows} == {".webp"}
    assert read(tmp_path / "out" / rows[0]["path"]).shape == (24, 24, 3)
    assert {row["output_size"] for row in rows} == {24}
    assert (tmp_path / "out" / "shards" / "000000.tar").exists() == any(row["verdict"] == "kept" for row in rows)


# Before work


@pytest.mark.parametrize("mode", MODES)
def test_dry_run_says_what_it_costs_and_writes_nothing(
    mode: str, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="rebalance"):
        assert synthesize(config(digits, tmp_path / "out", mode, dry_run=True)) is None
    assert not (tmp_path / "out").exists()
    words = caplog.records[-1].getMessage()
    assert f"13 images of 16 px; tiny_sd (unknown: see the model card), mode {mode}, 16 px" in words
    assert ("adapter: 6 updates of 4 images" in words) == (mode == "adapted")
    assert " minutes; about " in words


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("text", {"strength": (0.5,)}, "no --strength with --mode text, which has no source images"),
        ("adapted", {"min_sources": 2}, "no --min-sources with --mode adapted"),
        ("text", {"lora_rank": 4}, "no --lora-rank with --mode text, which trains nothing"),
        ("image", {"class_tokens": True}, "no --class-tokens with --mode image"),
        ("adapted", {"token_lr": 0.1}, "no --token-lr with no tokens to learn"),
        ("adapted", {"adapter": Path("a")}, "no --adapter with --mode adapted, which trains one"),
        ("text", {"generator_updates": 5}, "no --generator-updates with --mode text"),
        ("image", {"label_exponent": 1.0}, "no --label-exponent with --mode image"),
        ("adapted", {"generator_channels": (8, 16)}, "no --generator-channels with --generator stable-diffusion"),
        ("text", {"generator_ema": 0.9}, "no --generator-ema with --generator stable-diffusion"),
        ("text", {"generator": "class-conditional"}, "no --checkpoint with --generator class-cond"),
        ("text", {"negative_prompt": "x", "guidance": 1.0}, "--guidance above 1 with --negative-prompt"),
        ("text", {"shard_images": 5}, "no --shard-images with an image folder"),
        ("text", {"output_size": 4}, "--output-size from 8"),
        ("image", {"strength": (1.5,)}, "--strength from"),
        ("image", {"strength": (0.2,)}, r"int\(steps × strength\) of at least 1; got 4 × 0.2"),
        ("text", {"steps": 0}, "--steps from 1"),
        ("text", {"generator_size": 15}, "a size that is a multiple of 2 px"),
        ("text", {"template": ("a photo",)}, "a template with {name} in it"),
        ("text", {"template": ("a {name} " * 40,)}, "prompts of at most 77 tokens"),
        ("text", {"descriptions": Path("nowhere.yaml")}, "a file nowhere.yaml"),
        ("text", {"adapter": Path("nowhere")}, "an adapter folder"),
        ("text", {"max_gb": 1e-6}, r"a plan of at most 1e-06 GB \(--max-gb\)"),
        ("text", {"max_minutes": 1e-9}, "--max-minutes"),
        ("text", {"checkpoint": "no/where"}, "cached or can be fetched"),
        ("text", {"checkpoint": "./nowhere"}, "a checkpoint folder or a hub name"),
        ("text", {"revision": "main"}, "a revision for hub names only"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    mode: str, changes: dict[str, Any], message: str, digits: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        synthesize(config(digits, tmp_path / "out", mode, offline=True, **changes))
    assert not (tmp_path / "out").exists()


def test_long_prompts_are_cut_on_request(digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = config(digits, tmp_path / "out", template=("a {name} " * 40,), cut_prompts=True, dry_run=True)
    with caplog.at_level("WARNING", logger="rebalance"):
        synthesize(given)
    assert "prompt cut from" in caplog.text


def test_the_default_checkpoint_is_the_librarys() -> None:
    assert StableDiffusionConfig().checkpoint == DEFAULT_CHECKPOINT


def test_defaults_of_both_generators_are_accepted_by_both_commands() -> None:
    for kind in ("class-conditional", "stable-diffusion"):
        for cls in (SynthesizeConfig, RebalanceConfig):
            check_generator(cls(data=DataConfig(data="digits"), generator=GeneratorConfig(generator=kind)))


def test_run_refuses_foreign_settings_before_it_reads_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere", "--mode", "image"]) == 2
    assert "expected no --mode with --generator class-conditional" in capsys.readouterr().err
    assert main(["run", "nowhere", "--generator", "stable-diffusion", "--generator-channels", "8", "16"]) == 2
    assert "expected no --generator-channels with --generator stable-diffusion" in capsys.readouterr().err


def test_an_offline_checkpoint_that_is_not_cached_says_what_to_do(
    digits: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(here / "cache"))
    assert main(["synthesize", str(digits), "--generator", "stable-diffusion", "--offline", "--device", "cpu"]) == 2
    words = capsys.readouterr().err
    assert DEFAULT_CHECKPOINT in words
    assert "fetch it once with `hf download` and pass its folder" in words
