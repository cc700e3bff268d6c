"""Image files that say what they are: the job id and the mark "synthetic" are in the file itself."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from rebalance.data.table import ByteArray
from rebalance.files import write_bytes

MARK = "synthetic"
_DESCRIPTION, _DOCUMENT = 0x010E, 0x010D
"""EXIF tags of WebP and JPEG: ImageDescription holds the mark, DocumentName the job id."""

ImageKind = Literal["png", "webp", "jpeg"]
SUFFIXES: dict[ImageKind, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
_KINDS = {suffix: kind for kind, suffix in SUFFIXES.items()}


def to_pixels(image: Tensor) -> ByteArray:
    """(3, H, W) in [0, 1] → pixels (H, W, 3) uint8."""
    pixels: ByteArray = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def encode_image(pixels: ByteArray, job_id: str, kind: ImageKind = "png") -> bytes:
    """Bytes of an image file of pixels (H, W, 3) uint8, the same for the same pixels and job.

    PNG and WebP keep every pixel, WebP in a quarter of the time; JPEG (quality 95, full colour) takes about a third of
    the room.
    """
    buffer = BytesIO()
    image = Image.fromarray(pixels)
    if kind == "png":
        info = PngInfo()
        info.add_text("Source", MARK)
        info.add_text("Job", job_id)
        image.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_DOCUMENT] = MARK, job_id
    if kind == "webp":
        image.save(buffer, "WEBP", lossless=True, method=0, exif=exif)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    return buffer.getvalue()


def write_image(path: Path, pixels: ByteArray, job_id: str) -> bytes:
    """Write pixels (H, W, 3) uint8 to a file of the kind that its suffix says, whole or not at all; its bytes."""
    content = encode_image(pixels, job_id, _KINDS[path.suffix])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return content


def folder_name(class_name: str) -> str:
    """A class name as one folder name: what a path cannot hold is percent-encoded.

    Examples:
        >>> folder_name("tit, blue"), folder_name("a/b"), folder_name(".hidden")
        ('tit, blue', 'a%2Fb', '%2Ehidden')
    """
    name = class_name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return f"%2E{name[1:]}" if name.startswith(".") else name
