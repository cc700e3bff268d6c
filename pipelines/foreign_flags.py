"""Flags of timm's and accelerate's scripts, and what stands for them here."""

from __future__ import annotations

from collections.abc import Sequence

from rebalance.errors import InputError

_RESUME = "leave it out: runs resume by themselves, the same command goes on"
FOREIGN = {
    "--lr-base": "use --base-lr",
    "--torchcompile": "use --compile",
    "--smoothing": "leave it out, or smooth by class: rebalance retrain RUN --method label_aware_smoothing",
    "--log-wandb": "use --report-to wandb",
    "--data-dir": "name DATA without a flag: rebalance train DATA",
    "--mixed-precision": "use --amp bf16, fp16 or no",
    "--resume-from-checkpoint": _RESUME,
}


def refuse_foreign(words: Sequence[str]) -> None:
    """Refuse flags that have another name here, by that name.

    Raises:
        InputError: Such a flag.
    """
    for word in words:
        flag = word.partition("=")[0]
        if hint := FOREIGN.get(flag.replace("_", "-")):
            raise InputError("an option of this command", flag, hint)


def refuse_resume_path(words: Sequence[str]) -> None:
    """Say of a command line that cannot be parsed where it gives `--resume` a value.

    Raises:
        InputError: It does.
    """
    for word, after in zip(words, [*words[1:], "-"], strict=True):
        if word.startswith("--resume=") or (word == "--resume" and not after.startswith("-")):
            raise InputError("--resume without a value", f"{word} {after}".removesuffix(" -"), _RESUME)
