"""`make test-lowest` tests what pyproject.toml promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_pinned_versions_are_the_lowest_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lowest = dict(found.groups() for text in promised if (found := re.match(r"([\w-]+)>=([\d.]+)$", text)))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests" / "lowest.txt").read_text(), flags=re.M))
    assert {"imbalanced-learn", "numpy", "scikit-learn", "scipy", "diffusers", "transformers", "peft"} <= set(pinned)
    assert set(pinned) - set(lowest) == {"tokenizers"}  # of transformers
    for name in set(pinned) & set(lowest):
        assert f"{pinned[name]}.".startswith(f"{lowest[name]}."), name
