"""What `--generator stable-diffusion` says and refuses before any work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from generators.stable_diffusion_checkpoint import DEFAULT_CHECKPOINT
from pipelines import DataConfig, GeneratorConfig, RebalanceConfig, StableDiffusionConfig, SynthesizeConfig, synthesize
from pipelines.generator_flags import check_generator
from rebalance.errors import InputError

MODES = ("text", "image", "adapted")
Config = Callable[..., SynthesizeConfig]


@pytest.mark.parametrize("mode", MODES)
def test_dry_run_says_what_it_costs_and_writes_nothing(
    sd_config: Config, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="rebalance"):
        assert synthesize(sd_config(tmp_path / "out", mode, dry_run=True)) is None
    assert not (tmp_path / "out").exists()
    words = "\n".join(record.getMessage() for record in caplog.records[-3:])
    assert re.search(r"^13 images of 16 px, about \d+ MB$", words, flags=re.M)
    assert f"\ntiny_sd (unknown: see the model card), mode {mode}, 16 px" in words
    assert ("adapter: 6 updates of 4 images" in words) == (mode == "adapted")
    assert re.search(r", about \d+ s\nsampling: about 17 candidates, \d+ s$", words)


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
        ("image", {"head_to_tail": (0.5,)}, "no --head-to-tail with --generator stable-diffusion"),
        ("adapted", {"generator_objective": "cbdm"}, "no --generator-objective with --generator stable-diffusion"),
        ("text", {"generator_augment": 0.1}, "no --generator-augment with --generator stable-diffusion"),
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
    sd_config: Config, mode: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        synthesize(sd_config(tmp_path / "out", mode, offline=True, **changes))
    assert not (tmp_path / "out").exists()


def test_long_prompts_are_cut_on_request(sd_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = sd_config(tmp_path / "out", template=("a {name} " * 40,), cut_prompts=True, dry_run=True)
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
    digit_folders: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(here / "cache"))
    assert (
        main(["synthesize", str(digit_folders), "--generator", "stable-diffusion", "--offline", "--device", "cpu"]) == 2
    )
    words = capsys.readouterr().err
    assert DEFAULT_CHECKPOINT in words
    assert "fetch it once with `hf download` and pass its folder" in words
