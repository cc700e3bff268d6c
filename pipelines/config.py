"""One frozen dataclass per command: the API, the command line, the saved file and the defaults.

A field's docstring is its help text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from pipelines.checked_settings import CheckedSettings
from pipelines.config_groups import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
)
from pipelines.config_use import EvaluateConfig, ExportConfig, PredictConfig
from pipelines.generator_config import GeneratorConfig, ImageFilesConfig, StableDiffusionConfig


@dataclass(frozen=True, kw_only=True)
class InspectConfig(CheckedSettings):
    """Show the imbalance of a data set, and what will hurt: table, figures, picture, warnings."""

    data: DataConfig
    check_files: bool = True
    """Read every image: unreadable files, the same image in two splits or two classes."""
    json: bool = False
    """Print JSON instead of tables."""
    picture: Path | None = None
    """Where to save the picture; by default under runs/inspect."""


@dataclass(frozen=True, kw_only=True)
class ResampleConfig(CheckedSettings):
    """Write a list of the training images that re-balances them by repeating files, for training with any tool."""

    data: DataConfig
    out: Path | None = None
    """File to write, FILE.csv with the columns path and label; by default under runs/resample."""
    rows: Literal["fill", "same", "cut"] = "fill"
    """How long the list is. fill: all images, the rare ones repeated; same: as long as before, so that images of
    frequent classes are left out and rare ones repeated; cut: no image repeated, the frequent ones left out."""
    rule: Literal["inverse", "sqrt-inverse", "effective-number"] = "inverse"
    """Shares of the classes, by the weight of an image; inverse: all classes alike."""
    strength: float = 1.0
    """Exponent of the rule: 0 leaves the shares as they are, 1 follows the rule."""
    cb_beta: float | None = None
    """β of the effective number; by default 1 - 1 / n_max."""
    seed: int = 0
    """Which images are taken, and which are repeated once more than others."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CheckedSettings):
    """Train a classifier on real and, if given, synthetic images."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    synthetic: Path | None = None
    """Folder that `rebalance synthesize` wrote, its shards alone, or any folder of class folders."""
    synthetic_set: Literal["kept", "unfiltered", "replay"] = "kept"
    """Which of its images: those that passed the gates; the first ones whatever the gates say; or, as a control, real
    images repeated as often as images were kept."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    seed: int = 0
    """Everything random is derived from it."""
    place: PlaceConfig = field(default_factory=PlaceConfig)


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(CheckedSettings):
    """Make images of the rare classes: plan, generate, filter; an image folder, a manifest, contact sheets."""

    data: DataConfig
    out: Path | None = None
    """Folder to write; by default under runs/synthesize."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stable_diffusion: StableDiffusionConfig = field(default_factory=StableDiffusionConfig)
    files: ImageFilesConfig = field(default_factory=ImageFilesConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    amp: Literal["auto", "no", "bf16"] = "auto"
    """Precision of the generator, in training and sampling; auto: bf16 on a GPU that computes it, else float32."""
    deterministic: bool = False
    """The same bits in every repetition on one machine, at some speed. Only a GPU needs it: a CPU repeats itself."""
    seed: int = 0
    """Everything random is derived from it."""
    dry_run: bool = False
    """Print the plan with images, minutes and megabytes, and stop."""
    max_minutes: float = 60.0
    """Refuse a plan that is estimated to take longer."""
    resume: bool = True
    """Go on with a run that was interrupted; --no-resume starts it again from nothing."""
    device: str = "auto"
    """cpu, cuda; auto takes the GPU if there is one."""


Arm = Literal["ce", "rebalanced", "replay", "unfiltered", "synthetic", "feedback"]
ARMS: tuple[Arm, ...] = ("ce", "rebalanced", "replay", "unfiltered", "synthetic")


@dataclass(frozen=True, kw_only=True)
class RebalanceConfig(CheckedSettings):
    """The whole pipeline: synthesize the tail, re-balance, train, evaluate, with the controls side by side."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stable_diffusion: StableDiffusionConfig = field(default_factory=StableDiffusionConfig)
    files: ImageFilesConfig = field(default_factory=ImageFilesConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    arms: tuple[Arm, ...] = ARMS
    """What is compared: plain cross entropy; the method; and the method with as many real images repeated, with
    generated images as they come, and with generated images that passed the gates."""
    rounds: int = 1
    """Above 1, one more arm, feedback: the budget of the arm synthetic is given out in so many rounds, each to the
    classes that validation still fails on after the round before. Needs a validation split, such as by --val-fraction.
    """
    seeds: int = 3
    """Trainings of each arm; arms are paired by seed."""
    seed: int = 0
    """First seed."""
    tune: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="WEIGHT:SHARE", help_behavior_hint="(repeatable, default: 0.3:0.9 1:0.8 1:0.5)"),
    ] = ("0.3:0.9", "1:0.8", "1:0.5")
    """A candidate for --synthetic-weight and --real-share, in place of the three; or none, to try none. The best by
    validation is taken; where none is better than no synthetic images, that is said and the configured ones are taken.
    """
    tune_folds: int = 0
    """Folds of the training split to validate the candidates by, each with a generator of its own, where there is no
    validation split; 0 does without."""
    select: Literal["auto", "ce", "rebalanced", "synthetic", "feedback"] = "auto"
    """The arm whose first seed becomes model/. auto: the best by validation; without any rebalanced, since the test
    split is no judge."""
    dry_run: bool = False
    """Print what is left to train and to make, with minutes, and stop."""
    max_minutes: float = 60.0
    """Refuse a synthesis that is estimated to take longer."""
    place: PlaceConfig = field(default_factory=PlaceConfig)


RETRAINING_EPOCHS = 10
"""Of `rebalance retrain`, unless given."""


@dataclass(frozen=True, kw_only=True)
class RetrainConfig(CheckedSettings):
    """Give a trained run another head: train one anew, re-scale its own, or adjust its outputs."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder of `rebalance train` or `rebalance run`."""
    method: str = "crt"
    """The second stage: crt, lws, linear or label_aware_smoothing, which train a head, or tau_norm, ncm or
    logit_adjustment, which do not; `rebalance methods NAME` says what each is."""
    option: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["-o"], metavar="NAME=VALUE")] = ()
    """An option of the second stage, such as -o tau=0.7."""
    optimization: OptimizationConfig = field(
        default_factory=lambda: OptimizationConfig(epochs=RETRAINING_EPOCHS, warmup_epochs=0.0)
    )
    seed: int | None = None
    """Everything random is derived from it; by default that of the run."""
    place: PlaceConfig = field(default_factory=PlaceConfig)


@dataclass(frozen=True, kw_only=True)
class MethodsConfig(CheckedSettings):
    """List the methods; with a name: its options, its paper, when to use it."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A method."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(CheckedSettings):
    """Write the report of finished runs: one HTML file, with Markdown and JSON beside it."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders, one or more. Runs that differ in their seed alone are one arm; the others are compared with the
    first, seed by seed."""
    out: Path | None = None
    """Where to write report.html; by default into the run's folder, or for several runs under runs/report."""


#: Sub-command → its config.
COMMANDS: dict[str, type] = {
    "inspect": InspectConfig,
    "resample": ResampleConfig,
    "synthesize": SynthesizeConfig,
    "train": TrainConfig,
    "retrain": RetrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "run": RebalanceConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "methods": MethodsConfig,
}
