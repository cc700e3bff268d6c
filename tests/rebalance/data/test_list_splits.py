"""Which split the rows of lists are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rebalance.data.list_rows import ListFormat
from rebalance.data.lists import read_lists
from rebalance.errors import InputError

HERE = ListFormat()
Disk = Any
"""See the fixture `disk`."""


def test_a_split_column_under_its_usual_values(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, *(f"{i}.jpg" for i in range(5)))
    text = "path,label,split\n0.jpg,a,train\n1.jpg,b,Training\n2.jpg,a,valid\n3.jpg,b,validation\n4.jpg,a,TEST\n"
    splits = disk.read(disk.write(tmp_path / "list.csv", text))
    assert disk.content(splits.train, tmp_path) == [("0.jpg", "a"), ("1.jpg", "b")]
    assert disk.content(splits.val, tmp_path) == [("2.jpg", "a"), ("3.jpg", "b")]
    assert disk.content(splits.test, tmp_path) == [("4.jpg", "a")]


def test_the_split_column_may_have_another_name(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    path = disk.write(tmp_path / "list.csv", "path,label,part\n0.jpg,a,train\n1.jpg,a,test\n")
    assert disk.read(path).train.counts.tolist() == [2]
    assert disk.read(path, ListFormat(split_column="part")).train.counts.tolist() == [1]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("Split", ("train", "test")),
        (" SPLIT ", ("1", "2")),
        ("set", ("train", "test")),
        ("Subset", ("Training", "validation")),
        ("partition", ("train", "")),
        ("fold", ("TRAIN", "valid")),
    ],
)
def test_a_split_under_another_name_does_not_train_in_silence(
    tmp_path: Path, column: str, values: tuple[str, str], disk: Disk
) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    path = disk.write(tmp_path / "list.csv", f"path,label,{column}\n0.jpg,a,{values[0]}\n1.jpg,a,{values[1]}\n")
    with pytest.raises(
        InputError, match=rf"'split' of list\.csv; got .*; name it with --split-column '{column.strip()}'"
    ):
        disk.read(path)


def test_columns_that_say_something_else_are_no_splits(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    text = "path,label,set,fold,subset,use\n0.jpg,a,winter,1,,train\n1.jpg,a,train,2,,test\n"
    assert disk.read(disk.write(tmp_path / "list.csv", text)).train.counts.tolist() == [2]
    both = "path,label,split,set\n0.jpg,a,train,test\n1.jpg,a,train,train\n"
    assert disk.read(disk.write(tmp_path / "list.csv", both)).train.counts.tolist() == [2]


def test_a_split_column_that_is_named_has_to_be_there(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    train = disk.write(tmp_path / "list.csv", "path,label,part\n0.jpg,a,train\n1.jpg,a,test\n")
    with pytest.raises(InputError, match=r"column 'parts' in list\.csv; .* mean 'part'.*; name another with --split-c"):
        disk.read(train, ListFormat(split_column="parts"))
    plain = disk.write(tmp_path / "plain.csv", "path,label\n0.jpg,a\n")
    test = disk.write(tmp_path / "test.csv", "path,label\n1.jpg,a\n")
    with pytest.raises(InputError, match="a column 'part' in one of the lists; got none; name another with --split-c"):
        read_lists(plain, None, test, ListFormat(split_column="part"))
    for one, other in ((train, None), (plain, train)):
        splits = read_lists(one, None, other, ListFormat(split_column="part"))
        assert (disk.content(splits.train, tmp_path), disk.content(splits.test, tmp_path)) == (
            [("0.jpg", "a")],
            [("1.jpg", "a")],
        )
    trained = disk.write(tmp_path / "train.csv", "path,label,part\n0.jpg,a,train\n")
    splits = read_lists(trained, None, test, ListFormat(split_column="part"))
    assert disk.content(splits.test, tmp_path) == [("1.jpg", "a")]


@pytest.mark.parametrize("column", ["split", "Split", "subset"])
def test_the_column_of_the_labels_is_no_split(tmp_path: Path, column: str, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    path = disk.write(tmp_path / "list.csv", f"path,{column}\n0.jpg,train\n1.jpg,test\n")
    splits = disk.read(path, ListFormat(label_column=column))
    assert disk.content(splits.train, tmp_path) == [("0.jpg", "train"), ("1.jpg", "test")]
    assert splits.test is None


def test_a_split_cannot_come_from_two_places(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    path = disk.write(tmp_path / "list.csv", "path,label,split\n0.jpg,a,train\n1.jpg,a,val\n")
    extra = disk.write(tmp_path / "val.txt", "2.jpg a\n")
    with pytest.raises(InputError, match=r"one val split; .*leave out --val-list"):
        read_lists(path, extra, None, HERE)
    splits = read_lists(path, None, extra, HERE)
    assert disk.content(splits.test, tmp_path) == [("2.jpg", "a")]
    assert disk.content(splits.val, tmp_path) == [("1.jpg", "a")]


def test_of_a_list_of_all_splits_only_the_wanted_rows_count(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    train = disk.write(tmp_path / "train.csv", "path,label\n0.jpg,a\n")
    every = disk.write(tmp_path / "all.csv", "path,label,split\n0.jpg,a,train\n1.jpg,a,testing\n2.jpg,a,val\n")
    splits = read_lists(train, every, every, HERE)
    assert disk.content(splits.val, tmp_path) == [("2.jpg", "a")]
    assert disk.content(splits.test, tmp_path) == [("1.jpg", "a")]
    few = disk.write(tmp_path / "few.csv", "path,label,split\n0.jpg,a,train\n")
    with pytest.raises(InputError, match=r"rows of the test split; got none in .*few\.csv"):
        read_lists(train, None, few, HERE)


@pytest.mark.parametrize("text", ["0.jpg a\n1.jpg a\n", "./0.jpg a\n"])
def test_an_image_in_two_splits_is_refused(tmp_path: Path, text: str, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg")
    train, test = disk.write(tmp_path / "train.txt", "0.jpg a\n"), disk.write(tmp_path / "test.txt", text)
    with pytest.raises(InputError, match=r"each image in one split; got .*0\.jpg in train .* and in test"):
        read_lists(train, None, test, HERE)


def test_an_image_behind_a_link_is_the_same(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "img/0.jpg")
    (tmp_path / "alias").symlink_to(tmp_path / "img")
    (tmp_path / "1.jpg").symlink_to(tmp_path / "img" / "0.jpg")
    train = disk.write(tmp_path / "train.txt", "img/0.jpg a\n")
    for other in ("alias/0.jpg", "1.jpg"):
        with pytest.raises(InputError, match="each image in one split"):
            read_lists(train, None, disk.write(tmp_path / "test.txt", f"{other} a\n"), HERE)
