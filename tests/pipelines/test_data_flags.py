"""Settings of list files beside data that are none, and columns beside lists that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.config_groups import DataConfig
from pipelines.data_flags import check_data
from rebalance.errors import InputError

STRAY: dict[str, Any] = {
    "val_list": Path("val.txt"),
    "test_list": Path("test.txt"),
    "root": Path("images"),
    "path_column": "file",
    "label_column": "species",
    "split_column": "part",
}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "folder", "folder.csv"])
def test_settings_of_lists_are_refused_beside_other_data(data: str, name: str, here: Path) -> None:
    for folder in ("folder", "folder.csv"):
        (here / folder).mkdir()
    config = DataConfig(data=data, **{name: STRAY[name]})
    if name == "root" and data.startswith("cifar"):
        check_data(config)
        return
    flag = "--" + name.replace("_", "-")
    with pytest.raises(InputError, match=f"a list file as DATA with {flag}; got .*{data}; leave out {flag}"):
        check_data(config)


def test_a_folder_of_the_name_of_cifar_is_a_folder(here: Path) -> None:
    (here / "cifar10").mkdir()
    with pytest.raises(InputError, match="with --root; got the folder cifar10"):
        check_data(DataConfig(data="cifar10", root=Path("images")))


@pytest.mark.parametrize("name", ["path_column", "label_column", "split_column"])
def test_columns_are_of_csv_files(name: str) -> None:
    with pytest.raises(InputError, match=r"a CSV file as DATA with --\w+-column; got train.txt, whose lines have no"):
        check_data(DataConfig(data="train.txt", **{name: STRAY[name]}))
    for lists in ({"data": "train.csv"}, {"data": "train.TSV"}, {"data": "train.txt", "val_list": Path("val.csv")}):
        check_data(DataConfig(**lists, **{name: STRAY[name]}))  # type: ignore[arg-type]


def test_data_that_are_not_there_are_for_those_who_read_them() -> None:
    check_data(DataConfig(data="nowhere", val_list=Path("val.txt")))


def test_list_files_take_all_of_them() -> None:
    check_data(DataConfig(data="train.csv", **STRAY))


@pytest.mark.parametrize("name", ["workers", "cache_gb", "subset_seed"])
def test_numbers_below_nothing_are_refused(name: str) -> None:
    check_data(DataConfig(data="digits", **{name: 0}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} of at least 0; got -1; leave it out"):
        check_data(DataConfig(data="digits", **{name: -1}))  # type: ignore[arg-type]


def test_an_imbalance_factor_is_the_largest_class_by_the_smallest() -> None:
    check_data(DataConfig(data="digits", imbalance_factor=1))
    with pytest.raises(InputError, match=r"factor of at least 1; got 0.01; give n_max / n_min, such as 100 for 0.01"):
        check_data(DataConfig(data="digits", imbalance_factor=0.01))
    for factor in (0.0, float("nan")):
        with pytest.raises(InputError, match=f"of at least 1; got {factor}; give n_max / n_min$"):
            check_data(DataConfig(data="digits", imbalance_factor=factor))
