"""`evaluate`: a run folder on its own data, on other folders, and on images it cannot judge."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cli import main
from pipelines import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    evaluate,
    load_model,
    retrain,
    train,
)
from pipelines.evaluation import evaluate_table
from pipelines.open_data import open_data
from rebalance.errors import InputError


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; not to be changed."""
    return train(
        TrainConfig(
            data=DataConfig(data=str(photos)),
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(method="ldam"),
            optimization=OptimizationConfig(updates=12, batch_size=16),
            place=PlaceConfig(device="cpu", report_to="none", output=tmp_path_factory.mktemp("run")),
        )
    ).folder


def test_needs_nothing_but_run_and_data(photos: Path, run: Path, here: Path) -> None:
    moved = here / "moved"
    shutil.copytree(run, moved)
    shutil.rmtree(moved / "checkpoints")
    own = evaluate(EvaluateConfig(run=moved, device="cpu"))
    given = evaluate(EvaluateConfig(run=moved, data=str(photos), device="cpu"))
    flat = evaluate(EvaluateConfig(run=moved, data=str(photos / "test"), device="cpu"))
    assert own["confusion"] == given["confusion"] == flat["confusion"]


def test_relative_data_are_found_from_elsewhere(photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0
    monkeypatch.chdir(here / "runs")
    run = Path("train") / "photos-balanced_mixup"
    assert evaluate(EvaluateConfig(run=run, device="cpu"))["n_images"] == 40
    place = PlaceConfig(device="cpu", report_to="none", output=here / "second")
    assert retrain(RetrainConfig(run=run, method="ncm", place=place)).metrics["test"]["n_images"] == 40
    (here / "photos").rename(here / "moved")
    with pytest.raises(InputError, match="no such path: photos"):
        evaluate(EvaluateConfig(run=run, device="cpu"))


def test_embedded_data_are_not_a_folder_of_their_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main("train digits --updates 2 --batch-size 16 --report-to none --device cpu".split()) == 0
    (here / "digits").mkdir()
    monkeypatch.chdir(here / "runs")
    assert evaluate(EvaluateConfig(run=Path("train/digits-balanced_mixup"), device="cpu"))["n_images"] == 697


def test_other_split(run: Path) -> None:
    assert evaluate(EvaluateConfig(run=run, split="train", device="cpu"))["n_images"] == 66


def test_some_of_the_classes_are_enough(photos: Path, run: Path, here: Path) -> None:
    shutil.copytree(photos / "test" / "tail", here / "few" / "tail")
    figures = evaluate(EvaluateConfig(run=run, data="few", device="cpu"))
    assert figures["support"] == [0, 10, 0, 0]
    assert figures["recall"][0] is None
    assert figures["groups"]["many"] is None


def test_list_file(photos: Path, run: Path, here: Path) -> None:
    lines = [f"test/{path.parent.name}/{path.name} {path.parent.name}" for path in (photos / "test/tail").iterdir()]
    Path("list.txt").write_text("\n".join(lines))
    figures = evaluate(EvaluateConfig(run=run, data="list.txt", root=photos, device="cpu"))
    assert figures["support"] == [0, 10, 0, 0]


def test_unknown_class_is_refused(photos: Path, run: Path, here: Path) -> None:
    shutil.copytree(photos / "test" / "tail", here / "other" / "tial")
    with pytest.raises(InputError, match="tial"):
        evaluate(EvaluateConfig(run=run, data="other", device="cpu"))


def test_empty_folder_of_an_unknown_class_is_passed_by(photos: Path, run: Path, here: Path) -> None:
    shutil.copytree(photos / "test" / "tail", here / "other" / "tail")
    (here / "other" / "new").mkdir()
    assert evaluate(EvaluateConfig(run=run, data="other", device="cpu"))["support"] == [0, 10, 0, 0]


def test_missing_split_and_missing_run_are_refused(run: Path, here: Path) -> None:
    with pytest.raises(InputError, match="a val split"):
        evaluate(EvaluateConfig(run=run, split="val", device="cpu"))
    with pytest.raises(InputError, match="a finished run with a model"):
        evaluate(EvaluateConfig(run=here, device="cpu"))


@pytest.mark.parametrize("training", [True, False])
def test_figures_are_of_evaluation_mode_and_leave_the_mode_as_it_was(photos: Path, run: Path, training: bool) -> None:
    model, cpu = load_model(run / "model"), torch.device("cpu")
    classifier = model.classifier.train(training)
    statistics = {name: value.clone() for name, value in classifier.named_buffers()}
    test = open_data(DataConfig(data=str(photos)), cpu).tables["test"]
    found = evaluate_table(classifier, test, model.groups, model.mean, model.std, cpu)
    assert found["confusion"] == evaluate(EvaluateConfig(run=run, device="cpu"))["confusion"]
    assert classifier.training is training
    for name, value in classifier.named_buffers():
        torch.testing.assert_close(value, statistics[name], rtol=0, atol=0)


def test_probabilities_sum_to_one_and_any_input_form_will_do(photos: Path, run: Path) -> None:
    from rebalance.data.decoding import decode

    model = load_model(run)
    path = next((photos / "test" / "tail").iterdir())
    by_path, by_text, by_pixels = (model.predict_proba([x]) for x in (path, str(path), decode(str(path))))
    assert by_path.sum() == pytest.approx(1)
    assert (by_path == by_text).all()
    assert by_pixels == pytest.approx(by_path, abs=0.05)
