"""What a report says of its figures."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.report_notes import report_notes


def run(**changes: Any) -> dict[str, Any]:
    return {
        "test": {"support": [10, 30]},
        "selected": {"by": "last epoch"},
        "model": "resnet32",
        "image_size": 32,
        **changes,
    }


def notes(arms: dict[str, list[dict[str, Any]]], **changes: Any) -> str:
    arguments: dict[str, Any] = {"split": "test", "others": (), "unpaired": (), "pipeline": False, **changes}
    return "\n".join(report_notes(arms, **arguments))


def test_of_whole_runs_the_split_alone_is_said() -> None:
    assert notes({"a": [run(), run()]}) == "Figures are of the test split, 40 images."
    assert notes({"a": [run(), run()]}, pipeline=True).endswith("40 images, read once at the end.")


@pytest.mark.parametrize(
    ("pipeline", "advice"), [(True, "Repeat with --seeds 3"), (False, "Train again with --seed 1")]
)
def test_one_seed_is_no_evidence(pipeline: bool, advice: str) -> None:
    assert advice in notes({"a": [run()], "b": [run()]}, pipeline=pipeline)
    assert advice not in notes({"a": [run()], "b": [run(), run()]}, pipeline=pipeline)


def test_trainings_of_other_lengths_are_told_and_second_stages_are_not_asked() -> None:
    arms = {"a": [run(updates=150)] * 2, "b": [run(updates=100)] * 2, "c": [run(updates=5, first_stage="a")] * 2}
    assert "Not trained for equally many updates, which alone makes a difference: a 150, b 100." in notes(arms)
    assert "equally many" not in notes({**arms, "b": arms["a"]})


def test_other_networks_and_image_sizes_are_told() -> None:
    arms = {"a": [run()] * 2, "b": [run(model="small_cnn")] * 2}
    assert "Not of one network and image size, which alone makes a difference: a resnet32 at 32 px, b small_cnn" in (
        notes(arms)
    )
    assert "resnet32 at 64 px" in notes({**arms, "b": [run(image_size=64)] * 2})
    assert "one network" not in notes({**arms, "b": arms["a"]})


def test_classes_that_are_not_judged_or_hardly_are_told() -> None:
    few = "fewer than 10 images"
    without = notes({"a": [run(test={"support": [0, 10, 30]})] * 2})
    assert "1 of 3 classes has no image" in without
    assert few not in without
    assert few in notes({"a": [run(test={"support": [9, 30]})] * 2})
    assert few not in notes({"a": [run()] * 2})


def test_a_synthesis_of_other_splits_is_told_whichever_run_took_it() -> None:
    said = "made from other splits"
    assert said in notes({"a": [run(), run()], "b": [run(), run(synthesis_of_other_splits=True)]})
    assert said not in notes({"a": [run(), run()], "b": [run(), run()]})


def test_what_was_not_compared_is_told() -> None:
    text = notes({"a": [run()] * 2, "b": [run()] * 2, "c": [run()] * 2}, others=["b"], unpaired=["c"])
    assert "Not compared with a, which has other images in its splits: b." in text
    assert "Not compared with a, for no seed in common: c." in text


def test_validation_figures_and_selection_are_told() -> None:
    chosen = run(val={"support": [10, 10]}, selected={"by": "balanced accuracy on the validation split"})
    text = notes({"a": [chosen] * 2}, split="val")
    assert text.startswith("Figures are of the validation split: there is no test split.")
    assert "The epoch was selected by balanced accuracy" in text
