"""`rebalance methods`: every method is explained from its own docstring and signature."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from cli import main
from pipelines.composition import SWITCH_FLAGS
from pipelines.method_list import MethodDescription, find_methods, list_methods
from pipelines.recipes import RECIPES, TAKES
from pipelines.second_stages import SECOND_STAGES

FREE = ("ce", "weighted_ce", "composed", "autoencoder")
"""Methods of no paper."""


def test_all_methods_are_listed_with_their_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    first, second = text.split("second stages, of retrain")
    for method in list_methods():
        assert f" {method.name} {method.summary}"[:60] in (first if method.command == "train" else second)


@pytest.mark.parametrize(
    "words", ["methods --json", "methods ce", "inspect digits --json", "train digits --print-config"]
)
def test_with_several_processes_one_speaks(
    words: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(words.split()) == 0
        assert (capsys.readouterr().out == "") == (rank == "1")


def test_a_method_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "paco"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("rebalance train … --method paco\n\nPaCo: contrast with learnable class centres")
    for words in (
        "ImageNet-LT takes alpha=0.05 temperature=0.2 queue=8192",
        "When: training may take the 400 epochs",
        "Paper: Cui et al., Parametric Contrastive Learning, ICCV 2021.",
        "│ temperature │ 0.05    │ Of the pairs.",
        "Switches: none, it has its own parts",
    ):
        assert words in text


def test_a_name_of_a_recipe_and_a_second_stage_tells_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "logit-adjustment"]) == 0
    text = capsys.readouterr().out
    assert "rebalance train … --method logit_adjustment" in text
    assert "rebalance retrain … --method logit_adjustment" in text
    assert "Switches: --loss, --loss-rule, --head, --head-scale, --mix, --rsg" in text


def test_json_holds_what_the_text_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)
    assert [method["name"] for method in methods] == [*RECIPES, *SECOND_STAGES]
    (ldam,) = [method for method in methods if method["name"] == "ldam_drw"]
    assert {option["name"]: option["default"] for option in ldam["options"]} == {
        "max_margin": 0.5,
        "scale": 30.0,
        "cb_beta": 0.9999,
        "defer_until": 0.8,
    }
    assert "0.3 on ImageNet-LT" in ldam["options"][0]["help"]
    assert main(["methods", "crt", "--json"]) == 0
    (crt,) = json.loads(capsys.readouterr().out)
    assert (crt["name"], crt["command"], crt["switches"]) == ("crt", "retrain", [])


def test_an_unknown_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "pacco"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: expected a method\n  got 'pacco'\n  did you mean 'paco'? valid: am_softmax, ")


@pytest.mark.parametrize("method", list_methods(), ids=lambda method: f"{method.command}-{method.name}")
def test_every_method_says_what_it_is_and_when_to_use_it(method: MethodDescription) -> None:
    function = (RECIPES if method.command == "train" else SECOND_STAGES)[method.name]
    assert method.summary.endswith(".")
    assert method.when
    assert method.when.endswith(".")
    assert bool(method.paper) == (method.name not in FREE)
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [(option.name, option.default) for option in method.options] == [(p.name, p.default) for p in keywords]
    assert all(option.help.endswith(".") for option in method.options), method.options
    assert not {"Args", "problem", "first"} & set(method.details.split())


def test_switches_are_those_that_a_method_takes() -> None:
    (supcon,) = find_methods("supcon")
    assert supcon.switches == ("--loss-rule", "--head", "--head-scale", "--mix", "--rsg")
    (rsg,) = find_methods("rsg")
    assert rsg.switches == tuple(SWITCH_FLAGS.values())
    assert {name for name in RECIPES if len(find_methods(name)[0].switches) < len(SWITCH_FLAGS)} == set(TAKES)
