"""`resample`: the lists of validation and test images beside the balanced one, and the training that is advised."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli import main
from pipelines import DataConfig, ResampleConfig, resample
from rebalance.errors import InputError

TRAIN = "--updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu".split()


def config(data: Path, out: Path, **settings: Any) -> ResampleConfig:
    own = {name: settings.pop(name) for name in list(settings) if name in DataConfig.__dataclass_fields__}
    return ResampleConfig(data=DataConfig(data=str(data), **own), out=out, **settings)


def read(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return [(row["path"], row["label"]) for row in csv.DictReader(text)]


def test_the_advised_training_has_the_validation_and_test_images_of_a_list(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "photos")
    rows = ["file,label,split"]
    for split, folder in (("train", "train"), ("test", "test")):
        for number, path in enumerate(sorted((here / "photos" / folder).glob("*/*"))):
            kind = "valid" if split == "test" and number % 2 else split
            rows.append(f"{path.relative_to(here)},{path.parent.name},{kind}")
    Path("all.csv").write_text("\n".join([*rows, ""]))
    made = resample(config(Path("all.csv"), Path("balanced.csv"), path_column="file"))
    assert made.splits == {"train": 66, "val": 20, "test": 20}
    assert main([*shlex.split(made.training)[1:], *TRAIN]) == 0
    metrics = json.loads(Path("runs/train/balanced.csv-balanced_mixup/metrics.json").read_text())
    assert (sum(metrics["val"]["support"]), sum(metrics["test"]["support"])) == (20, 20)


def test_what_is_held_out_goes_as_it_is_into_lists_of_its_own(photos: Path, here: Path) -> None:
    shutil.copytree(photos / "train", here / "flat")
    for file in (here / "flat" / "tail").iterdir():
        for copy in range(9):
            (file.parent / f"{copy} of {file.name}").write_bytes(file.read_bytes() + bytes([copy]))
    made = resample(config(here / "flat", here / "new" / "a b.csv", test_fraction=0.2))
    assert made.held_out == {"test": here / "new" / "a b.test.csv"}
    train, test = read(made.file), read(made.held_out["test"])
    assert not {path for path, _ in train} & {path for path, _ in test}
    assert Counter(label for _, label in test) == {"tail": 6, "two words": 3, "круг": 8, "f.o.u.r": 1}
    assert set(Counter(label for _, label in train).values()) == {32}
    assert made.root == (here / "flat").resolve()
    assert main([*shlex.split(made.training)[1:], *TRAIN]) == 0


def test_lists_that_were_held_out_before_are_told_of(
    photos: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photos / "train", here / "flat")
    for _ in range(2):
        made = resample(config(here / "flat", here / "a.csv", test_fraction=0.2))
    assert "written before" not in caplog.text
    whole = resample(config(here / "flat", here / "a.csv"))
    assert {path for path, _ in read(made.held_out["test"])} <= {path for path, _ in read(whole.file)}
    assert f"{made.held_out['test']} was written before: its images may be in {whole.file} now" in caplog.text


def test_a_list_that_is_read_is_none_that_was_held_out_before(
    photos: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photos / "train", here / "flat")
    made = resample(config(here / "flat", here / "a.csv", test_fraction=0.2))
    made.file.rename(here / "source.csv")
    resample(config(here / "source.csv", here / "a.csv", test_list=made.held_out["test"]))
    assert "written before" not in caplog.text


def test_a_list_of_what_is_held_out_is_not_written_over_one_that_is_read(photos: Path, here: Path) -> None:
    shutil.copytree(photos / "train" / "круг", here / "a")
    lines = ["path,label", *(f"a/{i}.jpg,{i % 2}" for i in range(40)), ""]
    Path("b.test.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"another file to write; got b.test.csv, which is read"):
        resample(config(Path("b.test.csv"), Path("b.csv"), test_fraction=0.2))
    assert not Path("b.csv").exists()
