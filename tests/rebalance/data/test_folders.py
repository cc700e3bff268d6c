from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rebalance.data.folders import read_classes, read_folder
from rebalance.errors import InputError

Disk = Any
"""See the fixture `disk`."""


def test_a_folder_of_classes_is_the_training_split(tmp_path: Path, disk: Disk) -> None:
    splits = read_folder(disk.fill(tmp_path, "dog/b.jpg", "cat/2.png", "cat/10.png"))
    assert splits.classes == ("cat", "dog")
    assert disk.content(splits.train, tmp_path) == [("cat/10.png", "cat"), ("cat/2.png", "cat"), ("dog/b.jpg", "dog")]
    assert splits.val is None
    assert splits.test is None


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "valid", "testing"), ("Training", "Validation", "TEST")],
)
def test_split_folders_under_their_usual_names(tmp_path: Path, train: str, val: str, test: str, disk: Disk) -> None:
    root = disk.fill(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{val}/b/2.jpg", f"{test}/a/3.jpg")
    splits = read_folder(root)
    assert disk.content(splits.train, root) == [(f"{train}/a/1.jpg", "a"), (f"{train}/b/1.jpg", "b")]
    assert disk.content(splits.val, root) == [(f"{val}/b/2.jpg", "b")]
    assert disk.content(splits.test, root) == [(f"{test}/a/3.jpg", "a")]
    assert splits.notes == ()


def test_a_class_may_be_named_train(tmp_path: Path, disk: Disk) -> None:
    splits = read_folder(disk.fill(tmp_path, "train/1.jpg", "bus/1.jpg"))
    assert splits.classes == ("bus", "train")
    inside = read_folder(disk.fill(tmp_path / "split", "train/train/1.jpg", "train/val/1.jpg", "val/train/1.jpg"))
    assert inside.classes == ("train", "val")
    assert len(inside.val or []) == 1


def test_a_class_may_be_named_valid(tmp_path: Path, disk: Disk) -> None:
    assert read_folder(disk.fill(tmp_path, "valid/1.jpg", "invalid/1.jpg")).classes == ("invalid", "valid")


def test_folders_beside_the_splits_are_mentioned(tmp_path: Path, disk: Disk) -> None:
    splits = read_folder(disk.fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "devkit/readme.txt", "extra/a/1.jpg"))
    assert splits.notes == ("folders beside the splits are not read: devkit, extra",)
    many = disk.fill(tmp_path, *(f"more{i}/x" for i in range(6)))
    assert read_folder(many).notes[0].endswith("devkit, extra, more0, more1, more2 and 3 more")


@pytest.mark.parametrize("files", [("train/1.jpg", "test/1.jpg"), ("val/a/1.jpg", "test/a/1.jpg")])
def test_splits_without_training_classes_are_no_classes(tmp_path: Path, files: tuple[str, ...], disk: Disk) -> None:
    with pytest.raises(InputError, match="expected a train folder with one sub-folder per class; got none in"):
        read_folder(disk.fill(tmp_path, *files))


def test_a_split_under_two_names_is_refused(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(InputError, match=r"one val folder .*got val and valid"):
        read_folder(disk.fill(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"))


def test_classes_may_hold_folders(tmp_path: Path, disk: Disk) -> None:
    table = read_classes(disk.fill(tmp_path, "a/2.jpg", "a/y/1.jpg", "a/x/deep/1.jpg", "b/1.jpg"))
    assert [name for name, _ in disk.content(table, tmp_path)] == ["a/2.jpg", "a/x/deep/1.jpg", "a/y/1.jpg", "b/1.jpg"]
    assert table.counts.tolist() == [3, 1]


def test_hidden_files_folders_and_other_files_are_no_images(tmp_path: Path, disk: Disk) -> None:
    root = disk.fill(
        tmp_path,
        *("a/1.jpg", "a/.2.jpg", "a/._1.jpg", "a/notes.txt", "a/Thumbs.db", "a/.ipynb_checkpoints/1-checkpoint.jpg"),
        *(".git/x.png", "b/1.JPEG", "readme.png"),
    )
    assert disk.content(read_folder(root).train, root) == [("a/1.jpg", "a"), ("b/1.JPEG", "b")]


@pytest.mark.parametrize("name", ["tit, blue", "v1.2.jpg", "Vögel", "猫", "صقر", "a'b\"c", "-x", "100%"])
def test_class_and_file_names_of_all_kinds(tmp_path: Path, name: str, disk: Disk) -> None:
    root = disk.fill(tmp_path, f"{name}/{name} 1.v2.jpg", "other/1.jpg")
    table = read_folder(root).train
    assert name in table.classes
    assert (f"{name}/{name} 1.v2.jpg", name) in disk.content(table, root)


def test_a_class_folder_may_be_a_link(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "elsewhere/1.jpg", "data/a/1.jpg")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read_folder(tmp_path / "data").train.counts.tolist() == [1, 1]


def test_an_empty_class_stays_a_class(tmp_path: Path, disk: Disk) -> None:
    root = disk.fill(tmp_path, "a/1.jpg", "b/readme.txt")
    assert read_folder(root).train.counts.tolist() == [1, 0]


def test_a_class_may_lack_images_in_the_test_split(tmp_path: Path, disk: Disk) -> None:
    splits = read_folder(disk.fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg"))
    assert splits.test is not None
    assert splits.test.classes == splits.classes
    assert splits.test.counts.tolist() == [0, 1]


def test_classes_that_train_lacks_are_left_out_where_that_is_asked_for(tmp_path: Path, disk: Disk) -> None:
    root = disk.fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg", "test/x/1.jpg", "test/y/1.jpg")
    with pytest.raises(InputError, match=r"got classes 'x', 'y' in .*test; add them to train, or remove the folders"):
        read_folder(root)
    disk.fill(root, "val/x/2.jpg")
    splits = read_folder(root, lenient=True)
    assert disk.content(splits.test, root) == [("test/b/1.jpg", "b")]
    assert splits.val is None
    assert splits.warnings == (
        f"{root}/test has 2 images of 'x', 'y', which train lacks: other commands refuse the data",
        f"{root}/val has 1 image of 'x', which train lacks: other commands refuse the data",
    )


@pytest.mark.parametrize(
    ("links", "told"),
    [
        ({"A link": "dog"}, "'A link' is a link to 'dog'"),
        ({"one": "../elsewhere", "two": "../elsewhere"}, "links to one folder: 'one', 'two'"),
    ],
)
def test_class_folders_that_are_one_are_told(tmp_path: Path, links: dict[str, str], told: str, disk: Disk) -> None:
    disk.fill(tmp_path, "data/dog/1.jpg", "data/cat/1.jpg", "elsewhere/1.jpg")
    for name, target in links.items():
        (tmp_path / "data" / name).symlink_to(target, target_is_directory=True)
    assert read_folder(tmp_path / "data").warnings == (told,)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named_with_the_nearest(tmp_path: Path, split: str, disk: Disk) -> None:
    root = disk.fill(tmp_path, "train/cats/1.jpg", "train/dogs/1.jpg", f"{split}/cat/1.jpg")
    with pytest.raises(
        InputError, match=rf"class 'cat' in .*{split}; did you mean 'cats'\? add it to train, or remove the folder$"
    ):
        read_folder(root)


def test_known_classes_give_the_class_ids(tmp_path: Path, disk: Disk) -> None:
    table = read_classes(disk.fill(tmp_path, "b/1.jpg", "c/1.jpg"), ("c", "a", "b"))
    assert table.targets.tolist() == [2, 0]
    assert table.counts.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("1.jpg", "2.jpg"), "one sub-folder per class; got loose images"),
        (("notes.txt",), "one sub-folder per class; got no folders"),
        (("a/notes.txt", "b/notes.txt"), "images in the class folders; got none"),
    ],
)
def test_folders_without_classes_or_images_are_refused(
    tmp_path: Path, files: tuple[str, ...], message: str, disk: Disk
) -> None:
    with pytest.raises(InputError, match=message):
        read_folder(disk.fill(tmp_path, *files))


def test_no_path_and_no_folder_are_told_apart(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(InputError, match="no such path"):
        read_folder(tmp_path / "missing")
    with pytest.raises(InputError, match="got a file"):
        read_folder(disk.fill(tmp_path, "a.jpg") / "a.jpg")


def test_what_is_not_read_is_told(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "cat/1.png", "cat/2.HEIC", "cat/3.heic", "cat/4", "cat/.DS_Store", "dog/deep/5.png", "6.png")
    disk.fill(tmp_path, "__MACOSX/cat/1.png", "@eaDir/cat/1.png", "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg")
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert len(splits.train) == 2
    assert splits.notes == ("not read: 1 image(s) beside the class folders",)
    (warning,) = splits.warnings
    told, _, read = warning.partition("not read: ")
    assert told == "more than a tenth of the files of 'cat' is "
    kinds = {"2 .heic", "1 file(s) without an ending"}
    assert set(read.removesuffix("; convert HEIC to JPEG").split(", ")) == kinds
    assert read.endswith("; convert HEIC to JPEG")


@pytest.mark.parametrize(("n_images", "loud"), [(9, False), (8, True)])
def test_what_is_not_read_is_a_warning_where_it_is_more_than_a_tenth(
    tmp_path: Path, n_images: int, loud: bool, disk: Disk
) -> None:
    disk.fill(tmp_path, *(f"cat/{i}.png" for i in range(n_images)), "cat/a.mov", "cat/notes.txt", "cat/labels.json")
    disk.fill(tmp_path, "dog/1.png", "dog/1.txt")
    splits = read_folder(tmp_path)
    assert bool(splits.warnings) is loud
    assert ("1 .mov" in " ".join(splits.notes)) is not loud
    assert "'dog'" not in " ".join(splits.warnings)


def test_files_beside_the_class_folders_of_a_split_are_told(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "train/.DS_Store")
    (tmp_path / "train" / "README.txt").write_text("read me")
    (tmp_path / "test" / "labels.csv").write_text("path,label")
    assert read_folder(tmp_path).notes == ("not read: 2 other file(s) beside the class folders",)


def test_a_linked_folder_inside_a_class_is_told(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "data/cat/1.png", "data/dog/1.png", "other/2.png")
    (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "other")
    splits = read_folder(tmp_path / "data")
    assert len(splits.train) == 2
    assert splits.notes == ("not read: 1 linked folder(s)",)


@pytest.mark.parametrize("path", [b"caf\xe9/1.png", b"cafe/\xe9.png", b"caf\xe9/no image.txt"])
def test_names_that_are_not_utf8_are_refused(tmp_path: Path, path: bytes, disk: Disk) -> None:
    disk.fill(tmp_path, "a/1.png")
    file = os.path.join(os.fsencode(tmp_path), path)
    os.makedirs(os.path.dirname(file))
    with open(file, "wb"):
        pass
    with pytest.raises(InputError, match=r"files and folders in UTF-8; got b'.*xe9.*; rename"):
        read_folder(tmp_path)
