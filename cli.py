"""`rebalance`: one sub-command per config; nothing but parsing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes

from pipelines.config import COMMANDS
from pipelines.config_files import (
    from_dict,
    leaves,
    missing_arguments,
    read_config_file,
    to_yaml,
    without_added_defaults,
)
from pipelines.flag_kinds import refuse_misread
from pipelines.foreign_flags import refuse_foreign, refuse_resume_path
from pipelines.help_texts import join_help_lines
from rebalance.errors import InputError, RunError, nearest

_FUNCTIONS = {
    "inspect": ("pipelines.inspection", "inspect_command"),
    "resample": ("pipelines.resampling", "resample_command"),
    "synthesize": ("pipelines.synthesis", "synthesize_command"),
    "train": ("pipelines.training", "train_command"),
    "retrain": ("pipelines.retraining", "retrain_command"),
    "evaluate": ("pipelines.evaluation", "evaluate_command"),
    "predict": ("pipelines.prediction", "predict_command"),
    "run": ("pipelines.rebalancing", "run_command"),
    "report": ("pipelines.reporting", "report_command"),
    "export": ("pipelines.exporting", "export_command"),
    "methods": ("pipelines.method_list", "methods_command"),
}
_OVERVIEW = """usage: rebalance COMMAND [OPTIONS]

Data-centric rebalancing for long-tailed images.

commands:
{commands}

options of every command:
  --config FILE.yaml   settings from a file; flags win
  --print-config       print the settings as YAML, and stop
  -q, -v               say less, say more
  --help               all options of the command
  --version            print the version
"""
_ALLOCATION = re.compile(r"((you )?tried|unable) to allocate [\d.]+ \w+", re.IGNORECASE)  # torch's, NumPy's
_LESS_MEMORY = """take less at a time, in another folder where settings change:
  a training with --grad-accum-steps 2, or a smaller --batch-size or --image-size;
  a synthesis with a smaller --sampling-batch, --generator-batch-size or --generator-size;
  an evaluation with a smaller --batch-size"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except InputError as error:
        _complain(f"expected {error.expected}\n  got {error.got}\n  {error.fix}")
        return 2
    except RunError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from what has been saved" if _saves(words) else ""
        _say(f"interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(f"expected files that can be read and written\n  got {error}\n  check the path and its permissions")
        return 1
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        found = _ALLOCATION.search(str(error))
        rank = f" of rank {os.environ['RANK']}" if "RANK" in os.environ else ""
        what = f": {found[0]}" if found else ""
        print(f"error: out of memory{rank}{what}\n  {_LESS_MEMORY}", file=sys.stderr)  # whichever rank it is
        return 1


def _run(words: list[str]) -> int:
    words, verbosity, file, print_config = _common_options(words)
    if not words or words[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:<20} {_summary(config)}" for name, config in COMMANDS.items())
        _say(_OVERVIEW.format(commands=commands), end="")
        return 0 if words else 2
    if words[0] == "--version":
        from rebalance import __version__

        _say(f"longtail-rebalance {__version__}")
        return 0
    command, *rest = words
    if command.startswith("-"):
        raise InputError("a command", command, "options follow the command: rebalance COMMAND [OPTIONS]")
    if command not in COMMANDS:
        raise InputError("a command", repr(command), nearest(command, COMMANDS))
    config = _parse(command, rest, file)
    if print_config:
        _say(to_yaml(config), end="")
        return 0
    from pipelines.console import configure

    configure(verbosity)
    module, function = _FUNCTIONS[command]
    getattr(import_module(module), function)(config)
    from pipelines.session import end_session

    end_session()
    return 0


def _parse(command: str, words: list[str], file: Path | None) -> Any:
    cls = COMMANDS[command]
    refuse_foreign(words, leaves(cls))
    join_help_lines(cls)
    default = from_dict(cls, read_config_file(file, command)) if file is not None else None
    options: dict[str, Any] = {} if default is None else {"default": default}
    read = partial(tyro.cli, cls, args=words, prog=f"rebalance {command}", config=(OmitArgPrefixes,), **options)
    try:
        config: Any = _quietly(read)
    except SystemExit as stop:
        if stop.code:
            refuse_resume_path(words, leaves(cls))
            refuse_misread(cls, words)
            with suppress(SystemExit):
                _refuse_missing(_quietly(partial(read, default=from_dict(cls, {}))), "none")
        config = read()  # prints the help, or what is wrong, and stops
    _refuse_missing(config, "none, neither in the file nor on the command line")
    return without_added_defaults(config, default)


def _quietly(read: Callable[[], Any]) -> Any:
    """What `read` gives, without what it prints."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return read()


def _refuse_missing(config: Any, got: str) -> None:
    missing, known = missing_arguments(config)
    if missing:
        after = "it" if missing == known[:1] else f"{' and '.join(known)}, in this order,"
        raise InputError(" and ".join(missing), got, f"name {after} after the command")


def _common_options(words: list[str]) -> tuple[list[str], int, Path | None, bool]:
    """Take the options that every command has out of `words`."""
    rest: list[str] = []
    verbosity, file, print_config = 0, None, False
    remaining = iter(words)
    for word in remaining:
        name, _, value = word.partition("=")
        if word in ("-q", "--quiet"):
            verbosity -= 1
        elif word in ("-v", "--verbose"):
            verbosity += 1
        elif word in ("--print-config", "--print_config"):
            print_config = True
        elif name in ("--config", "-c"):
            path = value or next(remaining, "")
            if not path:
                raise InputError("--config FILE.yaml", "no file", "name the file after --config")
            file = Path(path)
        else:
            rest.append(word)
    return rest, verbosity, file, print_config


def _saves(words: Sequence[str]) -> bool:
    """Whether the command of a command line can be gone on with."""
    command = next((word for word in words if word in COMMANDS), None)
    return command is not None and "resume" in leaves(COMMANDS[command])


def _is_out_of_memory(error: Exception) -> bool:
    """Python's, torch's on a GPU, and torch's on a CPU, which has no type of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _summary(config: type) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _say(text: str, **where: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, **where)


def _complain(text: str) -> None:
    _say(f"error: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
