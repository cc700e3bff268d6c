from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generators.image_files import write_image
from generators.manifest import KEPT, REJECTED, SPARE, Journal, Row, read_journals, read_manifest, write_manifest
from rebalance.errors import InputError
from rebalance.files import sha256


def made(folder: Path, i: int, name: str = "cat", finite: bool = True) -> Row:
    """A row as a rank journals it, with its image on disk."""
    path = f"candidates/{name}/{i:06d}.png" if finite else None
    if path is not None:
        write_image(folder / path, np.full((8, 8, 3), i, dtype=np.uint8), f"job{i}")
    digest = sha256(folder / path) if path is not None else None
    return {"job": f"job{i}", "class": name, "label": 0, "index": i, "seed": i, "path": path, "sha256": digest}


def journal(folder: Path, rank: int, rows: list[Row]) -> Path:
    path = folder / "journals" / f"rank-{rank}.jsonl"
    with Journal(path) as file:
        file.append(rows)
    return path


def read(folder: Path) -> dict[str, Row]:
    return read_journals(folder / "journals", folder)


def judged(rows: list[Row], verdict: str = KEPT) -> list[Row]:
    return [{**row, "verdict": verdict, "reason": "", "scores": {"distance": 0.25, "limit": 0.5}} for row in rows]


# Journals


def test_rows_of_all_ranks_come_back(tmp_path: Path) -> None:
    rows = [made(tmp_path, i, "a\u2028b, 猫\x85") for i in range(3)] + [made(tmp_path, 3, finite=False)]
    journal(tmp_path, 0, rows[:2])
    journal(tmp_path, 1, rows[2:])
    assert list(read(tmp_path).values()) == rows
    assert read_journals(tmp_path / "none", tmp_path) == {}


def test_each_row_is_on_disk_before_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "journals" / "rank-0.jsonl"
    with Journal(path) as file:
        for i in range(3):
            file.append([made(tmp_path, i)])
            assert len(read(tmp_path)) == i + 1


@pytest.mark.parametrize("cut", [1, 2, 20, 60, 100])
def test_a_torn_line_is_dropped_and_the_next_row_starts_a_line_of_its_own(tmp_path: Path, cut: int) -> None:
    rows = [made(tmp_path, i, "Vögel") for i in range(3)]
    path = journal(tmp_path, 0, rows[:2])
    path.write_bytes(path.read_bytes()[:-cut])
    whole = 2 if cut == 1 else 1  # of the shortest tear only the line's end is gone
    assert list(read(tmp_path)) == ["job0", "job1"][:whole]
    journal(tmp_path, 0, rows[1:])
    assert read(tmp_path) == {row["job"]: row for row in rows}


def test_a_tear_inside_a_letter_is_no_crash(tmp_path: Path) -> None:
    path = journal(tmp_path, 0, [made(tmp_path, 0)])
    with path.open("ab") as file:
        file.write('{"class": "ü'.encode()[:-1])
    assert list(read(tmp_path)) == ["job0"]


def test_images_that_are_gone_or_changed_are_made_again(tmp_path: Path) -> None:
    rows = [made(tmp_path, i) for i in range(4)]
    journal(tmp_path, 0, rows)
    (tmp_path / rows[1]["path"]).unlink()
    image = tmp_path / rows[2]["path"]
    image.write_bytes(image.read_bytes()[:-1])
    assert list(read(tmp_path)) == ["job0", "job3"]


def test_of_two_lines_for_a_job_the_whole_one_counts(tmp_path: Path) -> None:
    row = made(tmp_path, 0)
    journal(tmp_path, 0, [row, {**row, "sha256": "0" * 64}])
    journal(tmp_path, 1, [{**row, "path": "candidates/gone.png"}, row])
    assert read(tmp_path) == {"job0": row}


@pytest.mark.parametrize(
    "line", ["3", "[]", "null", '{"path": null}', '{"path": 3, "job": "x"}', '{"path": "a\\u0000"}']
)
def test_lines_that_are_no_rows_are_dropped(tmp_path: Path, line: str) -> None:
    path = journal(tmp_path, 0, [made(tmp_path, 0)])
    path.write_text(line + "\n" + path.read_text())
    assert list(read(tmp_path)) == ["job0"]


# The manifest


def test_the_manifest_is_the_same_whatever_was_interrupted(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, order, ranks in zip(folders, ([0, 1, 2, 3], [3, 1, 0, 2]), (1, 2), strict=True):
        rows = [made(folder, i, finite=i != 2) for i in order]
        for rank in range(ranks):
            journal(folder, rank, rows[rank::ranks])
        if ranks == 2:
            journal(folder, 1, rows[:1])  # made twice
        write_manifest(folder, judged(list(read(folder).values()), REJECTED))
    for name in ("manifest.jsonl", "manifest.csv"):
        contents = [(folder / name).read_bytes() for folder in folders]
        assert contents[0] == contents[1]
        assert contents[0].count(b"\n") == 4 + name.endswith("csv")


def test_the_manifest_comes_back_and_its_table_is_flat(tmp_path: Path) -> None:
    rows = judged([made(tmp_path, i, "tit, blue\u2028") for i in range(3)])
    write_manifest(tmp_path, rows[::-1])
    assert read_manifest(tmp_path) == rows
    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == ["tit, blue\u2028"] * 3
    assert table[1]["scores.distance"] == "0.25"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_an_empty_manifest_is_a_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, [])
    assert read_manifest(tmp_path) == []


def tamper(folder: Path, change: dict[str, Any]) -> None:
    rows = judged([made(folder, i) for i in range(3)])
    write_manifest(folder, [rows[0], {**rows[1], **change}, rows[2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "images as the manifest describes them; .*000001.png was changed"),
        ({"sha256": None}, "was changed"),
        ({"path": "candidates/cat/000009.png"}, "the images that the manifest lists"),
        ({"path": "candidates"}, "the images that the manifest lists"),
        ({"path": "../secret.png"}, "paths inside .*; got '../secret.png'"),
        ({"path": "candidates/../../secret.png"}, "paths inside"),
        ({"path": "link.png"}, "paths inside"),
        ({"path": "/etc/passwd"}, "paths inside"),
        ({"path": 3}, "whole manifest lines"),
        ({"path": "a\0b"}, "whole manifest lines"),
        ({"path": None}, "whole manifest lines"),
        ({"verdict": "KEPT"}, "whole manifest lines; .*KEPT"),
        ({"verdict": []}, "whole manifest lines"),
        ({"class": 3}, "whole manifest lines"),
        ({"index": "1"}, "whole manifest lines"),
        ({"job": "job0"}, "one line for each job; .*job0 again"),
    ],
)
def test_a_tampered_manifest_is_refused_with_the_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "synthesis"
    (tmp_path / "secret.png").touch()
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    tamper(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(folder)
    assert "manifest.jsonl:" in str(caught.value)
    assert "synthesize again" in caught.value.fix


@pytest.mark.parametrize("text", ["{", "3", "[]", '{"job": "a"}', ""])
def test_a_damaged_line_is_named(tmp_path: Path, text: str) -> None:
    tamper(tmp_path, {})
    file = tmp_path / "manifest.jsonl"
    lines = file.read_text().split("\n")
    file.write_text("\n".join([lines[0], text, *lines[2:]]))
    with pytest.raises(InputError, match=r"whole manifest lines; got .*manifest.jsonl:2"):
        read_manifest(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    tamper(tmp_path, {})
    file = tmp_path / "manifest.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"cat"', b'"c\xff"', 1)[:-30])
    with pytest.raises(InputError, match="whole manifest lines"):
        read_manifest(tmp_path)


def test_rejected_and_spare_rows_may_lack_an_image(tmp_path: Path) -> None:
    rows = judged([made(tmp_path, 0, finite=False)], REJECTED) + judged([made(tmp_path, 1, finite=False)], SPARE)
    write_manifest(tmp_path, rows)
    assert read_manifest(tmp_path) == rows


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder of `rebalance synthesize`; got .*, without manifest.jsonl"):
        read_manifest(tmp_path)
    assert os.listdir(tmp_path) == []


def test_lines_are_plain_json_with_sorted_keys(tmp_path: Path) -> None:
    write_manifest(tmp_path, judged([made(tmp_path, 0)]))
    (line,) = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line)) == sorted(json.loads(line))
