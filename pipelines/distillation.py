"""A finished run as the teacher of another: what must agree, and its classifier behind its own preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from pipelines.config_groups import ObjectiveConfig
from pipelines.console import log
from pipelines.model_files import ModelDescription, TrainedClassifier, load_model
from pipelines.open_data import OpenData
from rebalance.errors import InputError
from rebalance.files import read_json
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod
from rebalance.methods.distilled import DistilledMethod


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

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W)."""
        logits: Tensor = self.classifier(images * self.scale + self.shift)
        return logits


def check_distillation(objective: ObjectiveConfig) -> None:
    """Refuse settings of the teacher that cannot work, before any data are read.

    Raises:
        InputError: Numbers out of range, or numbers without a teacher.
    """
    default = ObjectiveConfig()
    if objective.teacher is None:
        for name in ("teacher_share", "teacher_temperature"):
            if getattr(objective, name) != getattr(default, name):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"--teacher RUN with {flag}", "no teacher", f"add --teacher, or leave out {flag}")
        return
    if not 0 < objective.teacher_share <= 1:
        raise InputError("--teacher-share in (0, 1]", f"{objective.teacher_share:g}", "1 is the teacher alone")
    if not objective.teacher_temperature > 0:
        raise InputError("--teacher-temperature > 0", f"{objective.teacher_temperature:g}", "3 is usual")


def taught(method: Method, description: ModelDescription, objective: ObjectiveConfig, opened: OpenData) -> Method:
    """`method` with the objective's teacher; itself where there is none.

    Raises:
        InputError: A method that takes no teacher; a teacher of other classes, another size or other data.
    """
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
    teacher = Teacher(trained, description)
    return DistilledMethod(method, teacher, share=objective.teacher_share, temperature=objective.teacher_temperature)


def _check_teacher(run: Path, trained: TrainedClassifier, opened: OpenData) -> None:
    expected = {"classes": opened.classes, "an image size": opened.size}
    found = {"classes": trained.classes, "an image size": trained.image_size}
    for name, value in expected.items():
        if found[name] != value:
            raise InputError(
                f"a teacher with {name} of {_short(value)}",
                f"{run} with {_short(found[name])}",
                "train the teacher on the same data",
            )
    file = run / "classes.json"
    if not (run / "model").is_dir() or not file.is_file():
        log.warning("nobody knows what %s was trained on; if test images are among it, the figures mean nothing", run)
    elif read_json(file).get("fingerprint") != opened.fingerprint:
        raise InputError(
            "a teacher that was trained on these data, cut and split like this",
            f"{run}, trained on others, which may hold images that this run is judged by",
            f"train the teacher with the same data flags; if it is meant, give {run / 'model'}",
        )


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
