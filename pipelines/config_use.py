"""Configs of the commands that use a trained classifier as it is, see `pipelines.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pipelines.checked_settings import CheckedSettings
from rebalance.cpus import usual_workers


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CheckedSettings):
    """Measure a trained run on its test split, or on other images."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder of `rebalance train` or `rebalance run`."""
    data: Annotated[Positional[str | None], arg(metavar="[DATA]")] = None
    """Folder or list file of test images; by default the data that the run was trained on."""
    split: Literal["test", "val", "train"] = "test"
    """Which split of the data; a folder without splits is taken whole."""
    root: Path | None = None
    """Folder that the paths of DATA, a list file, are relative to."""
    path_column: str | None = None
    """CSV column of the image path; by default as the run was told."""
    label_column: str | None = None
    """CSV column of the class name or number; by default as the run was told."""
    split_column: str = "split"
    """CSV column of DATA that says train, val or test, if there is one."""
    many: int | None = None
    """A class with more training images is many-shot; by default as the run was told."""
    few: int | None = None
    """A class with fewer training images is few-shot; by default as the run was told."""
    skip_corrupt: bool = False
    """Go on without images that cannot be read."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 256
    """Images at a time."""
    workers: Annotated[int, arg(aliases=["-j"])] = field(default_factory=usual_workers)
    """Threads and processes that decode images; by default one for each CPU, at most 8."""
    device: str = "auto"
    """cpu, cuda; auto takes the GPU if there is one."""
    predictions: Path | None = None
    """File to write, FILE.csv: the class of every image, the predicted one, and the probabilities of both."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig(CheckedSettings):
    """Say what is on images, by a trained run: a CSV file with the class of each and its probability."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, or a `model/` alone."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGES [IMAGES ...]")]
    """Image files, and folders, which are searched for image files at every depth; what is hidden in them is not."""
    out: Path | None = None
    """File to write, FILE.csv; by default under runs/predict, named for RUN and for the first of IMAGES, with six
    letters that differ where other ones are called the same."""
    top: int = 1
    """How many classes of each image, the most probable first."""
    skip_corrupt: bool = False
    """Go on without images that cannot be read."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 256
    """Images at a time."""
    workers: Annotated[int, arg(aliases=["-j"])] = field(default_factory=usual_workers)
    """Processes that decode images, by default one for each CPU, at most 8; 0 decodes in this one."""
    device: str = "auto"
    """cpu, cuda; auto takes the GPU if there is one."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CheckedSettings):
    """Write the classifier of a run as one file that needs nothing of this package."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, or a `model/` alone."""
    out: Path | None = None
    """File to write, FILE.pt2 or FILE.onnx; by default classifier.pt2 or classifier.onnx in RUN."""
    format: Literal["pt2", "onnx"] | None = None
    """pt2: torch.export's, which needs torch alone; onnx: needs the packages onnx, onnxscript and onnxruntime. By
    default that of --out, or pt2."""
    outputs: Literal["probabilities", "logits"] = "probabilities"
    """What comes out of it for uint8 pixels (batch, 3, height, width)."""
