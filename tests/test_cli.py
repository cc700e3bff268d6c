"""The command line: help, exit codes, and one clear error for bad input that leaves nothing behind."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import cli
from pipelines.config import COMMANDS

TRAIN = "--updates 6 --batch-size 16 --model small_cnn --report-to none --device cpu".split()
SYNTHESIZE = (
    "--generator-updates 4 --generator-batch-size 8 --generator-channels 8 16 --steps 2 --sampling-batch 8 "
    "--skip-gate distance"
).split()


def test_help_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert command in overview
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
        assert f"rebalance {command}" in capsys.readouterr().out


def test_help_answers_within_a_second_and_without_torch() -> None:
    code = "import sys, cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2  # half a second where little else runs


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("longtail-rebalance 0.")


def test_every_stage_one_after_another(photos: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(photos)
    assert cli.main(["inspect", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [7, 3, 16, 40]
    assert (
        cli.main(["synthesize", data, "--out", "made", "--feature-updates", "6", *SYNTHESIZE, "--device", "cpu"]) == 0
    )
    assert cli.main(["train", data, "--synthetic", "made", "--method", "ldam_drw", "-o", "scale=20", *TRAIN]) == 0
    out = capsys.readouterr().out
    assert "balanced accuracy" in out
    run = "runs/train/my-photos-ldam_drw"
    assert cli.main(["evaluate", run, "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["n_images"] == 40
    assert cli.main(["report", run]) == 0
    assert Path(run, "report.html").exists()


def test_whole_pipeline(photos: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(photos), "--seeds", "1", "--max-images", "8", *SYNTHESIZE, *TRAIN]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "re-balanced + synthetic, filtered" in out
    assert Path("runs/run/my-photos-balanced_mixup/report.html").exists()


def test_quiet_says_nothing(photos: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(photos), *TRAIN, "-q"]) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


Prepare = Callable[[Path, Path], Sequence[str]]


def _copy(photos: Path, here: Path) -> Path:
    copy = here / "copy"
    shutil.copytree(photos, copy)
    return copy


def _one_class(photos: Path, here: Path) -> Sequence[str]:
    copy = _copy(photos, here)
    for split in ("train", "test"):
        for folder in (copy / split).iterdir():
            if folder.name != "tail":
                shutil.rmtree(folder)
    return ["train", "copy"]


def _no_images(photos: Path, here: Path) -> Sequence[str]:
    (here / "none" / "a").mkdir(parents=True)
    (here / "none" / "b").mkdir()
    return ["train", "none"]


def _unknown_test_class(photos: Path, here: Path) -> Sequence[str]:
    copy = _copy(photos, here)
    (copy / "test" / "tail").rename(copy / "test" / "tial")
    return ["train", "copy"]


def _corrupt(photos: Path, here: Path) -> Sequence[str]:
    copy = _copy(photos, here)
    for file in (copy / "train" / "круг").iterdir():
        file.write_bytes(b"broken")
    return ["train", "copy"]


def _empty_class(photos: Path, here: Path) -> Sequence[str]:
    train = _copy(photos, here) / "train"
    for name in ("nothing", "@eaDir", "a"):
        (train / name).mkdir()
    return ["train", "copy"]


def _outside(photos: Path, here: Path) -> Sequence[str]:
    Path("list.txt").write_text(f"../{photos.name}/train/tail/0.jpg tail\n")
    return ["train", "list.txt"]


def _other_command(photos: Path, here: Path) -> Sequence[str]:
    assert cli.main(["train", str(photos), *TRAIN, "-q"]) == 0
    return ["synthesize", str(photos), "--out", "runs/train/my-photos-balanced_mixup", *SYNTHESIZE]


def _foreign_folder(photos: Path, here: Path) -> Sequence[str]:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    return ["synthesize", str(photos), "--out", "mine", *SYNTHESIZE]


BAD_INPUT: dict[str, tuple[Prepare | Sequence[str], str]] = {
    "no command": (["tarin", "digits"], "did you mean 'train'"),
    "no such path": (["train", "nowhere"], "no such path: nowhere"),
    "no image folder": (lambda photos, here: ["train", str(photos / "train" / "tail")], "one sub-folder per class"),
    "no images": (_no_images, "images in the class folders"),
    "one class": (_one_class, "at least two classes"),
    "corrupt images": (_corrupt, "40 of 66 that cannot be read"),
    "class missing in train": (_unknown_test_class, "did you mean 'tail'"),
    "empty class": (_empty_class, "0 images of 'a', 'nothing'\n"),
    "list outside root": (_outside, "paths inside"),
    "unknown method": (["train", "digits", "--method", "ldamm"], "did you mean 'ldam'"),
    "unknown option": (["train", "digits", "--method", "ldam", "-o", "max_margins=1"], "did you mean 'max_margin'"),
    "option of another type": (["train", "digits", "--method", "ldam", "-o", "scale=big"], "scale=float"),
    "unknown model": (["train", "digits", "--model", "resnet33"], "did you mean"),
    "unknown augmentation": (["train", "digits", "--augment", "corp"], "did you mean 'crop'"),
    "unknown schedule": (["train", "digits", "--sampler-rule", "inverse", "--sampler-schedule", "later"], "a schedule"),
    "too few to hold out": (["train", "digits", "--val-fraction", "0.1"], "at least 5 validation images"),
    "fp16 on a CPU": (["train", "digits", "--amp", "fp16", "--device", "cpu"], "a GPU for fp16"),
    "no such device": (["train", "digits", "--device", "tpu"], "a device"),
    "no such tracker": (["train", "digits", "--report-to", "notebook"], "a tracker"),
    "batch of nothing": (["train", "digits", "--batch-size", "0"], "--batch-size > 0"),
    "no checkpoints": (["train", "digits", "--checkpoint-updates", "0"], "--checkpoint-updates of at least 1"),
    "no checkpoints of a second stage": (
        ["retrain", "runs/a", "--checkpoint-updates", "-5"],
        "--checkpoint-updates of at least 1",
    ),
    "no checkpoints of a pipeline": (["run", "digits", "--checkpoint-updates", "0"], "--checkpoint-updates of at"),
    "negative subset": (["train", "digits", "--subset-seed", "-1"], "--subset-seed of at least 0"),
    "negative workers": (["inspect", "digits", "-j", "-3"], "--workers of at least 0"),
    "negative workers of a synthesis": (["synthesize", "digits", "--workers", "-3", "--cache-gb", "0"], "--workers of"),
    "negative memory": (["train", "digits", "--cache-gb", "-1"], "--cache-gb of at least 0"),
    "no number": (["train", "digits", "--cache-gb", "nan"], "--cache-gb of at least 0"),
    "negative time": (["synthesize", "digits", "--max-minutes", "-1"], "--max-minutes of at least 0"),
    "negative time of a pipeline": (["run", "digits", "--max-minutes", "-1"], "--max-minutes of at least 0"),
    "negative scale": (["train", "digits", "--head", "cosine", "--head-scale", "-1"], "--head-scale > 0"),
    "list beside digits": (["train", "digits", "--val-list", "val.txt"], "a list file as DATA with --val-list"),
    "list beside a folder": (lambda photos, here: ["inspect", str(photos), "--test-list", "a.txt"], "the folder"),
    "sharpness from when": (["train", "digits", "--sam-from", "0.5"], "--sam RHO with --sam-from"),
    "sharpness of a negative distance": (["retrain", "runs/a", "--sam", "-1"], "--sam > 0"),
    "missing config file": (["train", "--config", "none.yaml"], "no such file: none.yaml"),
    "no data": (["train", "--config", "empty.yaml"], "DATA"),
    "another command's folder": (_other_command, "of `rebalance train`"),
    "somebody's folder": (_foreign_folder, "thesis.tex"),
    "no run": (["evaluate", "nowhere"], "a finished run with a model"),
    "predictions of another kind": (["evaluate", "nowhere", "--predictions", "a.txt"], "--predictions FILE.csv"),
    "predictions where nothing can be": (
        lambda photos, here: ["evaluate", "nowhere", "--predictions", str(next(photos.rglob("*.jpg")) / "a.csv")],
        "a folder to write a.csv into",
    ),
    "prediction of no run": (lambda photos, here: ["predict", "nowhere", str(photos)], "a finished run with a model"),
    "prediction of nothing": (["predict", "nowhere"], "image files, or folders of them"),
    "prediction of no image": (["predict", "nowhere", "none.jpg"], "no such path: none.jpg"),
    "prediction of a list": (["predict", "nowhere", "list.txt"], "a text file: list.txt"),
    "prediction of a folder without images": (["predict", "nowhere", "."], "images in every folder"),
    "prediction of no class": (["predict", "nowhere", ".", "--top", "0"], "--top of at least 1"),
    "prediction into another kind": (
        lambda photos, here: ["predict", "nowhere", str(photos), "--out", "a.json"],
        "--out FILE.csv",
    ),
    "export of no run": (["export", "nowhere"], "a finished run with a model"),
    "export of another kind": (["export", "nowhere", "--out", "a.pth"], "--out FILE.pt2 or FILE.onnx"),
    "no report": (["report", "nowhere"], "a run folder"),
    "report of a folder without a run": (lambda photos, here: ["report", str(photos)], "which has no config.yaml"),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_gets_one_clear_error_and_leaves_nothing(
    case: str, photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.yaml").write_text("epochs: 3\n")
    Path("list.txt").write_text("a.jpg tail\n")
    prepare, words = BAD_INPUT[case]
    arguments = list(prepare(photos, here) if callable(prepare) else prepare)
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert cli.main(arguments) == 2
    error = "error: " + capsys.readouterr().err.rpartition("error: ")[2]
    assert error.startswith("error: expected ")
    assert "\n  got " in error
    assert words in error
    assert "Traceback" not in error
    assert sorted(here.rglob("*")) == before


def test_unknown_flag_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "digits", "--batchsize", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: expected an option of this command\n  got --batchsize\n  did you mean --batch-size?"
    )


def test_failed_training_ends_with_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "digits", *TRAIN, "--lr", "1e18", "--warmup-epochs", "0"]
    assert cli.main(arguments) == 1
    assert "lower --lr" in capsys.readouterr().err


def test_interrupt_ends_with_130_and_the_same_command_goes_on(
    start: Callable[[Sequence[str], Path], subprocess.Popen[str]], here: Path
) -> None:
    arguments = [
        "train",
        "digits",
        "--method",
        "ce",
        "--updates",
        "4000",
        "--checkpoint-updates",
        "5",
        "--report-to",
        "none",
    ]
    process = start([*arguments, "--device", "cpu", "--model", "small_cnn"], here)
    checkpoint = here / "runs/train/digits-ce/checkpoints/last.json"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on from what has been saved" in error


def test_run_folder_in_use_is_refused(
    start: Callable[[Sequence[str], Path], subprocess.Popen[str]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "digits", "--method", "ce", "--updates", "4000", "--report-to", "none", "--device", "cpu"]
    process = start(arguments, here)
    try:
        while not (here / "runs/train/digits-ce/classes.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert cli.main(arguments) == 2
        assert "in use by another process" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()
