"""`resample`: a list with the rows that the samplers give, which this and other tools read."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from cli import main
from pipelines import DataConfig, EvaluateConfig, InspectConfig, ResampleConfig, evaluate, inspect, resample
from pipelines.resampling import resampled_rows
from rebalance.errors import InputError
from rebalance.resampling import EffectiveNumberSampler, FillSampler, InverseFrequencySampler, SquareRootSampler

COUNTS = {"f.o.u.r": 7, "tail": 3, "two words": 16, "круг": 40}
TARGETS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), list(COUNTS.values())))
TRAIN = "--updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu".split()
PAGE = (Path(__file__).parents[2] / "docs" / "balanced-list.md").read_text()


def config(data: Path, out: Path, **settings: Any) -> ResampleConfig:
    own = {name: settings.pop(name) for name in list(settings) if name in DataConfig.__dataclass_fields__}
    return ResampleConfig(data=DataConfig(data=str(data), **own), out=out, **settings)


def read(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return [(row["path"], row["label"]) for row in csv.DictReader(text)]


# Which rows


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        ({}, FillSampler(random_state=3)),
        ({"rows": "same"}, InverseFrequencySampler(random_state=3)),
        ({"rows": "same", "strength": 0.5}, InverseFrequencySampler(exponent=0.5, random_state=3)),
        ({"rows": "same", "rule": "sqrt-inverse"}, SquareRootSampler(random_state=3)),
        ({"rows": "same", "rule": "effective-number"}, EffectiveNumberSampler(random_state=3)),
        (
            {"rows": "same", "rule": "effective-number", "cb_beta": 0.9},
            EffectiveNumberSampler(cb_beta=0.9, random_state=3),
        ),
        ({"rows": "cut"}, InverseFrequencySampler(n_samples=12, random_state=3)),
    ],
)
def test_the_rows_are_those_of_the_samplers(settings: dict[str, Any], sampler: Any) -> None:
    sampler.fit_resample(np.arange(TARGETS.size)[:, None], TARGETS)
    rows = resampled_rows(TARGETS, tuple(COUNTS), config(Path("any"), Path("any"), seed=3, **settings))
    np.testing.assert_array_equal(rows, sampler.sample_indices_)


@pytest.mark.parametrize("rule", ["inverse", "sqrt-inverse", "effective-number"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_filling_leaves_out_no_image_and_cutting_repeats_none(rule: str, strength: float) -> None:
    for seed in range(20):
        counts = np.random.default_rng(seed).integers(1, 200, 7)
        targets = np.repeat(np.arange(7), counts)
        times = {}
        for length in ("fill", "same", "cut"):
            settings = config(Path("any"), Path("any"), rows=length, rule=rule, strength=strength, seed=seed)
            times[length] = np.bincount(resampled_rows(targets, tuple("abcdefg"), settings), minlength=len(targets))
        assert times["fill"].min() == 1
        assert times["cut"].max() == 1
        assert times["same"].sum() == len(targets)
        assert times["cut"].sum() <= len(targets) <= times["fill"].sum()
        if strength == 0:
            assert all((value == 1).all() for value in times.values())


def test_filling_by_a_milder_rule_ends_in_its_shares(photos: Path, tmp_path: Path) -> None:
    made = resample(config(photos, tmp_path / "a.csv", rule="sqrt-inverse"))
    np.testing.assert_allclose(made.rows, np.sqrt(40 * np.array(list(COUNTS.values()))), atol=0.5)


def test_the_seed_decides_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    texts = []
    for seed in (0, 0, 1):
        resample(config(photos, tmp_path / "a.csv", rows="same", seed=seed))
        texts.append((tmp_path / "a.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


# The list


def test_the_list_is_read_by_train_inspect_and_pandas(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "photos")
    made = resample(config(Path("photos"), Path("balanced.csv")))
    assert dict(zip(made.classes, made.counts, strict=True)) == COUNTS
    assert (made.rows, made.used, made.most_often) == ((40,) * 4, (7, 3, 16, 40), (6, 14, 3, 1))
    held_out = {"test": Path("balanced.test.csv")}
    assert (made.splits, made.held_out, made.root) == ({"train": 66, "test": 40}, held_out, None)
    rows = read(Path("balanced.csv"))
    assert {str(Path(path).parent) for path, _ in rows} == {f"photos/train/{name}" for name in COUNTS}
    assert len({path for path, _ in rows}) == 66
    found = inspect(InspectConfig(data=DataConfig(data="balanced.csv")))
    assert (found.classes, found.counts) == (made.classes, (40,) * 4)
    assert pandas.read_csv("balanced.csv")["label"].value_counts().to_dict() == dict.fromkeys(COUNTS, 40)
    assert made.training == "rebalance train balanced.csv --test-list balanced.test.csv"
    assert main([*shlex.split(made.training)[1:], *TRAIN]) == 0
    run = Path("runs/train/balanced.csv-balanced_mixup")
    assert json.loads((run / "model" / "model.json").read_text())["train_counts"] == [40] * 4
    assert evaluate(EvaluateConfig(run=run, data="photos", device="cpu"))["n_images"] == 40


def test_files_that_are_not_below_the_list_have_whole_paths_and_a_root(photos: Path, here: Path) -> None:
    made = resample(config(photos, Path("balanced.csv")))
    rows = read(made.file)
    assert all(Path(path).is_absolute() and Path(path).is_file() for path, _ in rows)
    assert made.root == photos.resolve()
    assert main([*shlex.split(made.training)[1:], *TRAIN]) == 0


def test_links_are_followed(photos: Path, here: Path) -> None:
    for name in ("tail", "круг"):
        (here / "links" / name).mkdir(parents=True)
        for file in (photos / "train" / name).iterdir():
            (here / "links" / name / file.name).symlink_to(file)
    made = resample(config(here / "links", here / "balanced.csv"))
    assert made.root == (photos / "train").resolve()
    assert inspect(InspectConfig(data=DataConfig(data="balanced.csv", root=made.root))).counts == (40, 40)


def test_data_are_cut_and_lists_are_read_as_elsewhere(photos: Path, here: Path) -> None:
    cut = resample(config(photos / "test", here / "a.csv", imbalance_factor=5))
    assert max(cut.counts) == 5 * min(cut.counts)
    assert set(cut.rows) == {max(cut.counts)}
    assert cut.notes
    files = sorted((photos / "train" / "tail").iterdir())
    lines = ["file,kind,split", *(f"{f},{'ab'[f == files[0]]},train" for f in files), f"{files[0].parent}/0.jpg,a,test"]
    Path("list.csv").write_text("\n".join([*lines[:-1], ""]))
    made = resample(config(Path("list.csv"), here / "b.csv", root=photos, path_column="file", label_column="kind"))
    assert (made.classes, made.counts, made.rows) == (("a", "b"), (2, 1), (2, 2))


def test_unreadable_images_are_left_out_where_that_is_asked_for(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "copy")
    (here / "copy" / "train" / "tail" / "0.jpg").write_bytes(b"broken")
    made = resample(config(here / "copy", here / "a.csv", skip_corrupt=True))
    assert dict(zip(made.classes, made.counts, strict=True))["tail"] == 2
    assert "tail/0.jpg" not in (here / "a.csv").read_text()


def held_out_broken(photos: Path, here: Path, n: int) -> Path:
    """Images of which the first `n` that `test_fraction=0.2` holds out cannot be read."""
    shutil.copytree(photos / "train", here / "flat")
    held_out = resample(config(here / "flat", here / "a.csv", test_fraction=0.2)).held_out["test"]
    for number, (path, _) in enumerate(read(held_out)[:n]):
        file = here / path
        file.write_bytes(f"{number}".encode().ljust(file.stat().st_size, b"!"))
    return here / "flat"


def test_unreadable_images_count_in_no_split(photos: Path, here: Path) -> None:
    data = held_out_broken(photos, here, 2)
    made = resample(config(data, here / "b.csv", test_fraction=0.2, skip_corrupt=True))
    assert made.splits == {"train": sum(made.counts), "test": len(read(made.held_out["test"]))}
    assert sum(made.splits.values()) == sum(COUNTS.values()) - 2


def test_a_held_out_split_that_cannot_be_read_at_all_is_refused(photos: Path, here: Path) -> None:
    data = held_out_broken(photos, here, 99)
    with pytest.raises(InputError, match=r"readable test images; got none of"):
        resample(config(data, here / "b.csv", test_fraction=0.2, skip_corrupt=True))
    assert not list(here.glob("b.*"))


# The command


def test_the_command_shows_the_classes_before_and_after(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resample", str(photos)]) == 0
    shown = capsys.readouterr()
    row = next(line for line in shown.out.splitlines() if "tail" in line)
    assert re.findall(r"[\w.%]+", row) == ["tail", "3", "4.5%", "few", "40", "25.0%", "3", "14"]
    assert "66 training images, 160 rows: runs/resample/my-photos.csv" in shown.err
    assert "40 images of the test split are not in it, but, as they are, in runs/resample/my-photos.test" in shown.err
    lists = "runs/resample/my-photos.csv --test-list runs/resample/my-photos.test.csv"
    assert f"to train on it: rebalance train {lists} --root " in shown.err
    assert main(["resample", str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [40] * 4


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["digits"], "expected images that lie in files of their own\n  got digits, which has none\n  take rebalance"),
        (["cifar10", "--root", "data"], "got cifar10, which has none"),
        (["photos", "--out", "list.txt"], "expected --out FILE.csv\n  got list.txt"),
        (["photos", "--out", "folder.csv"], "expected --out FILE.csv\n  got folder.csv"),
        (["list.csv", "--out", "list.csv"], "expected another file to write\n  got list.csv, which is read"),
        (["photos", "--strength", "nan"], "--strength of at least 0"),
        (["photos", "--seed", "-1"], "--seed of at least 0"),
        (["photos", "--seed", "4294967296"], "--seed of at most 4294967295"),
        (["photos", "--cb-beta", "0.9"], "--rule effective-number with --cb-beta"),
        (["photos", "--image-size", "32"], "pixels as DATA with --image-size"),
        (["photos", "--rows", "same", "--strength", "6"], "expected a row of every class\n  got none of 'two words'"),
        (["photos", "--strength", "9"], "a list of at most 100,000,000 rows"),
        (["empty"], "0 images of 'nothing', 'nothing else'\n  remove the classes or add images of them"),
        (["blank"], "names without blanks at their ends"),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(
    words: Sequence[str], error: str, photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, here / "photos")
    shutil.copytree(photos, here / "empty")
    for name in ("nothing", "nothing else"):
        (here / "empty" / "train" / name).mkdir()
    shutil.copytree(photos / "train", here / "blank")
    (here / "blank" / "tail").rename(here / "blank" / "tail ")
    (here / "folder.csv").mkdir()
    (here / "list.csv").write_text("path,label\nphotos/train/tail/0.jpg,a\nphotos/train/tail/1.jpg,b\n")
    before = sorted(here.rglob("*"))
    assert main(["resample", *words]) == 2
    assert error in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


# The page


def test_the_page_runs(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "photos")
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S):
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            assert main([*words, *(TRAIN if words[0] == "train" else [])]) == 0
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(compile(block, "balanced-list.md", "exec"), names)
    assert names["rows"]["label"].value_counts().to_dict() == dict.fromkeys(COUNTS, 40)
    assert names["times"]["times"].sum() == 160
    assert names["times"].groupby("label")["times"].max().to_dict() == {
        "f.o.u.r": 6,
        "tail": 14,
        "two words": 3,
        "круг": 1,
    }
