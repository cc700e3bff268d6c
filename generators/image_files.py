"""Image files that say what they are: the job id and the mark "synthetic" are in the file itself."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from rebalance.data.table import ByteArray
from rebalance.files import write_bytes

MARK = "synthetic"


def to_pixels(image: Tensor) -> ByteArray:
    """(3, H, W) in [0, 1] → pixels (H, W, 3) uint8."""
    pixels: ByteArray = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def encode_png(pixels: ByteArray, job_id: str) -> bytes:
    """PNG bytes, the same for the same pixels and job."""
    info = PngInfo()
    info.add_text("Source", MARK)
    info.add_text("Job", job_id)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def write_png(path: Path, pixels: ByteArray, job_id: str) -> bytes:
    """Write a PNG file, whole or not at all; its bytes."""
    content = encode_png(pixels, job_id)
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


def class_name_of(folder: str) -> str:
    """The class name that `folder_name` made a folder of."""
    return unquote(folder)
