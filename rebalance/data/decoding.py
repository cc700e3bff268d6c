"""Any image Pillow reads → RGB uint8 of one size."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from rebalance.data.table import ByteArray, Image

_HEIC = "a HEIC image, which Pillow does not read: convert it to JPEG"
_AVIF = "an AVIF image, which this Pillow does not read: convert it to JPEG, or install Pillow 11.3 or newer"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIC),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
}
"""What the first bytes of such a file say, behind `ftyp`."""
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(image: Image, size: int | None = None) -> ByteArray:
    """Pixels (H, W, 3) uint8 of a file or an array.

    EXIF rotation is applied, 16-bit and float images are scaled to 8 bits (Pillow's own conversion saturates them),
    transparency is laid over white, and of an animation the first frame is taken.

    Args:
        image: File path, or pixels (H, W, 3) uint8.
        size: Scale the shorter side to `size` with antialiasing and crop the centre to size × size; None keeps the
            image as it is. An image of that size is not touched.

    Raises:
        OSError: The file cannot be read or is no image that Pillow knows; the message names it.
    """
    if not isinstance(image, str):
        return image if size is None or image.shape[:2] == (size, size) else _pixels(Pillow.fromarray(image), size)
    try:
        with Pillow.open(image) as opened:
            if size is not None:
                opened.draft("RGB", (2 * size, 2 * size))  # lets libjpeg skip detail that the resize would drop
            return _pixels(to_rgb(ImageOps.exif_transpose(opened)), size)
    except Exception as error:  # of any kind: RuntimeError from AVIF, SyntaxError from PNG, struct.error from TIFF
        raise OSError(f"cannot decode {image}: {_reason(error, image)}") from error


def _reason(error: Exception, path: str) -> str:
    """What is wrong, without the path, which Python and Pillow repeat."""
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            start = file.read(12)
        if not start:
            return "the file is empty"
        brand = start[8:] if start[4:8] == b"ftyp" else b""
        return _BRANDS.get(brand, "no image that Pillow knows")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def to_rgb(image: Pillow.Image) -> Pillow.Image:
    """`image` in mode RGB, whatever its mode."""
    if image.mode in _SIXTEEN_BIT or image.mode in ("I", "F"):
        image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Pillow.new("RGBA", over.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(image: Pillow.Image) -> Pillow.Image:
    values = np.asarray(image, dtype=np.float64)
    values = np.where(np.isfinite(values), values, 0.0)  # a float image marks what was not measured so
    if image.mode in _SIXTEEN_BIT:
        scale = 255 / 65535
    else:  # I and F carry no range of their own: 1, 255 or 65,535, the smallest that holds the values
        top = float(values.max(initial=0.0))
        scale = 255.0 if image.mode == "F" and top <= 1 else 1.0 if top <= 255 else 255 / max(top, 65535.0)
    return Pillow.fromarray(np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8))


def _pixels(image: Pillow.Image, size: int | None) -> ByteArray:
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Pillow.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)
