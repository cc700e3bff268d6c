from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generators.source_images import hashed_images, read_source, steps_of
from rebalance.data.table import ImageTable, content_hash
from rebalance.errors import InputError, RunError


@pytest.mark.parametrize(("strength", "steps"), [(0.05, 1), (0.5, 10), (0.79, 15), (1.0, 20)])
def test_strength_is_a_share_of_the_steps(strength: float, steps: int) -> None:
    assert steps_of(20, strength) == steps


def files(folder: Path) -> list[str]:
    for i in range(3):
        Image.new("RGB", (12, 8), (80 * i, 0, 0)).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(3)]


def test_images_are_named_by_their_content(tmp_path: Path) -> None:
    table = ImageTable(files(tmp_path), np.array([0, 0, 1]), ("a", "b"))
    named = hashed_images(table, np.array([2, 0]))
    assert named == {content_hash(table.images[row]).hex(): table.images[row] for row in (2, 0)}
    Path(str(table.images[2])).unlink()
    with pytest.raises(InputError, match=r"source images that can be read; got .*2\.png"):
        hashed_images(table, np.array([2]))


def test_a_source_is_read_at_the_size_asked_for(tmp_path: Path) -> None:
    table = ImageTable(files(tmp_path), np.array([0, 0, 1]), ("a", "b"))
    named = hashed_images(table, np.array([1]))
    (name,) = named
    pixels = read_source(named, name, 4)
    assert pixels.shape == (4, 4, 3)
    assert (pixels == (80, 0, 0)).all()
    assert read_source(named, name, None).shape == (8, 12, 3)


def test_a_source_that_is_missing_changed_or_gone_is_refused(tmp_path: Path) -> None:
    (file, *_) = files(tmp_path)
    name = content_hash(file).hex()
    with pytest.raises(InputError, match="the source image of every job; got none for abc"):
        read_source({name: file}, "abc", 4)
    Image.new("RGB", (12, 8), "blue").save(file)
    with pytest.raises(InputError, match=r"as they were planned; got .*0\.png was changed"):
        read_source({name: file}, name, 4)
    Path(file).unlink()
    with pytest.raises(RunError, match="cannot read the source image"):
        read_source({name: file}, name, 4)
