from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset

from rebalance.errors import InputError
from rebalance.samplers import ClassBatchSampler, EpochSampler, find_labels
from rebalance.samplers.names import find_names, find_numbering


class Named(Dataset[Any]):
    def __init__(self, classes: Any, targets: Any = (0, 1, 1)) -> None:
        self.classes, self.targets = classes, list(targets)

    def __len__(self) -> int:
        return len(self.targets)


CATS = Named(["cat", "dog"])


@pytest.mark.parametrize(
    "source",
    [
        CATS,
        Subset(Subset(CATS, [0, 1]), [0]),
        ConcatDataset([Named(None), Subset(CATS, [0])]),
        Named(np.array(["cat", "dog"])),
    ],
)
def test_names_are_found_through_parts_and_joins(source: Any) -> None:
    assert find_names(source) == ("cat", "dog")


@pytest.mark.parametrize("classes", [None, 10, "cat", [], [0, 1], ["cat", "cat"], [("cat", "Felis")], {"cat": 0}])
def test_what_names_no_classes_gives_none(classes: Any) -> None:
    assert find_names(Named(classes)) is None
    assert find_names(SimpleNamespace()) is find_names([0, 1]) is None


def test_numberings_of_mappings_are_told_apart() -> None:
    assert find_numbering(Named({"cat": 0, "dog": 1})) != find_numbering(Named({"cat": 1, "dog": 0}))


def test_data_sets_with_the_same_mapping_in_another_order_are_joined() -> None:
    first, second = Named({"cat": 0, "dog": 1}, [0, 1]), Named({"dog": 1, "cat": 0}, [1])
    assert find_labels(ConcatDataset([first, second])).tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="joined data sets with the same classes"):
        find_labels(ConcatDataset([first, Named({"dog": 0, "cat": 1}, [1])]))


class ClassLabel:
    """Named as that of Hugging Face is, by which it is known."""

    names = ("cat", "owl")


def test_a_column_of_labels_names_its_classes() -> None:
    columns = SimpleNamespace(column_names=["image", "label"], features={"image": object(), "label": ClassLabel()})
    assert find_names(columns) == ("cat", "owl")
    columns.features["other"] = ClassLabel()
    assert find_names(columns) is None


def test_hugging_face_label_columns_have_names() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"label": datasets.ClassLabel(names=["cat", "owl"])})
    data = datasets.Dataset.from_dict({"label": [1, 0]}, features=features)
    assert find_names(data) == EpochSampler(data).classes == ("cat", "owl")
    assert find_names(datasets.Dataset.from_dict({"label": [1, 0]})) is None


def test_custom_weights_name_the_classes_of_a_data_set() -> None:
    sampler = EpochSampler(CATS, rule="custom", custom={"cat": 1, "dog": 1.5}, num_samples=8)
    np.testing.assert_allclose(sampler.expected_counts(), [2, 6])
    assert ClassBatchSampler(Subset(CATS, [0, 2]), 2, 1).classes == ("cat", "dog")


@pytest.mark.parametrize("custom", [{"0": 1, "1": 1.5}, {0: 1, 1: 1.5}, {np.int64(1): 1.5, 0: 1}, {"cat": 1, "1": 1.5}])
def test_custom_weights_may_number_the_classes_of_a_data_set(custom: Any) -> None:
    sampler = EpochSampler(CATS, rule="custom", custom=custom, num_samples=8)
    np.testing.assert_allclose(sampler.expected_counts(), [2, 6])


@pytest.mark.parametrize("custom", [{"1": 1, "0": 1.5}, {1: 1, 0: 1.5}])
def test_a_class_name_comes_before_a_number(custom: Any) -> None:
    sampler = EpochSampler(Named(["1", "0"]), rule="custom", custom=custom, num_samples=8)
    np.testing.assert_allclose(sampler.expected_counts(), [2, 6])


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({"cat": 1, "0": 1, "dog": 1}, "expected one weight a class; got two for 'cat'"),
        ({"0": 1, 0: 1, "dog": 1}, "expected one weight a class; got two for 'cat'"),
        ({"cat": 1, 2: 1}, "expected weights for known classes; got '2'; valid: cat, dog"),
        ({"cat": 1, "01": 1}, "expected weights for known classes; got '01'"),
        ({0: 1}, "got none for 'dog'"),
    ],
)
def test_weights_that_do_not_give_each_class_one_are_refused(custom: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EpochSampler(CATS, rule="custom", custom=custom)


def test_names_that_are_given_come_before_those_of_the_data_set() -> None:
    assert EpochSampler(CATS, classes=["a", "b"]).classes == ("a", "b")


def test_fewer_names_than_classes_name_none() -> None:
    assert EpochSampler(Named(["cat"])).classes == ("0", "1")


def test_labels_that_are_names_need_no_others() -> None:
    assert EpochSampler(Named(["x", "y"], ["owl", "cat"])).classes == ("cat", "owl")
