"""Write the classifier of a run as one file that needs nothing of this package, and check that it computes the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelines.checked_settings import check_config
from pipelines.config_use import ExportConfig
from pipelines.console import log
from pipelines.csv_targets import check_place
from pipelines.exported_files import FORMATS, Format
from pipelines.model_files import load_model
from pipelines.portable_program import Outputs, PortableClassifier, describe, trace
from rebalance.data.resizing import resize_images
from rebalance.errors import InputError, RunError
from rebalance.files import write_bytes

TOLERANCE = 1e-3
"""Largest difference of an output between file and network, where the largest output is 1 or less; in proportion to it
where it is more."""
_N_IMAGES = 8


@dataclass(frozen=True)
class ExportedModel:
    """An exported file.

    Args:
        file: Where it is.
        format: Its format.
        outputs: What its program returns.
        image_size: Height and width of the images it takes, px.
        n_bytes: Its size.
        largest_difference: Between its outputs and those of the network, on random images.
    """

    file: Path
    format: Format
    outputs: Outputs
    image_size: int
    n_bytes: int
    largest_difference: float


def export(config: ExportConfig) -> ExportedModel:
    """Write the classifier of a run folder as one file; the file gets its name after it computed what the network does.

    Raises:
        InputError: No run, a name that does not go with the format, a place where no file can be written, or packages
            that the format needs and that are missing.
        RunError: A network that the format cannot hold, or a file that computes something else.
    """
    check_config(config, ExportConfig)
    form, file = _format_and_file(config)
    check_place("--out", file)
    FORMATS[form].check()
    model = load_model(config.run)
    portable = PortableClassifier(model, config.outputs).eval().requires_grad_(False)
    description = describe(model, config.outputs)
    content = FORMATS[form].write(trace(portable, model.image_size), config.outputs, description)
    difference = _difference(portable, FORMATS[form].load(content), model.image_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, content)
    return ExportedModel(file, form, config.outputs, model.image_size, len(content), difference)


def _format_and_file(config: ExportConfig) -> tuple[Format, Path]:
    if config.out is None:
        form: Format = config.format or "pt2"
        return form, config.run / f"classifier.{form}"
    endings: dict[str, Format] = {".pt2": "pt2", ".onnx": "onnx"}
    told = endings.get(config.out.suffix.lower())
    if told is None or config.out.is_dir() or config.format not in (None, told):
        wanted = f"--out FILE.{config.format}" if config.format else "--out FILE.pt2 or FILE.onnx"
        raise InputError(wanted, str(config.out), "name a file to write; its ending says the format")
    return told, config.out


@torch.no_grad()
def _difference(network: Callable[[Tensor], Tensor], loaded: Callable[[Tensor], Tensor], size: int) -> float:
    """The largest difference of an output, over several images at a time and over one alone."""
    blotches = torch.randint(256, (_N_IMAGES, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = resize_images(blotches.to(torch.uint8), size)
    expected = network(images)
    found = torch.cat([loaded(images), loaded(images[:1])])
    difference = float((found - torch.cat([expected, expected[:1]])).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise RunError(
            f"the exported program differs from the network by {difference:.2g}, more than {allowed:.2g}: nothing was "
            "written; try the other --format"
        )
    return difference


def export_command(config: ExportConfig) -> None:
    """`rebalance export`: say what was written, and how near it is to the network."""
    made = export(config)
    size = made.image_size
    log.info(
        "%s, %.1f MB: uint8 RGB images (batch, 3, %d, %d) → %s", made.file, made.n_bytes / 1e6, size, size, made.outputs
    )
    log.info("loaded again, %d random images: at most %.2g from the network", _N_IMAGES, made.largest_difference)
