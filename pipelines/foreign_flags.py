"""Flags of other training tools, and what stands for them here."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from rebalance.errors import InputError

_RESUME = "leave it out: runs resume by themselves, the same command goes on"
_NAMES = {
    "--learning-rate --lr0 --lr-init": "use --lr",
    "--lr-base": "use --base-lr",
    "--epoch --max-epochs --num-epochs --n-epochs --num-train-epochs": "use --epochs",
    "--max-steps --max-train-steps --num-steps": "use --updates",
    "--batch --bs --per-device-train-batch-size --train-batch-size": "use --batch-size, over all processes together",
    "--accumulate-grad-batches --gradient-accumulation-steps": "use --grad-accum-steps",
    "--optimizer --optim": "use --opt sgd or adamw",
    "--wd": "use --weight-decay",
    "--lr-scheduler --lr-scheduler-type": "use --sched cosine, step or constant",
    "--gradient-clip-val --max-grad-norm --clipnorm": "use --clip-grad",
    "--ema --ema-decay": "use --model-ema DECAY",
    "--mixed-precision --precision": "use --amp bf16, fp16 or no",
    "--fp16": "use --amp fp16",
    "--bf16": "use --amp bf16",
    "--torchcompile": "use --compile",
    "--smoothing --label-smoothing": "leave it out, or smooth by class: rebalance retrain RUN "
    "--method label_aware_smoothing",
    "--img --imgsz --img-size --input-size --resolution": "use --image-size",
    "--num-workers --workers-count --dataloader-num-workers": "use --workers",
    "--gpu --gpus --accelerator": "use --device cpu or cuda",
    "--arch --backbone": "use --model",
    "--pretrained": "use --weights FILE, of a network that --model names",
    "--num-classes --n-classes": "leave it out: the classes are those of DATA",
    "--mixup --mixup-alpha": "use --mix mixup:ALPHA",
    "--cutmix --cutmix-alpha": "use --mix cutmix:ALPHA",
    "--aa --auto-augment": "use --augment crop+flip+randaugment",
    "--validation-split --val-split": "use --val-fraction",
    "--imb-factor": "use --imbalance-factor n_max / n_min, 100 for 0.01",
    "--random-seed --random-state": "use --seed",
    "--log-wandb": "use --report-to wandb",
    "--data --data-dir --data-path --train-data-dir": "name DATA without a flag: rebalance COMMAND DATA",
    "--output-dir --default-root-dir": "use --output",
    "--resume-from-checkpoint --ckpt-path": _RESUME,
}
_LAST = ("last", "latest", "auto")
FOREIGN = {name: hint for names, hint in _NAMES.items() for name in names.split()}


def refuse_foreign(words: Sequence[str], settings: Collection[str]) -> None:
    """Refuse flags that have another name here, by that name.

    Args:
        words: A command line.
        settings: Names of the command's settings; of other commands' ones nothing is said.

    Raises:
        InputError: Such a flag.
    """
    for word in words:
        flag = word.partition("=")[0]
        hint = FOREIGN.get(flag.replace("_", "-"))
        if hint and _needed(hint) <= {*settings}:
            raise InputError("an option of this command", flag, hint)


def _needed(hint: str) -> set[str]:
    """The settings without which a hint does not fit a command."""
    if hint == _RESUME:
        return {"resume"}
    flags = {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", hint)}
    return flags | ({"data"} if "DATA" in hint else set())


def refuse_resume_path(words: Sequence[str], settings: Collection[str]) -> None:
    """Say of a command line that cannot be parsed where it gives `--resume` a path.

    Args:
        words: The command line.
        settings: Names of the command's settings.

    Raises:
        InputError: It does.
    """
    if "resume" not in settings:
        return
    for word, after in pairwise([*words, "-"]):
        if word.startswith("--resume=") or (word == "--resume" and ("/" in after or after in _LAST)):
            raise InputError("--resume without a value", f"{word} {after}".removesuffix(" -"), _RESUME)
