from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.Image import Resampling

from rebalance.data.decoding import decode, to_rgb

COLOUR = (204, 102, 51)  # also one of the web palette's


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """Smooth colours with an edge, no two corners alike."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([255 * x, 255 * y, 255 * (x + y > 1)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def near(pixels: np.ndarray, expected: tuple[int, ...] | np.ndarray, tolerance: int) -> None:
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(expected, pixels.shape), atol=tolerance)


def saved(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)  # type: ignore[arg-type]
    return str(path)


# Modes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb_of_the_same_colour(mode: str) -> None:
    source = Image.new("RGB", (5, 4), COLOUR)
    image = source.convert(mode) if mode != "PA" else source.convert("P").convert("PA")
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (5, 4))
    luma = (299 * 204 + 587 * 102 + 114 * 51) / 1000
    if mode == "1":  # dithered
        assert set(np.unique(np.asarray(rgb))) <= {0, 255}
        assert (np.asarray(rgb)[..., 0] == np.asarray(rgb)[..., 2]).all()
    elif mode in ("L", "LA"):
        near(np.asarray(rgb), (round(luma),) * 3, 1)
    else:
        near(np.asarray(rgb), COLOUR, 0 if mode in ("P", "PA") else 3)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_are_scaled_not_cut_off(mode: str) -> None:
    values = np.array([[0, 257, 12_850, 32_896, 65_535]], dtype=np.uint16)
    order = ">u2" if mode == "I;16B" else "<u2" if mode in ("I;16", "I;16L") else "=u2"
    image = Image.frombytes(mode, (5, 1), values.astype(order).tobytes())
    assert np.asarray(to_rgb(image))[0].tolist() == [[v] * 3 for v in (0, 1, 50, 128, 255)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 25_700, 65_535], [0, 100, 255]),
        ([0, 257, 300], [0, 1, 1]),  # above 255: sixteen bits, however dark
        ([0, 2**30, 2**31 - 1], [0, 128, 255]),
        ([-5, 0, 7], [0, 0, 7]),
    ],
)
def test_whole_numbers_are_scaled_by_the_range_they_need(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 25_700.0, 65_535.0], [0, 100, 255]),
        ([-1.0, 0.25, 0.5], [0, 64, 128]),
        ([float("nan"), 0.5, 1.0], [0, 128, 255]),
        ([float("inf"), 100.0, float("-inf")], [0, 100, 0]),
    ],
)
def test_floats_are_scaled_and_what_is_no_number_is_black(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert image.mode == "F"
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == expected


def test_transparency_is_laid_over_white() -> None:
    for mode, colour in (("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("RGBa", (0, 0, 0, 0)), ("PA", (0, 0))):
        near(np.asarray(to_rgb(Image.new(mode, (2, 2), colour))), (255, 255, 255), 0)  # type: ignore[arg-type]
    half = to_rgb(Image.new("RGBA", (2, 2), (200, 0, 0, 128)))
    near(np.asarray(half), (227, 127, 127), 1)


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    plain = decode(saved(tmp_path / "plain.png", image))
    assert plain[0, :2].tolist() == [[255, 0, 0], [0, 0, 255]]
    for transparency, shown in ((1, [255, 255, 255]), (bytes([255, 128]), [127, 127, 255])):
        pixels = decode(saved(tmp_path / "clear.png", image, transparency=transparency))
        assert pixels[0, 0].tolist() == [255, 0, 0]
        near(pixels[0, 1], np.array(shown), 1)


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("RGB", (10, 20, 30)), ("1", 0)])
def test_a_transparent_colour_is_laid_over_white(tmp_path: Path, mode: str, colour: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (3, 3), colour)
    image.putpixel((0, 0), 255 if isinstance(colour, int) else (1, 2, 3))
    pixels = decode(saved(tmp_path / "a.png", image, transparency=colour))
    assert pixels[1, 1].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == ([255] * 3 if isinstance(colour, int) else [1, 2, 3])


# Files


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "tga"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"Ü b.c.{suffix}", photo(), **options)
    np.testing.assert_array_equal(decode(path), np.asarray(photo()))


def test_sixteen_bit_and_cmyk_files(tmp_path: Path) -> None:
    grey = np.linspace(0, 65_535, 24 * 16).reshape(16, 24).astype(np.uint16)
    pixels = decode(saved(tmp_path / "grey.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(pixels, np.rint(grey / 257).astype(np.uint8)[..., None].repeat(3, axis=2))
    near(decode(saved(tmp_path / "cmyk.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))), (254, 0, 0), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 8])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, size: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", photo(96, 64), exif=exif, quality=100, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert upright.size == ((96, 64) if orientation < 5 else (64, 96))
    expected = upright if size is None else ImageOps.fit(upright, (size, size), Resampling.BICUBIC)
    near(decode(path, size), np.asarray(expected), 0 if size is None else 6)


def test_a_jpeg_is_scaled_while_it_is_read_but_keeps_its_looks(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", photo(640, 400), quality=95)
    for size in (8, 32, 224, 400, 500):
        expected = ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Resampling.BICUBIC)
        pixels = decode(path, size)
        assert pixels.shape == (size, size, 3)
        difference = np.abs(pixels.astype(int) - np.asarray(expected).astype(int))
        assert difference.mean() < 2


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "lime")]
    for suffix in ("gif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        near(decode(path), (255, 0, 0), 0)


# Size


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (3, 20_000), (20_000, 3), (33, 32), (7, 9)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_any_shape_comes_out_in_the_size_asked_for(tmp_path: Path, width: int, height: int, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (width, height), COLOUR))
    for size in (8, 32):
        pixels = decode(path, size)
        assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
        near(pixels, COLOUR, 4)


def test_an_image_of_that_size_is_not_touched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert decode(noise, 32) is noise
    assert decode(noise) is noise
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", Image.fromarray(noise)), 32), noise)
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise))
    np.testing.assert_array_equal(decode(path, 32), np.asarray(Image.open(path)))


def test_the_shorter_side_is_scaled_and_the_centre_kept() -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 20:60] = 255  # the central square
    assert decode(pixels, 40).min() == 255
    assert decode(pixels.transpose(1, 0, 2), 40).min() == 255
    assert decode(pixels, 20)[:, 2:-2].min() == 255


def test_scaling_down_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    near(decode(stripes, 8)[2:-2, 2:-2], (127, 127, 127), 6)


# What cannot be read


def test_damaged_files_raise_an_oserror_that_names_them(tmp_path: Path) -> None:
    whole = BytesIO()
    photo(64, 64).save(whole, "JPEG")
    contents = {
        "empty.jpg": b"",
        "text.png": b"this is text",
        "truncated.jpg": whole.getvalue()[:400],
        "header.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        for size in (None, 8):
            with pytest.raises(OSError, match=name) as raised:
                decode(str(tmp_path / name), size)
            assert str(raised.value).count(name) == 1


@pytest.mark.parametrize("name", ["missing.jpg", "."])
def test_no_file_and_a_folder_are_oserrors(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="cannot decode") as raised:
        decode(str(tmp_path / name))
    assert str(raised.value).count(str(tmp_path)) == 1


AVIF = pytest.param("avif", marks=pytest.mark.skipif("avif" not in features.get_supported(), reason="Pillow < 11.3"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", AVIF])
def test_no_damage_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    buffer = BytesIO()
    photo().save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    path, stream = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    failures: list[str] = []
    for _ in range(40):
        content = bytearray(buffer.getvalue())
        for place in stream.integers(0, len(content), 20):
            content[place] = stream.integers(256)
        path.write_bytes(content[: stream.integers(1, len(content) + 1)])
        try:
            assert decode(str(path), 8).shape == (8, 8, 3)
        except OSError as error:
            failures.append(str(error))
    assert len(failures) > 5
    assert all(str(path) in failure for failure in failures)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # refused above twice as many
    with pytest.raises(OSError, match=r"bomb.png: .*decompression bomb"):
        decode(path, 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"notes", "no image that Pillow knows"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, which Pillow does not read: convert it to JPEG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42", "no image that Pillow knows"),
    ],
)
def test_a_file_that_is_no_image_says_why(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    with pytest.raises(OSError, match=rf"cannot decode .*a\.jpg: {told}$"):
        decode(str(file))


def test_an_avif_image_that_pillow_is_not_built_for_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise UnidentifiedImageError(path)

    monkeypatch.setattr(Image, "open", refuse)
    file = tmp_path / "a.avif"
    file.write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0")
    with pytest.raises(OSError, match=r"an AVIF image, .*convert it to JPEG, or install Pillow 11.3"):
        decode(str(file))
