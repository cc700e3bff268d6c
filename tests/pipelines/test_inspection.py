"""`inspect`: figures, warnings, picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import main
from pipelines import DataConfig, InspectConfig, inspect
from pipelines.loading import load_splits, open_splits
from rebalance.errors import InputError


def test_counts_and_figures(photos: Path, here: Path) -> None:
    found = inspect(InspectConfig(data=DataConfig(data=str(photos), many=30, few=5)))
    assert dict(zip(found.classes, found.counts, strict=True)) == {
        "f.o.u.r": 7,
        "tail": 3,
        "two words": 16,
        "круг": 40,
    }
    assert found.statistics.imbalance_factor == pytest.approx(40 / 3)
    assert found.statistics.groups == ("medium", "few", "medium", "many")
    assert found.splits == {"train": 66, "test": 40}
    assert found.warnings == ()
    assert found.picture is not None
    with Image.open(found.picture) as picture:
        assert picture.size[0] > 500


def test_warns_of_what_will_hurt(photos: Path, here: Path) -> None:
    copy = here / "copy"
    shutil.copytree(photos, copy)
    train, test = copy / "train", copy / "test"
    (train / "empty").mkdir()
    (train / "single").mkdir()
    shutil.copy(train / "круг" / "1.jpg", train / "single" / "a.jpg")  # also the same image in two classes
    shutil.copy(train / "tail" / "0.jpg", test / "tail" / "again.jpg")  # the same image in two splits
    shutil.copy(train / "tail" / "1.jpg", train / "tail" / "twice.jpg")  # nothing that a test split would show
    (train / "tail" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    found = inspect(InspectConfig(data=DataConfig(data=str(copy))))
    text = "\n".join(found.warnings)
    assert "1 class with no training image: 'empty'; training refuses the data: add an image, or remove" in text
    assert "1 class with one training image: 'single'" in text
    assert "1 image cannot be read; training refuses the data without --skip-corrupt" in text
    assert "1 image is in two classes, 1 image is in two splits: figures on them mean little" in text
    assert "no test image of 'empty', 'single'" in text
    assert "more than once" not in text
    assert list(found.unreadable) == [str(train / "tail" / "broken.jpg")]
    assert sorted(len(group) for group in found.repeated) == [2, 2]


def test_without_corrupt_files_it_counts_what_training_would_have(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, here / "copy")
    for name in ("train/tail/0.jpg", "train/tail/1.jpg", "test/tail/0.jpg"):
        (here / "copy" / name).write_bytes(b"no image")
    data = DataConfig(data="copy", skip_corrupt=True)
    found = inspect(InspectConfig(data=data))
    splits = load_splits(data)
    opened = open_splits(splits, 16, data, torch.device("cpu"), ("train", "test"))
    assert found.counts == tuple(opened["train"].table.counts)
    assert found.splits == {name: len(part.table) for name, part in opened.items()}
    assert found.statistics.imbalance_factor == 40
    assert len(found.unreadable) == 3
    assert not any("cannot be read" in warning for warning in found.warnings)
    assert "2 of 66 train images cannot be read: left out" in found.notes
    capsys.readouterr()
    assert main(["inspect", "copy", "--skip-corrupt"]) == 0
    shown = capsys.readouterr().err
    assert "  cannot decode copy/train/tail/0.jpg: no image that Pillow knows\n" in shown
    assert shown.count("tail/0.jpg") == 2  # of train and of test


def test_a_class_that_skipping_leaves_empty_is_told_of(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "copy")
    for file in (here / "copy" / "train" / "tail").iterdir():
        file.write_bytes(b"no image")
    found = inspect(InspectConfig(data=DataConfig(data="copy", skip_corrupt=True)))
    assert "1 class with no training image: 'tail'" in "\n".join(found.warnings)
    for file in (here / "copy" / "test").glob("*/*.*"):
        file.write_bytes(b"no image")
    with pytest.raises(InputError, match="readable test images; got none of 40; mend or replace them"):
        inspect(InspectConfig(data=DataConfig(data="copy", skip_corrupt=True)))


def test_corrupt_files_are_not_left_out_unread(photos: Path, here: Path) -> None:
    with pytest.raises(InputError, match="expected --check-files with --skip-corrupt; got --no-check-files"):
        inspect(InspectConfig(data=DataConfig(data=str(photos), skip_corrupt=True), check_files=False))


def test_sizes_of_the_training_images_are_shown(photos: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(photos, here / "copy")
    Image.new("RGB", (300, 200)).save(here / "copy" / "train" / "tail" / "large.png")
    Image.new("RGB", (500, 400)).save(here / "copy" / "test" / "tail" / "larger.png")
    assert main(["inspect", "copy"]) == 0
    captured = capsys.readouterr()
    assert "training images are " in captured.err
    assert " to 300×200 px, most often " in captured.err
    assert "effective number: what" not in captured.err
    assert main(["inspect", "copy", "-v"]) == 0
    assert "effective number: what n images are worth" in capsys.readouterr().err
    assert main(["inspect", "copy", "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["sizes"]
    assert (sizes["largest"], sizes["formats"]["PNG"]) == ([300, 200], 1)
    assert inspect(InspectConfig(data=DataConfig(data="copy"), check_files=False)).sizes is None


def test_result_is_json(photos: Path, here: Path) -> None:
    found = inspect(InspectConfig(data=DataConfig(data=str(photos)), check_files=False))
    assert json.loads(json.dumps(found.to_dict()))["counts"] == [7, 3, 16, 40]


@pytest.mark.parametrize("picture", ["a.jpg", "folder.png"])
def test_a_picture_that_is_no_png_file_is_refused_first(here: Path, picture: str) -> None:
    (here / "folder.png").mkdir()
    with pytest.raises(InputError, match=f"--picture FILE.png; got {picture}; name a PNG file"):
        inspect(InspectConfig(data=DataConfig(data=str(here / "missing")), picture=Path(picture)))


def test_a_picture_may_have_a_name_in_capitals(photos: Path, here: Path) -> None:
    config = InspectConfig(data=DataConfig(data=str(photos)), picture=here / "A.PNG", check_files=False)
    assert inspect(config).picture == here / "A.PNG"
    assert (here / "A.PNG").stat().st_size > 1000


def test_repeats_are_warned_of_where_a_test_split_will_be_held_out(photos: Path, here: Path) -> None:
    data = here / "flat"
    shutil.copytree(photos / "train", data)
    config, words = InspectConfig(data=DataConfig(data=str(data))), "1 image is more than once in one class"
    assert words not in "\n".join(inspect(config).warnings)
    shutil.copy(data / "tail" / "0.jpg", data / "tail" / "copy of 0.jpg")
    found = inspect(config)
    assert words in "\n".join(found.warnings)
    assert [len(group) for group in found.repeated] == [2]
    shutil.copy(data / "tail" / "1.jpg", data / "two words" / "of another class.jpg")
    assert words in "\n".join(inspect(config).warnings)  # the other one is told of as such


def test_a_file_that_a_list_repeats_is_counted_but_not_named(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / "train" / "tail", here / "a")
    shutil.copy(here / "a" / "0.jpg", here / "a" / "copy.jpg")
    rows = ["path,label", *3 * ["a/0.jpg,x"], "a/copy.jpg,x", *4 * ["a/1.jpg,x"], "a/2.jpg,y", ""]
    Path("list.csv").write_text("\n".join(rows))
    assert main(["inspect", "list.csv"]) == 0
    shown = capsys.readouterr().err
    assert "2 images are more than once in one class" in shown
    same = [line for line in shown.splitlines() if "same image" in line]
    assert len(same) == 1
    assert (same[0].count("a/0.jpg"), same[0].count("a/copy.jpg")) == (1, 1)


def test_class_names_are_shown_as_they_are(here: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("cat [old]", "[red]", "a$b$c", "$\\frac{$", "x" * 110)):
        shutil.copytree(photos / "train" / "tail", here / "data" / name)
        (here / "data" / name / "0.jpg").write_bytes((photos / "train" / "tail" / f"{i % 3}.jpg").read_bytes())
    assert main(["inspect", "data"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("cat [old]", "[red]", "a$b$c", "$\\frac{$"))
    with Image.open(here / "runs" / "inspect" / "data.png") as picture:
        assert picture.size[1] < picture.size[0]


def test_a_picture_that_cannot_be_written_is_one_clear_error(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    assert main(["inspect", str(photos), "--picture", "file/x.png"]) == 1
    assert "error: expected files that can be read and written\n  got " in capsys.readouterr().err


def test_what_held_out_splits_lack_is_named(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "copy")
    shutil.copytree(photos / "test", here / "copy" / "val")
    shutil.rmtree(here / "copy" / "test" / "tail")
    for name in ("tail", "круг"):
        shutil.rmtree(here / "copy" / "val" / name)
    for name in ("two words", "круг"):
        next((here / "copy" / "test" / name).iterdir()).unlink()
    found = inspect(InspectConfig(data=DataConfig(data="copy")))
    assert "no test image of 'tail', no val image of 'tail', 'круг'" in found.warnings
    coarse = [warning for warning in found.warnings if "coarse" in warning]
    assert coarse == [
        "2 classes have fewer than 10 test images, so that their accuracies are coarse: 'two words', 'круг'"
    ]


@pytest.mark.parametrize("as_list", [False, True])
def test_classes_that_train_lacks_are_warned_of_and_the_rest_is_shown(
    as_list: bool, photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, here / "copy")
    shutil.copytree(photos / "test" / "tail", here / "copy" / "test" / "tial")
    shutil.copytree(photos / "test" / "tail", here / "copy" / "val" / "tial")
    data, words = "copy", []
    if as_list:
        data = "train.csv"
        for split in ("train", "val", "test"):
            files = sorted((here / "copy" / split).glob("*/*"))
            rows = [f"{file.relative_to(here)},{file.parent.name}" for file in files]
            Path(f"{split}.csv").write_text("\n".join(["path,label", *rows]))
            words += [] if split == "train" else [f"--{split}-list", f"{split}.csv"]
    assert main(["inspect", data, *words]) == 0
    shown = capsys.readouterr()
    for split in ("val", "test"):
        where = f"{split}.csv" if as_list else f"copy/{split}"
        told = f"warning: {where} has 10 images of 'tial', which train lacks: other commands refuse the data\n"
        assert told in shown.err
    assert "круг" in shown.out
    assert "66 training images in 4 classes (train 66, test 40)" in shown.err
    assert main(["train", data, *words]) == 2
    assert "did you mean 'tail'? add it to train, or " in capsys.readouterr().err


def test_an_image_in_two_classes_is_not_said_to_be_in_two_splits(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / "train", here / "flat")
    (here / "flat" / "linked tail").symlink_to(here / "flat" / "tail")
    assert main(["inspect", "flat"]) == 0
    shown = capsys.readouterr().err
    assert "warning: 3 images are in two classes: figures on them mean little\n" in shown
    assert "warning: 'linked tail' is a link to 'tail'\n" in shown
    shutil.copytree(photos, here / "splits")
    shutil.copy(photos / "train" / "tail" / "0.jpg", here / "splits" / "test" / "круг" / "a.jpg")
    found = inspect(InspectConfig(data=DataConfig(data="splits")))
    assert "1 image is in two splits and two classes: figures on them mean little" in found.warnings
