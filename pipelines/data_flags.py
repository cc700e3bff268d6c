"""Settings of the data that are out of range, or that nothing would look at, are refused, not ignored."""

from __future__ import annotations

from pathlib import Path

from pipelines.config_groups import DataConfig
from pipelines.given_flags import given_flags
from pipelines.ranges import refuse_below
from rebalance.data.endings import LIST_SUFFIXES, TABLE_SUFFIXES
from rebalance.data.splits import check_fraction
from rebalance.errors import InputError

CIFAR = ("cifar10", "cifar100")
_LISTS = ("val_list", "test_list")
_COLUMNS = ("path_column", "label_column", "split_column")


def check_data(config: DataConfig) -> None:
    """Check everything about the data that needs none of their files read.

    Raises:
        InputError: A number out of range, or a setting that data of this kind have no use for.
    """
    refuse_below(0, {"--workers": config.workers, "--cache-gb": config.cache_gb, "--subset-seed": config.subset_seed})
    refuse_below(0, {"--many": config.many, "--few": config.few})
    if config.image_size is not None:
        refuse_below(8, {"--image-size": config.image_size})
    for flag, fraction in {"--val-fraction": config.val_fraction, "--test-fraction": config.test_fraction}.items():
        if fraction:
            check_fraction(fraction, flag)
    factor = config.imbalance_factor
    if factor is not None and not factor >= 1:
        such = f", such as {1 / factor:g} for {factor:g}" if factor > 0 else ""
        raise InputError("--imbalance-factor of at least 1", str(factor), f"give n_max / n_min{such}")
    check_list_flags(config)


def check_list_flags(config: DataConfig) -> None:
    """Refuse settings of list files beside data that are none: a validation list would be left out without a word.

    Raises:
        InputError: Such a setting.
    """
    path = Path(config.data)
    if config.data == "digits":
        _refuse(config, ("root", *_LISTS, *_COLUMNS), config.data)
    elif config.data in CIFAR and not path.exists():
        _refuse(config, (*_LISTS, *_COLUMNS), config.data)
    elif is_list_file(config.data):
        files = (path, config.val_list, config.test_list)
        if not any(file is not None and file.suffix.lower() in TABLE_SUFFIXES for file in files):
            _refuse(config, _COLUMNS, f"{config.data}, whose lines have no columns", "a CSV file")
    elif path.is_dir():
        _refuse(config, ("root", *_LISTS, *_COLUMNS), f"the folder {config.data}")


def refuse_pixel_settings(config: DataConfig) -> None:
    """Refuse settings of decoded images where files are handed on as they are.

    Raises:
        InputError: Such a setting.
    """
    _refuse(config, ("image_size", "augment", "cache_gb"), "files, which stay as they are", "pixels")


def is_list_file(data: str) -> bool:
    """Whether `data` is read as a list file."""
    path = Path(data)
    return path.suffix.lower() in LIST_SUFFIXES and not path.is_dir()


def _refuse(config: DataConfig, names: tuple[str, ...], got: str, needed: str = "a list file") -> None:
    for flag in given_flags(config, names):
        raise InputError(f"{needed} as DATA with {flag}", got, f"leave out {flag}, which changes nothing there")
