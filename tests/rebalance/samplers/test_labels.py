from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, WeightedRandomSampler

from rebalance.errors import InputError
from rebalance.samplers import EpochSampler, find_labels
from rebalance.samplers.labels import encode


class Closed(Dataset[Any]):
    """A data set whose images must not be opened."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError(f"image {index} was opened")

    def __len__(self) -> int:
        return next((len(value) for value in self.__dict__.values() if value is not None), 0)


PAIRS = [("a.png", 1), ("b.png", 0), ("c.png", 1), ("d.png", 2)]


@pytest.mark.parametrize(
    "source",
    [
        [1, 0, 1, 2],
        (1, 0, 1, 2),
        np.array([1, 0, 1, 2], dtype=np.uint8),
        np.array([[1], [0], [1], [2]]),
        np.array([1.0, 0.0, 1.0, 2.0]),
        torch.tensor([1, 0, 1, 2], dtype=torch.int32),
        pd.Series([1, 0, 1, 2], index=[9, 8, 7, 6]),
        pd.Series([1, 0, 1, 2], dtype="category"),
        range(3),
        lambda: [1, 0, 1, 2],
        lambda: Closed(targets=[1, 0, 1, 2]),
        Closed(targets=[1, 0, 1, 2]),
        Closed(targets=torch.tensor([1, 0, 1, 2])),
        Closed(targets=None, labels=np.array([1, 0, 1, 2])),
        Closed(samples=PAIRS),
        Closed(imgs=PAIRS),
        Closed(_labels=[1, 0, 1, 2]),
        Subset(Closed(targets=[2, 1, 0, 1, 2]), [1, 2, 3, 4]),
        Subset(Subset(Closed(samples=[("x", 9), *PAIRS]), torch.tensor([4, 3, 2, 1])), range(3, -1, -1)),
        ConcatDataset([Closed(targets=[1, 0]), Subset(Closed(samples=PAIRS), [2, 3])]),
        TensorDataset(torch.zeros(4, 3), torch.tensor([1, 0, 1, 2])),
    ],
    ids=lambda source: type(source).__name__,
)
def test_labels_are_found_without_opening_an_image(source: Any) -> None:
    expected = [0, 1, 2] if isinstance(source, range) else [1, 0, 1, 2]
    assert find_labels(source).tolist() == expected


@pytest.mark.parametrize(
    "source",
    [
        ["owl", "ñandú"],
        np.array(["owl", "ñandú"]),
        np.array(["owl", "ñandú"], dtype=object),
        pd.Series(["owl", "ñandú"]),
        pd.Series(["owl", "ñandú"], dtype="category"),
        Closed(targets=["owl", "ñandú"]),
    ],
)
def test_string_labels_are_found(source: Any) -> None:
    assert find_labels(source).tolist() == ["owl", "ñandú"]


def test_joined_data_sets_whose_labels_are_names_may_number_classes_differently() -> None:
    parts = [Closed(targets=["cat"], classes=["cat", "dog"]), Closed(targets=["ant"], classes=["ant", "cat"])]
    assert find_labels(ConcatDataset(parts)).tolist() == ["cat", "ant"]


def test_torchvision_folders(tmp_path: Any) -> None:
    from torchvision.datasets import FakeData, ImageFolder

    for name in ("cat/1.png", "cat/2.png", "owl/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not an image")
    folder = ImageFolder(str(tmp_path))
    assert find_labels(folder).tolist() == [0, 0, 1]
    assert list(EpochSampler(Subset(folder, [2, 0]))) in ([0, 1], [1, 0])
    with pytest.raises(InputError, match="FakeData without any of them; pass the label of every row"):
        find_labels(FakeData(4))


def test_hugging_face_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "owl"]),
            "label_2": datasets.Value("int64"),
        }
    )
    rows = {"image": [{"path": "missing.png", "bytes": None}] * 3, "label": [1, 0, 1], "label_2": [0, 0, 0]}
    data = datasets.Dataset.from_dict(rows, features=features)
    assert find_labels(data).tolist() == [1, 0, 1]
    assert find_labels(data.select([2, 1])).tolist() == [1, 0]
    assert find_labels(data["label"]).tolist() == [1, 0, 1]
    strings = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["cat", "owl"]})
    assert find_labels(strings).tolist() == ["cat", "owl"]
    with pytest.raises(InputError, match=r"one column of labels; got 2 \(label, target\); pass the column"):
        find_labels(datasets.Dataset.from_dict({"label": [0], "target": [0]}))
    with pytest.raises(InputError, match="got the columns a, b"):
        find_labels(datasets.Dataset.from_dict({"a": [0], "b": [0]}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Closed(),
            "expected labels, or a data set with targets, labels, samples or imgs; got Closed without any of them",
        ),
        (None, "got NoneType without any"),
        ("targets", "got str without any"),
        ({"train": [0, 1]}, "got dict without any"),
        ([[0, 1], [1, 0]], r"one label a row; got labels of shape \(2, 2\)"),
        ([0.0, float("nan")], r"expected a label for every row; got none \(nan\) in row 1; leave such rows out"),
        (pd.Series([1, None], dtype="Int64"), r"expected a label for every row; got none .* in row 1"),
        ([0.0, 0.5], "class ids or names; got label .*0.5"),
        (["cat", None], r"expected a label for every row; got none \(None\) in row 1"),
        (np.array([1, "cat"], dtype=object), "class ids or names; got label 1"),
        (
            ConcatDataset([Closed(targets=[0], classes=["cat", "owl"]), Closed(targets=[0], classes=["owl"])]),
            "joined data sets with the same classes",
        ),
        (
            ConcatDataset(
                [Subset(Closed(targets=[0], classes=["cat", "dog"]), [0]), Closed(targets=[0], classes=["ant", "cat"])]
            ),
            "joined data sets with the same classes",
        ),
        (WeightedRandomSampler([1.0], 1), r"expected labels, or a data set; got a sampler \(WeightedRandomSampler\)"),
    ],
)
def test_what_holds_no_labels_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_labels(source)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([], None, "expected at least one label; got none"),
        ([0, -1], None, "expected class ids from 0; got label -1; leave unlabelled rows out"),
        ([0, 10**9], None, "number the classes 0, 1, …, or pass them as strings"),
        (["cat", "owl"], ["cat"], "expected labels out of classes; got 'owl'"),
        ([0, 2], ["a", "b"], "expected class ids below the 2 classes; got label 2"),
    ],
)
def test_labels_that_number_no_class_are_refused(labels: list[Any], classes: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(find_labels(labels), classes)


def test_class_names_order_the_classes() -> None:
    ids, names = encode(np.array(["owl", "cat", "owl"]), ["owl", "newt", "cat"])
    assert (ids.tolist(), names) == ([0, 2, 0], ("owl", "newt", "cat"))
    ids, names = encode(np.array(["owl", "cat"]), None)
    assert (ids.tolist(), names) == ([1, 0], ("cat", "owl"))
    assert encode(np.array([2, 0]), None)[1] == ("0", "1", "2")


@pytest.mark.parametrize("name", ["labels", "targets", "samples"])
def test_an_attribute_that_is_not_a_label_for_each_row_is_refused(name: str) -> None:
    class Named(Closed):
        def __len__(self) -> int:
            return 1000

    values = [("a.png", 0), ("b.png", 1)] if name == "samples" else ["cat", "owl"]
    with pytest.raises(InputError, match=rf"a label for each of 1000 rows; got 2 in \.{name} of Named; pass the label"):
        EpochSampler(Named(**{name: values}), rule="inverse")
