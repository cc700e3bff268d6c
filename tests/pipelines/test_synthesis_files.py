"""The image files of a synthesis: formats, sizes, shards."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generators.manifest import Row, read_manifest
from pipelines import DataConfig, GeneratorConfig, StableDiffusionConfig, SynthesizeConfig, TrainConfig, synthesize
from pipelines.loading import load_splits
from pipelines.synthetic_images import open_synthetic
from rebalance.errors import InputError

Config = Callable[..., SynthesizeConfig]


def run(given: SynthesizeConfig) -> list[Row]:
    result = synthesize(given)
    assert result is not None
    return read_manifest(result.folder)


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image, dtype=int)


class StopError(Exception):
    """Stands for a kill."""


def stop(*arguments: object) -> None:
    raise StopError


@pytest.mark.parametrize(("kind", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
def test_other_formats_and_sizes_hold_the_same_images(
    sd_config: Config, kind: str, suffix: str, sd_finished: dict[str, Path], tmp_path: Path
) -> None:
    rows = run(sd_config(tmp_path / "same", format=kind))
    base = {(row["class"], row["index"]): row for row in read_manifest(sd_finished["text"])}
    for row in rows:
        other = base[row["class"], row["index"]]
        assert Path(row["path"]).suffix == suffix
        assert row["job"] == other["job"]
        gap = np.abs(read(tmp_path / "same" / row["path"]) - read(sd_finished["text"] / other["path"]))
        assert gap.max() == 0 if kind == "webp" else 0 < gap.mean() < 4
        with Image.open(tmp_path / "same" / row["path"]) as image:
            assert image.getexif()[0x010D] == row["job"]
    small = run(sd_config(tmp_path / "small", format=kind, output_size=8))
    assert read(tmp_path / "small" / small[0]["path"]).shape == (8, 8, 3)
    assert not {row["job"] for row in small} & {row["job"] for row in rows}


def test_shards_hold_the_kept_images_and_train_like_the_folder(
    sd_config: Config,
    digit_folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = sd_config(tmp_path / "out", shards=True, shard_images=4)
    with monkeypatch.context() as patch:
        patch.setattr("generators.shards.write_json", stop)
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
    few = TrainConfig(data=DataConfig(data=str(digit_folders), cache_gb=1e-6), synthetic=tmp_path / "out" / "shards")
    with pytest.raises(InputError, match="--cache-gb"):
        open_synthetic(few, few.data, real, 16, torch.device("cpu"))


def test_class_conditional_images_have_the_same_choice_of_files(sd_config: Config, tmp_path: Path) -> None:
    own = GeneratorConfig(
        generator_updates=2, generator_batch_size=4, generator_channels=(8, 16), steps=2, sampling_batch=4
    )
    given = sd_config(tmp_path / "out", format="webp", output_size=24, shards=True, max_images=4)
    given = replace(given, generator=own, stable_diffusion=StableDiffusionConfig())
    rows = run(given)
    assert {Path(row["path"]).suffix for row in rows} == {".webp"}
    assert read(tmp_path / "out" / rows[0]["path"]).shape == (24, 24, 3)
    assert {row["output_size"] for row in rows} == {24}
    assert (tmp_path / "out" / "shards" / "000000.tar").exists() == any(row["verdict"] == "kept" for row in rows)
