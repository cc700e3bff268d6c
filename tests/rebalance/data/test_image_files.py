from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from rebalance.data.image_files import find_images
from rebalance.errors import InputError


@pytest.fixture
def folder(here: Path) -> Path:
    """Files and folders of many kinds, all empty."""
    for name in (
        "b.PNG",
        "a.jpg",
        "deep/er/c.webp",
        "notes.md",
        ".d.jpg",
        ".hidden/e.jpg",
        "__MACOSX/f.jpg",
        "odd.xyz",
    ):
        file = here / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return Path("photos")


def test_folders_are_searched_at_every_depth_without_what_is_hidden(folder: Path) -> None:
    found, notes = find_images([folder])
    assert found == ["photos/a.jpg", "photos/b.PNG", "photos/deep/er/c.webp"]
    assert notes == ("not read: 1 .md, 1 .xyz",)


def test_files_are_taken_as_they_are_named_and_once(folder: Path) -> None:
    named = [folder / "odd.xyz", folder / "deep", folder / ".d.jpg", folder / "a.jpg", folder]
    found, _ = find_images(named)
    assert found == [f"photos/{name}" for name in ("odd.xyz", "deep/er/c.webp", ".d.jpg", "a.jpg", "b.PNG")]


def test_an_image_counts_once_by_whatever_path_it_is_named(folder: Path, here: Path) -> None:
    (here / "link").symlink_to(folder)
    named = ["photos/a.jpg", here / "photos" / "a.jpg", "photos/deep/../a.jpg", "./photos/a.jpg", "link/a.jpg", "link"]
    found, _ = find_images([Path(path) for path in named])
    assert found == ["photos/a.jpg", "link/b.PNG", "link/deep/er/c.webp"]
    assert find_images([here / "photos", Path("photos")])[0] == [str(here / file) for file in find_images([folder])[0]]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "image files, or folders of them; got none"),
        (["photos", "gone"], "no such path: gone"),
        (["photos/.hidden", "photos/empty"], "images in every folder; got none in photos/empty"),
        (["images.csv"], "a list file: images.csv"),
    ],
)
def test_what_holds_no_images_is_refused(folder: Path, paths: Sequence[str], message: str) -> None:
    (folder / "empty").mkdir()
    Path("images.csv").touch()
    with pytest.raises(InputError, match=message):
        find_images([Path(path) for path in paths])


def test_a_folder_of_links_alone_is_refused_with_what_was_not_read(folder: Path) -> None:
    Path("links").mkdir()
    Path("links/photos").symlink_to(folder.resolve())
    with pytest.raises(InputError, match=r"none in links; not read: 1 linked folder\(s\); .*named themselves"):
        find_images([Path("links")])


def test_a_folder_that_cannot_be_listed_is_not_passed_by(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"photos/deep"):
        find_images([folder])


def test_names_that_no_file_in_utf8_can_hold_are_refused(folder: Path) -> None:
    try:
        Path(os.fsdecode(b"photos/\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(InputError, match="names of files and folders in UTF-8"):
        find_images([folder])
