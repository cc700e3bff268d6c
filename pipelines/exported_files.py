"""Formats of exported programs: the bytes of a file, and what a file computes when it is loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.export import ExportedProgram

from rebalance.errors import InputError, RunError

Format: TypeAlias = Literal["pt2", "onnx"]
DESCRIPTION = "description.json"
"""Of a .pt2 file: name of the description among its extra files."""
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_ONNX_BYTES = 2**31 - 2**24
"""Protocol buffers end at 2 GiB; the last 16 MiB are room for the graph."""


@dataclass(frozen=True)
class FileFormat:
    """How a format is written and read.

    Args:
        check: Raises `InputError` where packages are missing.
        write: Program, name of its output, description → the file's bytes.
        load: The file's bytes → a function of uint8 images (B, 3, S, S).
    """

    check: Callable[[], None]
    write: Callable[[ExportedProgram, str, Mapping[str, Any]], bytes]
    load: Callable[[bytes], Callable[[Tensor], Tensor]]


def _nothing_needed() -> None:
    pass


def _write_pt2(program: ExportedProgram, output: str, description: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(description, ensure_ascii=False, indent=2)})
    return file.getvalue()


def _load_pt2(content: bytes) -> Callable[[Tensor], Tensor]:
    return torch.export.load(BytesIO(content)).module()


def _check_onnx() -> None:
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            "the packages onnx, onnxscript and onnxruntime for ONNX",
            f"no {' and no '.join(missing)}",
            f"pip install {' '.join(missing)}; or take --format pt2, which needs nothing more",
        )


def _write_onnx(program: ExportedProgram, output: str, description: Mapping[str, Any]) -> bytes:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > _ONNX_BYTES:
        raise InputError("weights of less than 2 GB for ONNX", f"{size / 1e9:.1f} GB", "take --format pt2")
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=({0: "batch"},),  # the name that readers see
            verbose=False,
        )
    except Exception as error:
        raise RunError(f"torch cannot write this network as ONNX; take --format pt2: {error}") from error
    assert exported is not None
    model = exported.model_proto
    for key, value in description.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=key, value=text)
    content: bytes = model.SerializeToString()
    return content


def _load_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMATS: dict[Format, FileFormat] = {
    "pt2": FileFormat(_nothing_needed, _write_pt2, _load_pt2),
    "onnx": FileFormat(_check_onnx, _write_onnx, _load_onnx),
}
