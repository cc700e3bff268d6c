"""What may import what, and what importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = ("rebalance", "generators", "pipelines", "cli")
"""From the bottom up: a layer imports those before it."""
FILES = [path for layer in LAYERS[:3] for path in sorted((ROOT / layer).rglob("*.py"))] + [ROOT / "cli.py"]
HEAVY = ("torchvision", "diffusers", "transformers", "imblearn", "sklearn", "accelerate", "matplotlib")


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the modules that a file imports, also inside functions and by `import_module("…")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (part.value for part in node.args if isinstance(part, ast.Constant))


def python(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_are_those_of_the_project() -> None:
    assert {layer_of(path) for path in FILES} == set(LAYERS)
    assert len(FILES) > 80


def test_imports_run_one_way() -> None:
    wrong = []
    for path in FILES:
        above = (*LAYERS[LAYERS.index(layer_of(path)) + 1 :], "tests", "benchmarks")
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.partition(".")[0] in above]
    assert wrong == []


def test_losses_import_nothing_else_of_the_project() -> None:
    for path in (ROOT / "rebalance" / "losses").glob("*.py"):
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        assert [name for name in names if name.startswith(LAYERS) and not name.startswith("rebalance.losses")] == []


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > 300} == {}


def test_importing_the_core_and_its_parts_loads_nothing_heavy() -> None:
    names = "rebalance.__all__ + ['rebalance.losses', 'rebalance.metrics', 'rebalance.checkpoints', 'rebalance.ranks']"
    code = f"""
import sys, importlib, rebalance
assert "torch" not in sys.modules, "torch"
for name in {names}:
    importlib.import_module(name) if "." in name else getattr(rebalance, name)
print(*sys.modules)
"""
    loaded = set(python(code).split())
    assert "torch" in loaded
    assert loaded & set(HEAVY) == set()
    assert not {name for name in loaded if name.partition(".")[0] in LAYERS[1:]}


def test_help_and_version_load_no_torch() -> None:
    code = """
import sys
from cli import main
assert main(["--help"]) == 0 and main(["--version"]) == 0
try:
    main(["train", "--help"])
except SystemExit as stop:
    assert not stop.code
print("modules", *sys.modules)
"""
    loaded = set(python(code).split("modules", 1)[1].split())
    assert "cli" in loaded
    assert loaded & {"torch", "numpy", *HEAVY} == set()


def test_the_public_names_are_there() -> None:
    code = """
import generators, pipelines, rebalance
for package in (generators, pipelines, rebalance):
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    try:
        package.no_such_name
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError
"""
    python(code)
