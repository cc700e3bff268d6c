from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generators.image_files import write_image
from generators.shards import read_shards, shard_files, write_shards
from rebalance.errors import InputError

CLASSES = ("a.b", "круг/2")


def made(root: Path, suffix: str = ".png") -> list[dict[str, Any]]:
    """Seven images of two classes, in no order."""
    rows = []
    for i in (3, 0, 6, 1, 5, 2, 4):
        path = f"candidates/{i}{suffix}"
        write_image(root / path, np.full((4, 5, 3), i, dtype=np.uint8), f"job{i}")
        rows.append({"job": f"job{i}", "class": CLASSES[i % 2], "label": i % 2, "index": i, "path": path})
    return rows


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_images_come_back_in_order_of_class_and_index(suffix: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", made(tmp_path, suffix), tmp_path, CLASSES, 3)
    files = shard_files(tmp_path)
    assert [file.name for file in files] == ["000000.tar", "000001.tar", "000002.tar"]
    assert files == shard_files(tmp_path / "shards")
    read = list(read_shards(files))
    assert [(one.class_name, int(one.pixels[0, 0, 0])) for one in read] == [
        *((CLASSES[0], i) for i in (0, 2, 4, 6)),
        *((CLASSES[1], i) for i in (1, 3, 5)),
    ]
    assert all(one.pixels.shape == (4, 5, 3) for one in read)
    assert json.loads((tmp_path / "shards" / "classes.json").read_text()) == list(CLASSES)


def test_members_are_as_webdataset_has_them(tmp_path: Path) -> None:
    rows = made(tmp_path)
    write_shards(tmp_path / "shards", rows, tmp_path, CLASSES, 100)
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tmp_path / "shards" / "000000.tar") as tar:
        for member in tar:
            key, suffix = member.name.split(".")  # one dot, whatever the class is called
            content = tar.extractfile(member)
            assert content is not None
            samples.setdefault(key, {})[suffix] = content.read()
    by_index = {row["index"]: row for row in rows}
    assert len(samples) == 7
    for sample in samples.values():
        assert list(sample) == ["png", "cls", "json"]
        row = json.loads(sample["json"])
        assert row == by_index[row["index"]]
        assert int(sample["cls"]) == row["label"]
        assert sample["png"] == (tmp_path / row["path"]).read_bytes()


def test_the_same_rows_give_the_same_files_and_whole_ones_are_kept(tmp_path: Path) -> None:
    rows = made(tmp_path)
    write_shards(tmp_path / "one", rows, tmp_path, CLASSES, 3)
    write_shards(tmp_path / "other", rows[::-1], tmp_path, CLASSES, 3)
    contents = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert contents == {file.name: file.read_bytes() for file in (tmp_path / "other").iterdir()}
    (tmp_path / "one" / "000001.tar").unlink()
    before = (tmp_path / "one" / "000000.tar").stat().st_mtime_ns
    write_shards(tmp_path / "one", rows, tmp_path, CLASSES, 3)
    assert {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()} == contents
    assert (tmp_path / "one" / "000000.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize("length", [0, 100, 3000, 6451, 3 * 1024, 7 * 3 * 1024])
def test_a_shard_that_was_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    write_shards(tmp_path, made(tmp_path), tmp_path, CLASSES, 100)
    file = tmp_path / "000000.tar"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InputError, match="whole shards"):
        list(read_shards([file]))


def test_a_folder_without_shards(tmp_path: Path) -> None:
    assert shard_files(tmp_path) == []
