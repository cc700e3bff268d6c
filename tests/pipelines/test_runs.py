from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import runs
from pipelines.config import SynthesizeConfig, TrainConfig
from pipelines.config_files import from_dict
from pipelines.config_groups import DataConfig, OptimizationConfig, PlaceConfig
from pipelines.runs import RunFolder, describe_environment, read_run_config
from rebalance.errors import InputError

CONFIG = TrainConfig(data=DataConfig(data="my photos/Vögel"))
OTHER = replace(CONFIG, seed=3, optimization=OptimizationConfig(lr=0.3, epochs=7))


def open_run(path: Path, config: Any = CONFIG, command: str = "train", **options: bool) -> None:
    with RunFolder(path, command, config, **options):
        pass


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, as far as folders go."""
    folder = tmp_path / "runs" / "train" / "a b"
    open_run(folder)
    for name in ("metrics.json", "checkpoints/update_5/state.json", "model/weights.safetensors", ".hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def refused(path: Path, message: str, config: Any = CONFIG, command: str = "train", **options: bool) -> str:
    """The error, and that nothing in the folder was touched by it."""
    before = content(path)
    with pytest.raises(InputError, match=message) as caught:
        RunFolder(path, command, config, **options)
    assert content(path) == before
    return str(caught.value)


# A folder that explains itself


def test_a_new_folder_holds_config_and_environment(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "deep" / "run", "train", CONFIG) as run:
        assert run / "x" == tmp_path / "deep" / "run" / "x"
        saved = read_run_config(run.path)
        assert saved.pop("command") == "train"
        assert from_dict(TrainConfig, saved) == CONFIG
        environment = json.loads((run / "environment.json").read_text())
        assert environment["packages"]["torch"]
        assert environment["command_line"] == sys.argv


def test_who_worked_on_a_run_before_is_kept_and_a_finished_run_keeps_who_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(processes: int) -> list[int]:
        monkeypatch.setattr(runs, "describe_environment", lambda: {"processes": processes, "command_line": [next(n)]})
        open_run(tmp_path / "run")
        found = json.loads((tmp_path / "run" / "environment.json").read_text())
        return [one["processes"] for one in (*found.get("earlier", ()), found)]

    n = itertools.count()  # another command line alone is no news
    assert [start(processes) for processes in (2, 2, 1, 3)] == [[2], [2], [2, 1], [2, 1, 3]]
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert start(8) == [2, 1, 3]


def test_the_environment_says_what_a_result_depends_on() -> None:
    found = describe_environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["processes"], found["packages"]["pillow"] is not None) == (1, True)


# Going on


def test_the_same_configuration_goes_on(run: Path) -> None:
    before = content(run)
    open_run(run)
    assert content(run).keys() == before.keys()
    assert content(run)["metrics.json"] == b"{}"


def test_what_a_killed_process_was_writing_is_removed_by_the_next(run: Path) -> None:
    (run / "candidates" / "a.b").mkdir(parents=True)
    for name in (".000010.png.31168.tmp", ".config.yaml.7.tmp", "kept.tmp", ".kept"):
        (run / "candidates" / "a.b" / name).write_bytes(b"half")
    (run / ".images.tmp").mkdir()
    refused(run, "another one", replace(CONFIG, seed=9))
    assert len(os.listdir(run / "candidates" / "a.b")) == 4
    open_run(run)
    assert sorted(os.listdir(run / "candidates" / "a.b")) == [".kept", "kept.tmp"]
    assert (run / ".images.tmp").is_dir()


def test_a_changed_configuration_is_refused_with_the_differences(run: Path) -> None:
    error = refused(run, "the configuration that .* was begun with", OTHER)
    for line in ("seed: 0 → 3", "optimization.lr: None → 0.3", "optimization.epochs: 200 → 7", "--no-resume"):
        assert line in error
    assert "weight_decay" not in error


def test_a_run_of_a_version_without_some_setting_goes_on_with_its_default(run: Path) -> None:
    file = run / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    del saved["objective"]["teacher_temperature"], saved["optimization"]["sam"]  # defaults 2.0 and None
    file.write_text(yaml.safe_dump(saved))
    refused(run, r"optimization\.sam: None → 0\.1", replace(CONFIG, optimization=OptimizationConfig(sam=0.1)))
    open_run(run)


def test_a_run_of_a_version_with_other_settings_is_refused(run: Path) -> None:
    file = run / "config.yaml"
    file.write_text(file.read_text() + "gone: 3\n")
    refused(run, "gone: 3 → None")


def test_settings_without_effect_on_results_may_change(run: Path) -> None:
    data = replace(CONFIG.data, workers=7, cache_gb=0.1)
    place = PlaceConfig(output=Path("elsewhere"), experiment="x", device="cpu", checkpoint_updates=3)
    open_run(run, replace(CONFIG, data=data, place=place))
    assert (run / "metrics.json").exists()
    assert read_run_config(run)["data"]["workers"] == 7  # of the last start


def test_a_start_from_nothing_empties_the_folder(run: Path) -> None:
    open_run(run, OTHER, resume=False)
    assert set(content(run)) == {".lock", "config.yaml", "environment.json"}
    assert read_run_config(run)["seed"] == 3


def test_a_link_in_the_folder_is_removed_and_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (run / "data").symlink_to(tmp_path / "photos", target_is_directory=True)
    open_run(run, resume=False)
    assert not (run / "data").exists()
    assert (tmp_path / "photos" / "a.jpg").exists()


@pytest.mark.parametrize("step", range(1, 6))
def test_emptying_may_be_killed_at_any_step(run: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [step]

    def counted(remove: Any) -> Any:
        def call(*args: Any, **options: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            remove(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", counted(__import__("shutil").rmtree))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            RunFolder(run, "train", OTHER, resume=False)
    if left[0] < 0 or step > 1:
        assert not (run / "metrics.json").exists()  # so that half a run is not taken for a finished one
    open_run(run, OTHER, resume=False)
    assert set(content(run)) == {".lock", "config.yaml", "environment.json"}


def test_a_folder_that_was_only_begun_may_be_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".config.yaml.123.tmp").touch()
    open_run(tmp_path / "run")
    assert read_run_config(tmp_path / "run")["command"] == "train"


# Folders of others


@pytest.mark.parametrize("resume", [True, False])
def test_the_folder_of_another_command_is_refused(run: Path, resume: bool) -> None:
    config = SynthesizeConfig(data=CONFIG.data)
    refused(run, "a folder of `rebalance synthesize`; got .* of `rebalance train`", config, "synthesize", resume=resume)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_with_other_things_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").touch()
    refused(tmp_path, "an empty folder or one of an earlier run; got .*'thesis.tex' and no config", resume=resume)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("text", ["lr: 3\n", "- a\n- b\n", "", "a: [", "\udcff"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_config_file_of_something_else_is_refused(tmp_path: Path, text: str, resume: bool) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "thesis.tex").touch()
    refused(tmp_path, "a run folder; got .*config.yaml", resume=resume)


def test_a_file_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "a folder for the run; got a file")
    refused(tmp_path / "file" / "deeper", "a folder that can be written")


def test_only_run_folders_have_a_saved_config(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a run folder; got .*, which has no config.yaml"):
        read_run_config(tmp_path)
    assert read_run_config(run)["data"]["data"] == "my photos/Vögel"


# One at a time


HOLDER = """
import os, sys
from pathlib import Path
from pipelines.config import TrainConfig
from pipelines.config_groups import DataConfig
from pipelines.runs import RunFolder
config = TrainConfig(data=DataConfig(data="my photos/Vögel"))
whole = RunFolder(Path(sys.argv[1]) / "whole", "train", config)
os.environ["RANK"] = "1"  # as a rank that its killed launcher left behind
stale = RunFolder(Path(sys.argv[1]) / "stale", "train", config)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Folders that another process holds: one as its only rank, one as rank 1 of several."""
    root = tmp_path_factory.mktemp("held")
    open_run(root / "stale")
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield root, process
        process.kill()


@pytest.mark.parametrize("name", ["whole", "stale"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_use_is_refused(held: tuple[Path, subprocess.Popen[str]], name: str, resume: bool) -> None:
    refused(held[0] / name, "a run folder that no process is writing; got .*in use by another process", resume=resume)


def test_a_folder_is_free_once_its_process_is_killed(held: tuple[Path, subprocess.Popen[str]]) -> None:
    root, process = held
    process.kill()
    process.wait()
    for name in ("whole", "stale"):
        open_run(root / name)


def test_a_refused_start_frees_the_folder(run: Path) -> None:
    refused(run, "the configuration", OTHER)
    probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", probe, str(run / ".lock")], check=True)
    with RunFolder(run, "train", CONFIG):
        held = subprocess.run([sys.executable, "-c", probe, str(run / ".lock")], check=False, capture_output=True)
        assert held.returncode == 1


def test_the_saved_config_is_plain_yaml(run: Path) -> None:
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert text.startswith("command: train\ndata:\n  data: my photos/Vögel\n")
    assert yaml.safe_load(text)["optimization"]["epochs"] == 200
