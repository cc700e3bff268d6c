"""The page that helps to choose: it names every method, and what it tells people to type is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.config_groups import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig
from pipelines.loss_terms import LOSSES
from pipelines.method_list import list_methods
from pipelines.open_data import OpenData, open_data
from pipelines.preparation import prepare_training
from pipelines.recipes import RECIPES, parse_options
from pipelines.second_stages import SECOND_STAGES
from rebalance.data.augmentation import parse_views
from rebalance.methods.batch_mix import MIXES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "choosing.md").read_text()
CODE = re.findall(r"`([^`]+)`", PAGE)


@pytest.fixture(scope="module")
def digits() -> OpenData:
    return open_data(DataConfig(data="digits"), torch.device("cpu"))


def test_every_method_is_on_the_page() -> None:
    words = {word for code in CODE for word in code.split()}
    assert {method.name for method in list_methods()} <= words


@pytest.mark.parametrize("code", [code for code in CODE if re.fullmatch(r"[a-z][a-z_]+", code)])
def test_every_name_is_one(code: str) -> None:
    schedules = {"step", "cosine"}
    assert code in {*RECIPES, *SECOND_STAGES, *schedules, "photos", "randaugment"}


def test_flags_have_values_that_are_accepted() -> None:
    text = " ".join(CODE)
    for method in re.findall(r"--method (\w+)", text):
        assert method in {*RECIPES, *SECOND_STAGES, "NAME"}
    for mix in re.findall(r"--mix (\w+)", text):
        assert mix in MIXES
    for loss in re.findall(r"(?:--loss |loss=)(\w+)", text):
        assert loss in LOSSES
    (augment,) = re.findall(r"--augment (\S+)", text)
    assert len(parse_views(augment, image_size=32).views) == 1
    parse_views("randaugment", image_size=224)
    assert parse_options("logit_adjustment", {"tau": "1.2"}) == {"tau": 1.2}
    assert parse_options("supcon", {"loss": "balanced_softmax"}) == {"loss": "balanced_softmax"}


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"composed"}))
def test_methods_whose_heads_cannot_be_rescaled_are_named(name: str, digits: OpenData) -> None:
    (sentence,) = re.findall(r"has to be linear: they\s+refuse (.*?)\. The others", PAGE, flags=re.DOTALL)
    config = TrainConfig(
        data=digits.config,
        objective=ObjectiveConfig(method=name),
        model=ModelConfig(model="small_cnn"),
        optimization=OptimizationConfig(updates=20),
    )
    head = prepare_training(config, digits, torch.device("cpu")).description.head
    assert (f"`{name}`" in sentence) == (head != "linear")


def test_sources_that_are_cited_are_listed() -> None:
    tables, _, sources = PAGE.partition("**Sources.**")
    cited, listed = set(re.findall(r"\[([a-z])\]", tables)), set(re.findall(r"\[([a-z])\]", sources))
    assert cited == listed


def test_pages_are_linked() -> None:
    page = (DOCS / "methods.md").read_text()
    for name in ("choosing.md", "adding-a-loss.md"):
        assert f"]({name})" in page
        assert (DOCS / name).is_file()
