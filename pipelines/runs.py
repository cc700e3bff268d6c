"""Run folders: where a run lives, who may write there, and whether it may be resumed.

config.yaml  environment.json  classes.json  history.csv  metrics.json  checkpoints/  tensorboard/  model/  report.html
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import torch
import yaml

from pipelines.config_files import differences, from_dict, to_dict, to_yaml
from rebalance import __version__
from rebalance.errors import InputError
from rebalance.files import read_json, remove_unfinished, write_json, write_text
from rebalance.ranks import gather, is_main, rank, world_size

_PACKAGES = (
    *("torch", "torchvision", "diffusers", "transformers", "accelerate", "timm"),
    *("scikit-learn", "imbalanced-learn", "numpy", "pillow", "safetensors"),
)
LOCK = ".lock"
FIRST_STAGE = "first_stage.yaml"
"""In a folder of `rebalance retrain`: the config.yaml of the run that it began with."""


@final
class RunFolder:
    """A folder that one run at a time may write, for as long as this object is open.

    Args:
        path: The folder; made if it is missing.
        command: The command that writes it, such as "train".
        config: Its config. A folder that holds another command or other settings is refused.
        resume: False empties the folder of an earlier run of the same command first.

    Raises:
        InputError: The folder holds something else, another configuration, or is in use by another process.
    """

    def __init__(self, path: Path, command: str, config: Any, *, resume: bool = True) -> None:
        self.path = path
        self.command = command
        problem: InputError | None = None
        self._lock: int | None = None
        try:
            self._check_place()
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            if is_main():
                self._claim(config, resume)
        except InputError as error:
            problem = error
        except OSError as error:
            problem = InputError("a folder that can be written", f"{path}: {error}", f"choose another {self._place}")
        problems = [error for error in gather(problem) if error is not None]
        if problems:
            self.close()
            raise problems[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def _place(self) -> str:
        """The option that names the folder."""
        return "--out" if self.command == "synthesize" else "--output or --experiment"

    def _check_place(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError("a folder for the run", f"a file: {self.path}", f"choose another {self._place}")
        if (self.path / "config.yaml").exists():
            read_run_config(self.path)
        elif self.path.is_dir():
            foreign = [name for name in os.listdir(self.path) if name not in (LOCK, "config.yaml")]
            foreign = [name for name in foreign if not name.endswith(".tmp")]
            if foreign and is_main():
                raise InputError(
                    "an empty folder or one of an earlier run",
                    f"{self.path} with {foreign[0]!r} and no config.yaml",
                    "choose another folder",
                )

    def _claim(self, config: Any, resume: bool) -> None:
        wanted = {"command": self.command, **to_dict(config)}
        file = self.path / "config.yaml"
        if file.exists():
            found = read_run_config(self.path)
            if found["command"] != self.command:
                raise InputError(
                    f"a folder of `rebalance {self.command}`",
                    f"{self.path} of `rebalance {found['command']}`",
                    f"choose another {self._place}",
                )
            if not resume:
                self._empty()
            elif changed := differences(with_defaults(found, type(config)), wanted):
                raise InputError(
                    f"the configuration that {self.path} was begun with",
                    "\n".join(["another one:", *(f"  {line}" for line in changed)]),
                    f"go on with the old one, start again with --no-resume, or choose another {self._place}",
                )
        remove_unfinished(self.path)
        write_text(file, f"command: {self.command}\n" + to_yaml(config))
        self._record_environment()

    def _record_environment(self) -> None:
        """What works on the run now, and under "earlier" other machines, versions or processes that did before it."""
        file = self.path / "environment.json"
        now = describe_environment()
        if file.exists():
            if (self.path / "metrics.json").exists():
                return  # finished: this start adds nothing
            before = read_json(file)
            earlier = before.pop("earlier", [])
            if any(before.get(name) != now[name] for name in now if name not in ("command_line", "directory")):
                earlier = [*earlier, before]
            now |= {"earlier": earlier} if earlier else {}
        write_json(file, now)

    def _empty(self) -> None:
        """Remove all but lock and config: at whatever item a kill comes, this is an unfinished run of the command."""
        for name in sorted(os.listdir(self.path), key=lambda name: name != "metrics.json"):
            if name in (LOCK, "config.yaml"):
                continue
            item = self.path / name
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()


def with_defaults(found: dict[str, Any], config: type) -> dict[str, Any]:
    """A saved config, with what it does not name, such as a setting of a later version, at its default."""
    settings = {name: value for name, value in found.items() if name != "command"}
    try:
        return {"command": found["command"], **to_dict(from_dict(config, settings))}
    except InputError:  # of a version that had other settings: shown as it is
        return found


def describe_environment() -> dict[str, Any]:
    """What a result depends on besides its config: versions, device, processes, threads, command."""
    versions: dict[str, str | None] = {"longtail-rebalance": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": device,
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "command_line": sys.argv,
        "directory": os.getcwd(),
    }


def slug(text: str) -> str:
    """`text` as one part of a path.

    Examples:
        >>> slug("photos/my birds.csv")
        'my-birds.csv'
    """
    name = re.sub(r"[^\w.+=-]+", "-", Path(text).name, flags=re.UNICODE).strip("-.")
    return name or "data"


def read_run_config(path: Path) -> dict[str, Any]:
    """The saved config of a run folder, its command included.

    Raises:
        InputError: `path` is no run folder.
    """
    file = path / "config.yaml"
    if not file.is_file():
        raise InputError("a run folder", f"{path}, which has no config.yaml", "give the folder that a run printed")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("a run folder", f"{file}: {error}", "restore the file, or choose another folder") from error
    if not isinstance(config, dict) or "command" not in config:
        raise InputError("a run folder", f"{file}, which no run wrote", "choose another folder")
    return config


def read_first_stage(path: Path) -> dict[str, Any]:
    """The saved config of the training that a run folder is of: its own, or for `rebalance retrain` the first stage's.

    Raises:
        InputError: `path` is no run folder.
    """
    config = read_run_config(path)
    if config["command"] != "retrain":
        return config
    first: dict[str, Any] = yaml.safe_load((path / FIRST_STAGE).read_text(encoding="utf-8"))
    return first


def _lock(folder: Path) -> int:
    """Lock this rank's byte of the lock file; rank 0 also those beyond the last rank.

    So a rank left over from a killed launch, of whatever size, keeps a new launch out until it has ended.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank())
        if is_main():
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, world_size())
    except OSError as error:
        os.close(handle)
        raise InputError(
            "a run folder that no process is writing",
            f"{folder}, in use by another process",
            "wait for it, end it, or choose another folder",
        ) from error
    return handle
