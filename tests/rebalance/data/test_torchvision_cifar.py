"""CIFAR as torchvision lays it out, a few images of it: the real files cannot be downloaded in a test."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from rebalance.data.torchvision_cifar import read_cifar
from rebalance.errors import InputError

NAMES = {"cifar10": ["plane", "car"], "cifar100": ["apple", "bear", "whale"]}


def lay_out(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of four images each, with their checksums known to torchvision; the folder."""
    cls, key, classes = (CIFAR10, "labels", 2) if name == "cifar10" else (CIFAR100, "fine_labels", 3)
    folder = root / str(cls.base_folder)
    folder.mkdir(parents=True)

    def write(file: str, value: dict[str, object]) -> list[str]:
        content = pickle.dumps(value)
        (folder / file).write_bytes(content)
        return [file, hashlib.md5(content).hexdigest()]

    def batch(seed: int) -> dict[str, object]:
        data = np.random.default_rng(seed).integers(0, 256, (4, 3072), dtype=np.uint8)
        return {"data": data, key: [(seed + i) % classes for i in range(4)]}

    train = ["data_batch_1", "data_batch_2"] if name == "cifar10" else ["train"]
    test = "test_batch" if name == "cifar10" else "test"
    monkeypatch.setattr(cls, "train_list", [write(file, batch(i)) for i, file in enumerate(train)])
    monkeypatch.setattr(cls, "test_list", [write(test, batch(7))])
    meta = dict(cls.meta)
    meta["filename"], meta["md5"] = write(str(meta["filename"]), {meta["key"]: NAMES[name]})
    monkeypatch.setattr(cls, "meta", meta)
    return folder


@pytest.mark.parametrize(("name", "n_train"), [("cifar10", 8), ("cifar100", 4)])
def test_train_and_test_with_class_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_train: int
) -> None:
    lay_out(tmp_path, name, monkeypatch)
    splits = read_cifar(name, tmp_path)
    assert splits.classes == tuple(NAMES[name])
    assert splits.test is not None
    assert splits.val is None
    assert (len(splits.train), len(splits.test)) == (n_train, 4)
    assert splits.test.targets.tolist() == [(7 + i) % len(NAMES[name]) for i in range(4)]
    data = np.random.default_rng(7).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(splits.test.images), data.transpose(0, 2, 3, 1))


def test_a_changed_file_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lay_out(tmp_path, "cifar10", monkeypatch)

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "unpickled",)  # type: ignore[return-value]

    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"cifar-10-batches-py with unchanged files in .*got missing or changed files"):
        read_cifar("cifar10", tmp_path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_files_come_with_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"got no such folder; give the folder that holds it with --root, or .*--download$"
    ):
        read_cifar(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_class_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lay_out(tmp_path, "cifar10", monkeypatch)
    (folder / "batches.meta").unlink()
    with pytest.raises(InputError, match="cifar-10-batches-py with unchanged files"):
        read_cifar("cifar10", tmp_path)


def test_a_download_that_fails_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "no such archive.tar.gz").as_uri())
    with pytest.raises(InputError, match=r"cifar-10-batches-py to be fetched into .*check the connection"):
        read_cifar("cifar10", tmp_path / "data", download=True)
