from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.estimator_inputs import FeatureFormat, path_column, read_format, read_range, to_images
from rebalance.data.pixels import StackFormat
from rebalance.errors import InputError


def test_features_become_squares_of_grey() -> None:
    rows = np.array([[0.0, -1.0, 7.0], [2.0, 1.0, 7.0], [1.0, 0.0, 7.0]])
    pixels = FeatureFormat.of(rows).to_rgb(rows)
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8, 3), np.uint8)
    assert (pixels == pixels[..., :1]).all()
    corners = pixels[:, ::4, ::4, 0]
    np.testing.assert_array_equal(pixels[..., 0], corners.repeat(4, axis=1).repeat(4, axis=2))
    assert corners.tolist() == [[[0, 0], [0, 0]], [[255, 255], [0, 0]], [[128, 128], [0, 0]]]


@pytest.mark.parametrize(("n_features", "size"), [(1, 8), (4, 8), (5, 9), (64, 8), (65, 9), (1000, 32)])
def test_every_feature_has_its_place(n_features: int, size: int) -> None:
    rows = np.vstack([np.zeros(n_features), np.eye(n_features)])
    pixels = FeatureFormat.of(rows).to_rgb(rows)
    assert pixels.shape[1:] == (size, size, 3)
    assert len({image.tobytes() for image in pixels}) == n_features + 1


def test_formats() -> None:
    assert isinstance(read_format(np.zeros((2, 4)), None), FeatureFormat)
    assert isinstance(read_format(np.zeros((2, 4)), (2, 2)), StackFormat)
    assert isinstance(read_format(np.zeros((2, 4, 4)), None), StackFormat)
    assert read_format(["a.png"], None) is None
    assert to_images(["a.png"], None) == ["a.png"]


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"file": ["a.png", "b.png"]}),
        pd.DataFrame({"file": [Path("a.png"), Path("b.png")]}),
        np.array([["a.png"], ["b.png"]]),
        np.array([["a.png"], ["b.png"]], dtype=object),
        [["a.png"], ["b.png"]],
        ["a.png", "b.png"],
        (Path("a.png"), Path("b.png")),
        pd.Series(["a.png", "b.png"]),
        np.array(["a.png", "b.png"]),
    ],
)
def test_paths_are_found(X: Any) -> None:
    assert path_column(X) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "X", [np.zeros((2, 1)), np.zeros((0, 1)), [[1, 2]], [], pd.DataFrame({"a": [1]}), np.array([[1.0]], dtype=object)]
)
def test_numbers_are_no_paths(X: Any) -> None:
    assert path_column(X) is None


@pytest.mark.parametrize(
    "X", [[["a.png", "b.png"]], np.array([[["a.png"]]]), pd.DataFrame({"path": ["a.png"], "width": [3]})]
)
def test_paths_that_are_not_one_column_are_refused(X: Any) -> None:
    with pytest.raises(InputError, match="expected paths as a list, or as one column"):
        path_column(X)


def test_a_row_without_a_path_is_refused() -> None:
    with pytest.raises(InputError, match="a path in every row"):
        path_column(pd.DataFrame({"path": ["a.png", None]}))


def test_tables_have_no_range_of_pixels() -> None:
    rows = np.array([[0.0, 0.5], [1.0, 0.25]])
    assert read_range(rows, read_format(rows, None)) is None
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    assert read_range(images, read_format(images, None)) is not None
