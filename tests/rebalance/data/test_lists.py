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


# Text lists


def test_path_and_label_a_line(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "a/1.jpg", "b 2.jpg", "c.jpg", "d.jpg")
    splits = disk.read(disk.write(tmp_path / "train.txt", "a/1.jpg 1\nb 2.jpg  0\r\n\n  c.jpg\tred bird\nd.jpg\t 1 \n"))
    assert disk.content(splits.train, tmp_path) == [
        ("a/1.jpg", "1"),
        ("b 2.jpg", "0"),
        ("c.jpg", "red bird"),
        ("d.jpg", "1"),
    ]
    assert (splits.val, splits.test) == (None, None)


def test_names_may_hold_what_other_systems_take_for_a_line_end(tmp_path: Path, disk: Disk) -> None:
    name = "a\u2028b\x85c.jpg"
    splits = disk.read(disk.write(disk.fill(tmp_path, name) / "train.txt", f"{name} 猫\n"))
    assert disk.content(splits.train, tmp_path) == [(name, "猫")]


def test_numbers_sort_by_value_and_names_by_letter(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "x.jpg")
    numbers = disk.read(disk.write(tmp_path / "train.txt", "x.jpg 10\nx.jpg 9\nx.jpg 100\nx.jpg 0\n"))
    assert numbers.classes == ("0", "9", "10", "100")
    names = disk.read(disk.write(tmp_path / "names.txt", "x.jpg 10\nx.jpg 9\nx.jpg ten\n"))
    assert names.classes == ("10", "9", "ten")


def test_equal_numbers_written_apart_have_one_order_in_every_process(tmp_path: Path, disk: Disk) -> None:
    labels = ["1", "01", "001", "0001", "2", "02"]
    lines = "".join(f"x.jpg {label}\n" for label in labels)
    assert disk.read(disk.write(disk.fill(tmp_path, "x.jpg") / "a.txt", lines)).classes == (
        "0001",
        "001",
        "01",
        "1",
        "02",
        "2",
    )


def test_each_split_has_its_list_and_train_decides_the_classes(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg", "2.jpg", "3.jpg")
    train = disk.write(tmp_path / "train.txt", "1.jpg b\n0.jpg a\n")
    val, test = disk.write(tmp_path / "val.txt", "2.jpg b\n"), disk.write(tmp_path / "test.txt", "3.jpg a\n")
    splits = read_lists(train, val, test, HERE)
    assert splits.classes == ("a", "b")
    assert disk.content(splits.val, tmp_path) == [("2.jpg", "b")]
    assert disk.content(splits.test, tmp_path) == [("3.jpg", "a")]
    disk.write(val, "2.jpg c\n")
    with pytest.raises(InputError, match=r"class 'c' in .*val.txt"):
        read_lists(train, val, None, HERE)


@pytest.mark.parametrize("text", ["a.jpg", "a.jpg 1\nb.jpg\n", "my photo.jpg\t\n"])
def test_a_line_without_a_label_is_shown(tmp_path: Path, text: str, disk: Disk) -> None:
    disk.fill(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=r"lines of `path label`; got .*train.txt:"):
        disk.read(disk.write(tmp_path / "train.txt", text))


def test_a_label_with_blanks_is_told_to_need_a_csv(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "owl/1.jpg", "sea ship/18.jpg")
    path = disk.write(tmp_path / "train.txt", "owl/1.jpg owl\nsea ship/18.jpg sea ship\n")
    told = r"got 1 of 2 missing, .*; 'sea ship/18.jpg sea ship' has blanks in its label: such names need a CSV file"
    with pytest.raises(InputError, match=told):
        disk.read(path)
    tabs = disk.write(tmp_path / "tabs.txt", "owl/1.jpg\towl\nsea ship/18.jpg\tsea ship\n")
    assert disk.read(tabs).classes == ("owl", "sea ship")
    gone = disk.write(tmp_path / "gone.txt", "owl/1.jpg owl\nsea ship/19.jpg ship\n")
    with pytest.raises(InputError, match="bring them"):
        disk.read(gone)


# CSV


def test_columns_by_name_in_any_order(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "a.jpg", "b.jpg")
    path = disk.write(tmp_path / "list.csv", "id,species,file\n1,tit,a.jpg\n2,owl,b.jpg\n")
    splits = disk.read(path, ListFormat(path_column="file", label_column="species"))
    assert disk.content(splits.train, tmp_path) == [("a.jpg", "tit"), ("b.jpg", "owl")]


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_quotes_newlines_and_a_byte_order_mark(tmp_path: Path, suffix: str, separator: str, disk: Disk) -> None:
    disk.fill(tmp_path, "a, b.jpg", "c\nd.jpg", 'e".jpg')
    rows = [["path", "label"], ["a, b.jpg", "tit, blue"], ["c\nd.jpg", "owl\tbarn"], ['e".jpg', "猫"]]
    quoted = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    splits = disk.read(disk.write(tmp_path / f"list{suffix}", "\ufeff" + "\r\n".join(quoted)))
    assert disk.content(splits.train, tmp_path) == [
        ("a, b.jpg", "tit, blue"),
        ("c\nd.jpg", "owl\tbarn"),
        ('e".jpg', "猫"),
    ]


def test_semicolons_separate_as_well(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "a, b.jpg", "c.jpg")
    splits = disk.read(disk.write(tmp_path / "list.csv", "path;label\na, b.jpg;tit, blue\nc.jpg;owl\n"))
    assert disk.content(splits.train, tmp_path) == [("a, b.jpg", "tit, blue"), ("c.jpg", "owl")]
    windows = disk.read(
        disk.write(tmp_path / "list.csv", '"label";"path"\r\n"tit, blue";"a, b.jpg"\r\n"owl";"c.jpg"\r\n')
    )
    assert (windows.classes, len(windows.train)) == (("owl", "tit, blue"), 2)
    splits = disk.read(disk.write(tmp_path / "list.csv", 'path,label,"notes; a; b; c"\nc.jpg,owl,"x; y"\n'))
    assert disk.content(splits.train, tmp_path) == [("c.jpg", "owl")]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Datei;Klasse\na.jpg;tit, blue\n", ListFormat(path_column="Datei", label_column="Klasse")),
        ("sep=;\npath;label\na.jpg;tit, blue\n", HERE),
        ('"sep=|"\r\npath|label\r\na.jpg|tit, blue\r\n', HERE),
        ('SEP=,\nlabel,path\n"tit, blue",a.jpg\n', HERE),
    ],
)
def test_tables_as_offices_write_them(tmp_path: Path, text: str, form: ListFormat, disk: Disk) -> None:
    splits = disk.read(disk.write(disk.fill(tmp_path, "a.jpg") / "list.csv", text), form)
    assert disk.content(splits.train, tmp_path) == [("a.jpg", "tit, blue")]


def test_a_line_that_names_the_separator_counts_as_a_line(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(InputError, match=r"list.csv:3; complete the row"):
        disk.read(disk.write(tmp_path / "list.csv", "sep=;\npath;label\na.jpg\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Datei;Klasse\n", r"got Datei, Klasse; valid: Datei, Klasse; name another with --path-column"),
        ("a/1.jpg,owl\na/2.jpg,owl\n", r"got a/1.jpg, owl; the first line must name the columns: path,label$"),
        ("owl;a/1.PNG\n", r"got owl, a/1.PNG; the first line must name the columns: path,label$"),
    ],
)
def test_columns_that_are_not_named_as_expected_are_shown_apart(
    tmp_path: Path, text: str, message: str, disk: Disk
) -> None:
    with pytest.raises(InputError, match=message):
        disk.read(disk.write(tmp_path / "list.csv", text))


def test_a_missing_column_names_the_flag(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(InputError, match=r"'path' in list\.csv; got file, label; .*another with --path-column"):
        disk.read(disk.write(tmp_path / "list.csv", "file,label\na.jpg,owl\n"))


def test_blanks_around_columns_and_labels_make_no_class(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    text = "path, label ,split\n0.jpg, a,train\n1.jpg,a , train\n2.jpg,b,test \n2.jpg,b,train\n"
    with pytest.raises(InputError, match="in one split"):
        disk.read(disk.write(tmp_path / "twice.csv", text))
    splits = disk.read(
        disk.write(tmp_path / "list.csv", text.replace("2.jpg,b,train\n", "").replace("2.jpg,b", "2.jpg,a"))
    )
    assert (splits.classes, splits.train.counts.tolist()) == (("a",), [2])
    assert disk.content(splits.test, tmp_path) == [("2.jpg", "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,labels\na.jpg,1\n", "column 'path' in list.csv; got file, labels"),
        ("path,labels\na.jpg,1\n", "column 'label' in list.csv; got path, labels; did you mean 'labels'"),
        ("", "column 'path' in list.csv; got none"),
        ("path,label\n", "with rows; got none"),
        ("path,label\na.jpg\n", r"a path and a label in every row; got .*list.csv:2"),
        ("path,label\na.jpg,\n", "a path and a label in every row"),
        ("path,label\n,3\n", "a path and a label in every row"),
        ("path,label,split\na.jpg,1,trian\n", "a split out of train, val, test; got 'trian' for a.jpg"),
        ("path,label,split\na.jpg,1,train\na.jpg,1,\n", "a split out of train, val, test; got ''"),
        (
            "path,label,split\na.jpg,1,Train\na.jpg,1,learn\na.jpg,1,exam\na.jpg,1,learn\n",
            "rename them to train, val, test, or .* the words are 'Train', 'exam', 'learn'$",
        ),
        ("path,label,split\na.jpg,1,test\n", "rows of the train split; got none"),
        ('path,label\n"a.jpg,1\n' + 200_000 * "x", "expected a CSV file; .*field larger"),
        ("path,label\na\0.jpg,1\n", "without a NUL"),
    ],
)
def test_malformed_csv_is_refused_with_its_place(tmp_path: Path, text: str, message: str, disk: Disk) -> None:
    disk.fill(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=message):
        disk.read(disk.write(tmp_path / "list.csv", text))


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_another_encoding_is_refused(tmp_path: Path, suffix: str, disk: Disk) -> None:
    path = disk.write(tmp_path / f"list{suffix}", "path,label\nä.jpg 1\n", "latin-1")
    with pytest.raises(InputError, match="a list file in UTF-8"):
        disk.read(path)


def test_missing_lists_and_missing_images_are_told_apart(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(InputError, match="no such file"):
        disk.read(tmp_path / "train.txt")
    disk.fill(tmp_path, "a.jpg")
    path = disk.write(tmp_path / "train.txt", "a.jpg 1\nb.jpg 1\nc.jpg 2\n")
    with pytest.raises(
        InputError, match=r"train.txt lists; got 2 of 3 missing, the first .*b.jpg; bring them, or take"
    ):
        disk.read(path)
    path = disk.write(tmp_path / "train.txt", "b.jpg 1\nc.jpg 2\n")
    with pytest.raises(InputError, match=r"got 2 of 2 missing, the first .*b.jpg; set --root"):
        disk.read(path)


def test_paths_as_windows_writes_them_are_found(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "Frösche/1.jpg", "Frösche/tief/2.jpg", "a\\b.jpg", "c.jpg")
    text = "path,label\nFrösche\\1.jpg,frog\nFrösche\\tief/2.jpg,frog\na\\b.jpg,ab\nc.jpg,ab\n"
    splits = disk.read(disk.write(tmp_path / "list.csv", text))
    found = ["Frösche/1.jpg", "Frösche/tief/2.jpg", "a\\b.jpg", "c.jpg"]
    assert [name for name, _ in disk.content(splits.train, tmp_path)] == found
    assert splits.notes == ("2 paths with \\ are read with / in its place",)
    with pytest.raises(InputError, match=r"got 1 of 1 missing, the first .*Frösche\\3.jpg; set --root"):
        disk.read(disk.write(tmp_path / "list.csv", "path,label\nFrösche\\3.jpg,frog\n"))


# Nothing outside the root


def test_the_root_may_be_another_folder(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path / "images", "a.jpg")
    path = disk.write(tmp_path / "train.txt", "a.jpg 1\n")
    assert disk.content(disk.read(path, ListFormat(tmp_path / "images")).train, tmp_path) == [("images/a.jpg", "1")]


def test_the_root_and_folders_inside_may_be_links(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path / "images", "deep/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images" / "deep", target_is_directory=True)
    (tmp_path / "images" / "b.jpg").symlink_to("deep/a.jpg")
    text = f"again/a.jpg 1\nb.jpg 1\n{tmp_path}/link/deep/a.jpg 2\ndeep/../deep/a.jpg 2\n"
    splits = disk.read(disk.write(tmp_path / "train.txt", text), ListFormat(tmp_path / "link"))
    assert splits.train.counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.jpg", "{outside}/secret.jpg", "a/../../secret.jpg", "file.jpg", "folder/secret.jpg"),
        *(
            "..\\secret.jpg",
            "folder\\secret.jpg",
            "folder/../secret.jpg",
            "..",
            "a/..",
            "a/",
            "{root}",
            "{root}2/secret.jpg",
        ),
    ],
)
def test_paths_outside_the_root_are_refused(tmp_path: Path, name: str, disk: Disk) -> None:
    root = disk.fill(tmp_path / "root", "a/b.jpg", "../secret.jpg", "../root2/secret.jpg", "../out/secret.jpg")
    (root / "file.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "folder").symlink_to(tmp_path / "out", target_is_directory=True)
    name = name.format(outside=tmp_path, root=root)
    path = disk.write(tmp_path / "train.csv", f"path,label\n{name},1\n")
    with pytest.raises(InputError, match="paths inside"):
        disk.read(path, ListFormat(root))
