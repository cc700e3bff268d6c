from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from generators.image_files import encode_image, folder_name, to_pixels, write_image
from rebalance.data.decoding import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def test_pixels_are_rounded_and_in_their_place() -> None:
    image = torch.tensor([0.0, 0.5, 1.0, 100.4 / 255]).view(1, 2, 2).repeat(3, 1, 1)
    image[2] = 0
    pixels = to_pixels(image)
    assert pixels.tolist() == [[[0, 0, 0], [128, 128, 0]], [[255, 255, 0], [100, 100, 0]]]
    assert pixels.dtype == np.uint8


def test_every_pixel_value_survives_floats_and_file(tmp_path: Path) -> None:
    values = torch.arange(256).view(1, 16, 16).repeat(3, 1, 1)
    pixels = to_pixels(values.float() / 255)
    write_image(tmp_path / "a.png", pixels, "job")
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), 16), values.permute(1, 2, 0).numpy())


def test_a_file_says_that_it_is_synthetic_and_which_job_made_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.png"
    content = write_image(path, PIXELS, "0123abc")
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.png"]
    with Image.open(path) as image:
        assert image.text == {"Source": "synthetic", "Job": "0123abc"}  # type: ignore[attr-defined]
        np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_other_kinds_say_so_in_their_exif(suffix: str, tmp_path: Path) -> None:
    content = write_image(tmp_path / f"a{suffix}", PIXELS, "0123abc")
    assert content == encode_image(PIXELS, "0123abc", "webp" if suffix == ".webp" else "jpeg")
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == {".webp": "WEBP", ".jpg": "JPEG"}[suffix]
        exif = image.getexif()
        assert (exif[0x010E], exif[0x010D]) == ("synthetic", "0123abc")


def test_webp_keeps_every_pixel_and_jpeg_nearly(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    for suffix, most in ((".webp", 0), (".jpg", 4)):
        write_image(tmp_path / f"a{suffix}", smooth, "job")
        gap = np.abs(decode(str(tmp_path / f"a{suffix}")).astype(int) - smooth)
        assert gap.max() <= most


def test_bytes_depend_on_pixels_and_job_alone() -> None:
    assert encode_image(PIXELS, "a") == encode_image(PIXELS.copy(), "a")
    assert encode_image(PIXELS, "a") != encode_image(PIXELS, "b")
    assert encode_image(PIXELS, "a") != encode_image(PIXELS[::-1], "a")


@pytest.mark.parametrize("name", [".", "..", ".hidden", "a/b", "../../etc", "100%", "%2F", "tit, blue", "猫", "a\\b"])
def test_any_class_name_is_one_folder_inside(tmp_path: Path, name: str) -> None:
    folder = folder_name(name)
    assert not folder.startswith(".")
    assert (tmp_path / folder).parent == tmp_path
    (tmp_path / folder).mkdir()
    assert os.listdir(tmp_path) == [folder]
    assert unquote(folder) == name


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_class_names_come_back_and_no_two_share_a_folder(one: str, other: str) -> None:
    assert unquote(folder_name(one)) == one
    assert (folder_name(one) == folder_name(other)) == (one == other)
    assert not {"/", "\0"} & set(folder_name(one))
