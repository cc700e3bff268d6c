"""Every command and every snippet of the README runs, in its order; files and pictures that it names are there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
COMMANDS = [line for block in BASH for line in block.splitlines() if line.startswith("rebalance ")]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.S)

TRAINING = "--updates 4 --batch-size 16 --model resnet20 --image-size 16 --report-to none --device cpu"
GENERATION = (
    "--max-images 12 --generator-updates 4 --generator-batch-size 8 --generator-channels 8 16 --steps 2 "
    "--sampling-batch 8 --feature-updates 4"
)
QUICK = {
    "inspect": "",
    "resample": "",
    "synthesize": f"{GENERATION} --image-size 16 --model small_cnn --device cpu",
    "train": TRAINING,
    "retrain": "--updates 4 --batch-size 16 --report-to none --device cpu",
    "evaluate": "--device cpu",
    "predict": "--device cpu",
    "report": "",
    "export": "",
    "methods": "",
    "run": f"{GENERATION} {TRAINING}",
}
"""What makes a command quick, without changing what it does."""


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the reader's files; commands leave theirs for the ones that follow."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(photos, folder / "photos")
    shutil.copyfile(next((photos / "test").rglob("*.jpg")), folder / "photo.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def test_readme_has_commands_of_every_kind() -> None:
    assert {line.split()[1] for line in COMMANDS} == set(QUICK) == set(cli.COMMANDS)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(line: str, folder: Path) -> None:
    words = shlex.split(line)[1:]
    assert cli.main([*words, *shlex.split(QUICK[words[0]])]) == 0


def test_snippets_run_one_after_the_other(folder: Path) -> None:
    names: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)


def test_make_targets_and_other_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make ([\w-]+)", "\n".join(BASH), flags=re.M)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
