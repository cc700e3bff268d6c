"""`synthesize --generator stable-diffusion`, with a small but whole checkpoint from disk, on a few real digits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from generators.manifest import Row, read_manifest
from pipelines import SynthesizeConfig, synthesize
from rebalance.data.table import content_hash
from rebalance.errors import InputError

TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"
COUNTS = {"zero": 30, "four": 8, "seven": 2}
WANTED = {"four": 7, "seven": 6}
MODES = ("text", "image", "adapted")
Edit = Callable[[str, torch.Tensor], torch.Tensor]
Config = Callable[..., SynthesizeConfig]


def run(given: SynthesizeConfig) -> list[Row]:
    result = synthesize(given)
    assert result is not None
    return read_manifest(result.folder)


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image, dtype=int)


def edit(file: Path, change: Edit) -> None:
    save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize("mode", MODES)
def test_the_manifest_says_everything_that_made_an_image(sd_finished: dict[str, Path], mode: str) -> None:
    rows = read_manifest(sd_finished[mode])
    assert {row["class"] for row in rows} == set(WANTED)
    for row in rows:
        assert row["mode"] == ("image" if mode == "image" else "text")
        assert row["class"] in row["prompt"]
        assert (row["steps"], row["guidance"], row["scheduler"], row["negative"]) == (4, 2.0, "dpmsolver++", "")
        made_by = row["made_by"]
        assert (made_by["checkpoint"], made_by["revision"], made_by["device"]) == ("tiny_sd", None, "cpu")
        assert made_by["licence"] == "unknown: see the model card"
        assert (made_by["dtype"], made_by["batch_size"], made_by["size"]) == ("float32", 4, 16)
        assert made_by["versions"].keys() == {"longtail-rebalance", "torch", "diffusers", "transformers", "peft"}
        assert made_by["safety_checker"] == "on"
        assert len(made_by["weights"]) == 64
        assert ("strength" in row, "source" in row, "adapter" in row) == (
            mode == "image",
            mode == "image",
            mode == "adapted",
        )
    header = (sd_finished[mode] / "manifest.csv").read_text().partition("\n")[0].split(",")
    assert {"made_by.versions.torch", "made_by.licence", "prompt", "scores.distance", "reason"} <= set(header)


def test_images_are_of_the_size_of_the_checkpoint_and_differ(sd_finished: dict[str, Path]) -> None:
    files = list((sd_finished["text"] / "images").rglob("*.png"))
    assert {read(file).shape for file in files} == {(16, 16, 3)}
    assert len({file.read_bytes() for file in files}) == len(files) >= 8


def test_sources_are_the_classs_own_images_and_donors_where_they_are_few(
    digit_folders: Path, sd_finished: dict[str, Path]
) -> None:
    hashes = {name: {content_hash(str(file)).hex() for file in (digit_folders / name).iterdir()} for name in COUNTS}
    rows = read_manifest(sd_finished["image"])
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
    sd_config: Config, sd_finished: dict[str, Path], tmp_path: Path
) -> None:
    adapted, base = read_manifest(sd_finished["adapted"]), read_manifest(sd_finished["text"])
    assert {row["seed"] for row in adapted} == {row["seed"] for row in base}
    assert not {row["sha256"] for row in adapted} & {row["sha256"] for row in base}
    assert not (sd_finished["adapted"] / "generator" / "checkpoints").exists()
    folder = sd_finished["adapted"] / "generator" / "adapter"
    again = run(sd_config(tmp_path / "again", "text", adapter=folder))
    assert [(row["job"], row["sha256"]) for row in again] == [(row["job"], row["sha256"]) for row in adapted]


def test_tokens_are_learnt_used_in_prompts_and_come_with_the_adapter(
    sd_config: Config, digit_folders: Path, tmp_path: Path
) -> None:
    learnt = run(sd_config(tmp_path / "learnt", "adapted", class_tokens=True, max_images=4))
    assert {row["prompt"] for row in learnt if row["class"] == "four"} <= {
        row["prompt"] for row in learnt if "<class-0> four" in row["prompt"]
    }
    adapter = tmp_path / "learnt" / "generator" / "adapter"
    again = run(sd_config(tmp_path / "again", "text", adapter=adapter, max_images=4))
    assert [row["sha256"] for row in again] == [row["sha256"] for row in learnt]
    (tmp_path / "others").mkdir()
    for old, new in (("zero", "one"), ("four", "four"), ("seven", "seven")):
        shutil.copytree(digit_folders / old, tmp_path / "others" / new)
    with pytest.raises(InputError, match="an adapter with tokens for the classes of the data"):
        synthesize(sd_config(tmp_path / "no", data=tmp_path / "others", adapter=adapter))


def test_an_adapter_of_other_weights_is_not_taken_up(sd_config: Config, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(TINY_SD, base)
    given = sd_config(tmp_path / "out", "adapted", checkpoint=str(base))
    synthesize(given)
    (tmp_path / "out" / "metrics.json").unlink()
    edit(base / "unet" / "diffusion_pytorch_model.safetensors", lambda name, tensor: tensor * 0.9)
    with pytest.raises(InputError, match="the checkpoint that the adapter was trained on"):
        synthesize(given)


def test_prompts_come_from_templates_descriptions_and_names(
    sd_config: Config, digit_folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "says.yaml").write_text("four: [drawn in red, drawn in blue]\nseven: 'a large {name}'\n")
    (tmp_path / "names.csv").write_text("class,name\nfour,number four\n")
    rows = run(
        sd_config(
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


def test_what_the_safety_checker_objects_to_is_never_saved_and_spare_candidates_are_tried(
    sd_config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(TINY_SD, folder)

    def object_to_some(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "concept_embeds":
            return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5)).to(tensor.dtype)
        return torch.full_like(tensor, 0.36) if name == "concept_embeds_weights" else tensor

    edit(folder / "safety_checker" / "model.safetensors", object_to_some)
    rows = run(sd_config(tmp_path / "out", checkpoint=str(folder)))
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

    unchecked = run(sd_config(tmp_path / "off", checkpoint=str(folder), safety_checker=False))
    assert {row["made_by"]["safety_checker"] for row in unchecked} == {"off"}
    assert not any(row.get("failure") for row in unchecked)


def test_images_that_are_not_finite_are_recorded_and_the_rest_goes_on(sd_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(TINY_SD, folder)
    edit(
        folder / "unet" / "diffusion_pytorch_model.safetensors", lambda name, tensor: torch.full_like(tensor, torch.nan)
    )
    rows = run(sd_config(tmp_path / "out", checkpoint=str(folder)))
    assert {(row["failure"], row["reason"], row["path"]) for row in rows} == {("not finite", "not finite", None)}
    assert len(rows) == sum(n + -(-7 * n // 10) for n in WANTED.values())
    assert not list((tmp_path / "out" / "images").iterdir())
