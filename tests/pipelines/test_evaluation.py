"""`evaluate`: a run folder on its own data, on other folders, and on images it cannot judge."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
    TrainConfig,
    evaluate,
    load_model,
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
    alone = evaluate(EvaluateConfig(run=moved / "model", data=str(photos / "test"), device="cpu"))
    assert own["confusion"] == given["confusion"] == flat["confusion"] == alone["confusion"]


def test_a_list_is_read_as_the_run_was_told_or_as_it_is_told_now(
    photos: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write(name: str, header: str, split: str) -> str:
        rows = [f"{file.resolve()},{file.parent.name}" for file in sorted((photos / split).rglob("*.jpg"))]
        (here / name).write_text("\n".join([header, *rows, f"{here}/gone.jpg,tail"][: None if split == "test" else -1]))
        return name

    (here / "gone.jpg").write_bytes(b"no image")
    train_list, same = write("train.csv", "file,kind", "train"), write("same.csv", "file,kind", "test")
    run = train(
        TrainConfig(
            data=DataConfig(
                data=train_list, root=here.parent, path_column="file", label_column="kind", test_fraction=0.2
            ),
            model=ModelConfig(model="small_cnn"),
            optimization=OptimizationConfig(updates=2, batch_size=16),
            place=PlaceConfig(device="cpu", report_to="none"),
        )
    ).folder
    assert (
        evaluate(EvaluateConfig(run=run, data=same, root=here.parent, skip_corrupt=True, device="cpu"))["n_images"]
        == 40
    )
    assert "1 of 41 images cannot be read" in caplog.text
    other = write("other.csv", "path,label", "test")
    again = EvaluateConfig(
        run=str(run),  # type: ignore[arg-type]  # text will do
        data=other,
        root=here.parent,
        path_column="path",
        label_column="label",
        skip_corrupt=True,
        device="cpu",
    )
    assert evaluate(again)["n_images"] == 40


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


def test_a_split_column_may_be_named(photos: Path, run: Path, here: Path) -> None:
    rows = [
        f"{f},tail,{f.parent.parent.name}" for split in ("train", "test") for f in (photos / split / "tail").iterdir()
    ]
    Path("all.csv").write_text("\n".join(["path,label,set", *rows]))
    config = EvaluateConfig(run=run, data="all.csv", root=photos, device="cpu")
    with pytest.raises(InputError, match=r"the split in a column 'split' .*; name it with --split-column 'set'"):
        evaluate(config)
    assert evaluate(replace(config, split_column="set"))["n_images"] == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "--batch-size of at least 1; got 0"),
        ({"batch_size": -4}, "--batch-size of at least 1; got -4"),
        ({"workers": -1}, "--workers of at least 0; got -1"),
        ({"root": Path("a")}, "DATA with --root"),
        ({"split_column": "set"}, "DATA with --split-column"),
        ({"label_column": "kind"}, r"a list file as DATA with --label-column; got the folder .*my photos"),
        ({"data": "digits", "path_column": "file"}, "a list file as DATA with --path-column; got digits"),
        ({"data": ".", "root": Path("a")}, "a list file as DATA with --root; got the folder ."),
    ],
)
def test_what_cannot_work_or_would_be_ignored_is_refused(
    run: Path, here: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(EvaluateConfig(run=run, device="cpu", **changes))


def test_missing_split_and_missing_run_are_refused(run: Path, here: Path) -> None:
    with pytest.raises(InputError, match="a val split"):
        evaluate(EvaluateConfig(run=run, split="val", device="cpu"))
    with pytest.raises(InputError, match="a finished run with a model"):
        evaluate(EvaluateConfig(run=here, device="cpu"))


# The predictions


def read(file: str) -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("cut", [{}, {"batch_size": 7}])
def test_predictions_are_those_of_the_model_in_the_order_of_the_data(
    photos: Path, run: Path, here: Path, cut: dict[str, Any]
) -> None:
    metrics = evaluate(EvaluateConfig(run=run, device="cpu", predictions=Path("far/off/a.csv"), **cut))
    rows, model = read("far/off/a.csv"), load_model(run)
    files = [str(file) for name in model.classes for file in sorted((photos / "test" / name).iterdir())]
    assert list(rows[0]) == ["path", "label", "prediction", "probability", "label_probability"]
    assert [row["path"] for row in rows] == files
    assert [row["label"] for row in rows] == [Path(file).parent.name for file in files]
    assert [row["prediction"] for row in rows] == model.predict(files)
    expected = model.predict_proba(files)
    labels = [model.classes.index(row["label"]) for row in rows]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected.max(axis=1), rtol=1e-4)
    found = [float(row["label_probability"]) for row in rows]
    np.testing.assert_allclose(found, expected[np.arange(40), labels], rtol=1e-4)
    assert sum(row["label"] == row["prediction"] for row in rows) / 40 == pytest.approx(metrics["accuracy"])
    assert metrics == evaluate(EvaluateConfig(run=run, device="cpu"))


def test_rows_of_data_without_files_have_numbers(plain_stage: Path, here: Path) -> None:
    words = ["evaluate", str(plain_stage), "--predictions", "a.csv", "--device", "cpu", "--json"]
    assert main(words) == 0
    rows = read("a.csv")
    assert list(rows[0])[:2] == ["row", "label"]
    assert [row["row"] for row in rows] == [str(i) for i in range(697)]


def test_images_left_out_and_absent_classes_are_in_no_row(photos: Path, run: Path, here: Path) -> None:
    shutil.copytree(photos / "test" / "tail", here / "few" / "tail")
    bad = sorted((here / "few" / "tail").iterdir())[3]
    bad.write_bytes(b"broken")
    config = EvaluateConfig(run=run, data="few", device="cpu", predictions=Path("a.csv"))
    with pytest.raises(InputError, match=bad.name):
        evaluate(config)
    assert not Path("a.csv").exists()
    evaluate(replace(config, skip_corrupt=True))
    assert len(read("a.csv")) == 9
    assert str(bad) not in Path("a.csv").read_text()


def test_the_list_that_is_evaluated_is_not_written_over(photos: Path, run: Path, here: Path) -> None:
    text = "path,label\n" + "".join(f"{file},tail\n" for file in (photos / "test" / "tail").iterdir())
    Path("list.csv").write_text(text)
    config = EvaluateConfig(run=run, data="list.csv", root=photos, device="cpu", predictions=here / "list.csv")
    with pytest.raises(InputError, match="which is read; choose another --predictions"):
        evaluate(config)
    assert Path("list.csv").read_text() == text
    evaluate(replace(config, predictions=Path("judged.csv")))
    assert evaluate(replace(config, data="judged.csv", predictions=None))["n_images"] == 10


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
