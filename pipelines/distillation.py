"""A finished run as the teacher of another: what must agree, and its classifier behind its own preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from pipelines.config import TrainConfig
from pipelines.config_files import differences, from_dict, to_dict
from pipelines.config_groups import DataConfig, ObjectiveConfig
from pipelines.console import log
from pipelines.given_flags import given_flags
from pipelines.model_files import ModelDescription, TrainedClassifier, load_model, weights_of
from pipelines.open_data import OpenData
from pipelines.runs import read_run_config
from pipelines.trained_runs import prior_in, prior_of, training_of
from rebalance.errors import InputError
from rebalance.files import read_json, sha256
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod
from rebalance.methods.distilled import DistilledMethod

MAX_TEMPERATURE = 100.0
"""Beyond it float32 rounds the differences of the probabilities away."""


@final
class Teacher(nn.Module):
    """A trained classifier for images that were normalised by another's mean and standard deviation.

    Args:
        trained: The classifier.
        description: Of the one whose images it is given.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, trained: TrainedClassifier, description: ModelDescription) -> None:
        super().__init__()
        self.classifier = trained.classifier
        own_mean, own_std = torch.tensor(description.mean), torch.tensor(description.std)
        self.register_buffer("scale", (own_std / trained.std).view(-1, 1, 1))
        self.register_buffer("shift", ((own_mean - trained.mean) / trained.std).view(-1, 1, 1))
        self.same = torch.equal(own_mean, trained.mean) and torch.equal(own_std, trained.std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W)."""
        logits: Tensor = self.classifier(images if self.same else images * self.scale + self.shift)
        return logits


def check_distillation(objective: ObjectiveConfig) -> None:
    """Refuse settings of the teacher that cannot work, before any data are read.

    Raises:
        InputError: Numbers out of range, or numbers without a teacher.
    """
    if objective.teacher is None:
        for flag in given_flags(objective, ("teacher_share", "teacher_temperature", "teacher_power")):
            raise InputError(f"--teacher RUN with {flag}", "no teacher", f"add --teacher, or leave out {flag}")
        return
    if not 0 < objective.teacher_share <= 1:
        raise InputError("--teacher-share in (0, 1]", f"{objective.teacher_share:g}", "1 is the teacher alone")
    for flag, value in (
        ("--teacher-temperature", objective.teacher_temperature),
        ("--teacher-power", objective.teacher_power),
    ):
        if not 0 < value <= MAX_TEMPERATURE:
            raise InputError(f"{flag} in (0, {MAX_TEMPERATURE:g}]", f"{value:g}", "leave it out for the default")


def check_teacher(objective: ObjectiveConfig, folder: Path) -> None:
    """Refuse a teacher without a model, and a run folder that is or holds its teacher: starting anew would empty it.

    Raises:
        InputError: No model, or `folder` is the teacher's, or around it.
    """
    if objective.teacher is None:
        return
    weights_of(objective.teacher)
    if folder.resolve() in (path := objective.teacher.resolve(), *path.parents):
        raise InputError("a run folder of its own", f"{folder}, the teacher's", "choose another --experiment")


def teacher_facts(objective: ObjectiveConfig) -> dict[str, Any]:
    """What `metrics.json` is to say of the teacher: where it was, its weights' hash, what of it has the prior in it."""
    if objective.teacher is None:
        return {}
    return {
        "teacher": {
            "run": str(objective.teacher),
            "weights": sha256(weights_of(objective.teacher)),
            "prior": _prior_of(objective.teacher) or "",
        }
    }


def with_teacher(method: Method, description: ModelDescription, config: TrainConfig, opened: OpenData) -> Method:
    """`method` with the config's teacher; itself where there is none.

    Args:
        method: What is taught.
        description: Of its classifier.
        config: Of the training.
        opened: Its data.

    Raises:
        InputError: A method that takes no teacher; a teacher of other classes, another size or other data.
    """
    objective = config.objective
    if objective.teacher is None:
        return method
    if not isinstance(method, ComposedMethod):
        raise InputError(
            "a composed method for --teacher",
            f"{objective.recipe}, which has parts of its own",
            "choose another --method, such as balanced_mixup",
        )
    trained = load_model(objective.teacher)
    _check_teacher(objective.teacher, trained, opened)
    priors = (_prior_of(objective.teacher), prior_in(config))
    if priors[0] is not None and bool(priors[0]) != bool(priors[1]):
        log.warning(
            "one of teacher and student has the class prior in its loss (%s), the other has not: "
            "they pull the logits apart",
            priors[0] or priors[1],
        )
    return DistilledMethod(
        method,
        Teacher(trained, description),
        share=objective.teacher_share,
        temperature=objective.teacher_temperature,
        power=objective.teacher_power,
    )


def _prior_of(teacher: Path) -> str | None:
    """What of it has the class prior in it; None for a model without its run."""
    return prior_of(teacher) if (teacher / "config.yaml").is_file() else None


def _config_of(teacher: Path) -> TrainConfig | None:
    """What it was trained with; None for a model without its run, and for second stages."""
    if not (teacher / "config.yaml").is_file():
        return None
    saved = read_run_config(training_of(teacher))
    return from_dict(TrainConfig, saved) if saved.pop("command") == "train" else None


def _check_teacher(teacher: Path, trained: TrainedClassifier, opened: OpenData) -> None:
    expected = {"classes": opened.classes, "an image size": opened.size}
    found = {"classes": trained.classes, "an image size": trained.image_size}
    for name, value in expected.items():
        if found[name] != value:
            raise InputError(
                f"a teacher with {name} of {_short(value)}",
                f"{teacher} with {_short(found[name])}",
                "train the teacher on the same data",
            )
    if not (teacher / "config.yaml").is_file():
        log.warning(
            "nobody knows what %s was trained on; if test images are among it, the figures mean nothing", teacher
        )
    elif read_json(training_of(teacher) / "classes.json")["fingerprint"] != opened.fingerprint:
        raise InputError(
            "a teacher that was trained on these data, cut and split like this",
            f"{teacher}, trained on others ({_difference(teacher, opened.config)}), "
            "which may hold images that this run is judged by",
            f"train one of the two with the other's data flags; if it is meant, give {teacher / 'model'}",
        )


def _difference(teacher: Path, data: DataConfig) -> str:
    config = _config_of(teacher)
    if config is None:
        return "other files or splits"
    its = replace(config.data, augment=data.augment)  # the same images, however they are augmented
    return "; ".join(differences(to_dict(its), to_dict(data))) or "the files have changed"


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
