from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rebalance.errors import InputError
from rebalance.files import (
    check_free_space,
    read_json,
    sha256,
    write_bytes,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a ü.txt"
    write_bytes(path, b"one")
    write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert os.listdir(tmp_path) == ["a ü.txt"]


def test_a_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    rows = [["a, b", "ü", None], ['"', "two\nlines", 0.1234567890123]]
    write_csv(tmp_path / "a.csv", ("one", "two", "three"), rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["one", "two", "three"],
            ["a, b", "ü", ""],
            ['"', "two\nlines", "0.1234567890123"],
        ]
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()


@pytest.mark.parametrize("name", ["a\rb", "a\r\nb", "\r"])
def test_a_carriage_return_in_a_name_does_not_end_its_row(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "a.csv", ("path", "label"), [[name, "x"], ["b", "y"]])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["path", "label"], [name, "x"], ["b", "y"]]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_new_content_is_on_disk_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("replace"), replace(self, target)))
    write_text(tmp_path / "a.txt", "new")
    assert order == ["fsync", "replace"]


def test_json_comes_back_and_is_readable(tmp_path: Path) -> None:
    value = {"größe": 1.5e-300, "n": [1, None, True], "猫": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_what_json_lacks_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_json_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file a\.json; got none in"):
        read_json(tmp_path / "a.json")
    for content in (b'{"a": 1', b"", b"\xff\xfe"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(InputError, match=r"expected JSON; got .*a.json"):
            read_json(tmp_path / "a.json")


def test_tensors_of_all_kinds_come_back(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    tensors = {
        "plain": base,
        "again": base,  # the same memory
        "view": base[:, 1],
        "turned": base.permute(3, 0, 1, 2),
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_tensors(tmp_path / "a.safetensors", tensors)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_too_little_disk_is_refused_with_a_tenth_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=110e6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "yet" / "there"
    check_free_space(folder, 99e6, "the plan")
    assert asked == [tmp_path]
    with pytest.raises(InputError, match=r"111 MB of free disk for the plan; got 110 MB at .*; free some space"):
        check_free_space(folder, 101e6, "the plan")
    assert not (tmp_path / "not").exists()


def test_free_space_of_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_free_space(Path("runs") / "a", 1, "nothing")
    with pytest.raises(InputError, match="of free disk"):
        check_free_space(Path("runs") / "a", 1e18, "everything")


def test_numbers_in_json_keep_every_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 2**-1074, 1.7976931348623157e308, -0.0]
    write_json(tmp_path / "a.json", values)
    assert [value.hex() for value in json.loads((tmp_path / "a.json").read_text())] == [v.hex() for v in values]
