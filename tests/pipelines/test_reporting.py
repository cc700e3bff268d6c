"""`report`: every part of it, from a pipeline with a validation split and from a synthesis alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    ReportConfig,
    RetrainConfig,
    TrainConfig,
    rebalance_and_train,
    report,
    retrain,
    train,
)
from pipelines.comparison import estimate
from pipelines.figures import MAX_PANELS
from pipelines.synthesis_report import MAX_SHEETS, SynthesisData, distance_figure, synthesis_context
from pipelines.tuning import WITHOUT
from rebalance.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a validation split, a tuning and a method that shows pictures; not to be changed."""
    output = tmp_path_factory.mktemp("pipeline")
    settings = RebalanceConfig(
        data=DataConfig(data="digits", imbalance_factor=3, val_fraction=0.2),
        objective=ObjectiveConfig(method="autoencoder"),
        optimization=OptimizationConfig(updates=4, batch_size=32),
        budget=BudgetConfig(max_images=20),
        generator=GeneratorConfig(
            generator_updates=4, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
        ),
        filter=FilterConfig(skip_gate=("distance",)),
        arms=("rebalanced", "synthetic"),
        tune=("0.3:0.9",),
        seeds=1,
        place=PlaceConfig(device="cpu", report_to="none", output=output),
    )
    return rebalance_and_train(settings).folder


def section(html: str, title: str) -> str:
    found = re.search(rf"<h2>{re.escape(title)}[^<]*</h2>(.*?)</section>", html, re.DOTALL)
    assert found, title
    return found.group(1)


def test_tuning_is_a_table_of_candidates_with_the_best_marked(finished: Path) -> None:
    tuning = json.loads((finished / "metrics.json").read_text())["tuning"]
    html = section((finished / "report.html").read_text(), "How synthetic images take part")
    assert tuning["by"] in html
    for name, accuracy in tuning["accuracy"].items():
        mark = "best" if name == tuning["best"] else ""
        assert f"<tr><td>{name}</td><td>{100 * accuracy:.1f}</td><td>{mark}</td></tr>" in html
    assert ("None of these was better" in html) == (tuning["best"] == WITHOUT)
    assert f"| {tuning['best']} |" in (finished / "report.md").read_text()
    assert json.loads((finished / "report.json").read_text())["tuning"] == tuning


def test_pictures_of_methods_are_shown(finished: Path) -> None:
    pictures = list((finished / "arms" / "rebalanced" / "seed-0" / "pictures").glob("*.png"))
    html = section((finished / "report.html").read_text(), "What the methods show")
    assert len(pictures) > 0
    assert html.count("data:image/png;base64,") == 2 * len(pictures)  # of two arms


def test_synthesis_is_shown_with_quality_distances_and_sheets(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    summary = json.loads((finished / "synthesis" / "metrics.json").read_text())
    wanted = [entry["class"] for entry in summary["classes"] if entry["wanted"]]
    assert f"{summary['kept']} of {summary['made']} candidates kept" in html
    assert "data:image/png" in section(html, "Synthetic images beside the real ones of their class")
    assert section(html, "Contact sheets").count("<img") == len(wanted)
    quality = summary["quality"]
    assert f"{quality['test']['near']} of {quality['test']['kept']} kept images" in html
    assert "&lt;" not in html
    assert "&#34;" not in html


def test_a_synthesis_alone_has_a_report(finished: Path, tmp_path: Path) -> None:
    files = report(ReportConfig(runs=(finished / "synthesis",), out=tmp_path / "alone"))
    html, markdown = files.html.read_text(), files.markdown.read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", html)
    assert "Contact sheets" in html
    for text in (html, markdown):
        assert "candidates kept" in text
        assert "Gates left out: distance." in text
    assert json.loads(files.json.read_text())["quality"]["space"] == "classifier"
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(line.split("|")) for line in lines[:3]}) == 1


def test_an_unfinished_synthesis_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((finished / "synthesis" / "config.yaml").read_text())
    with pytest.raises(InputError, match="finished runs"):
        report(ReportConfig(runs=(tmp_path,)))


def test_different_runs_are_arms_of_one_report_with_the_settings_of_each(tmp_path: Path) -> None:
    runs = {}
    for method, updates in (("ce", 2), ("ldam", 3)):
        settings = TrainConfig(
            data=DataConfig(data="digits"),
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(method=method),
            optimization=OptimizationConfig(updates=updates, batch_size=32),
            place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
        )
        runs[method] = train(settings).folder
    environment = runs["ce"] / "environment.json"  # as if another machine had begun it
    now = json.loads(environment.read_text())
    environment.write_text(json.dumps({**now, "earlier": [{**now, "device": "another"}]}))
    files = report(ReportConfig(runs=tuple(runs.values()), out=tmp_path / "both"))
    markdown, html = files.markdown.read_text(), files.html.read_text()
    assert "device: another" in html
    assert "directory:" not in html
    shown = yaml.safe_load(re.findall("```yaml\n(.*?)```", markdown, re.DOTALL)[0])
    assert {name: (one["objective"]["method"], one["optimization"]["updates"]) for name, one in shown.items()} == {
        "digits-ce": ("ce", 2),
        "digits-ldam": ("ldam", 3),
    }
    arms = json.loads(files.json.read_text())["arms"]
    assert set(arms) == set(shown)
    for name, method in (("digits-ce", "ce"), ("digits-ldam", "ldam")):
        figures = json.loads((runs[method] / "metrics.json").read_text())["test"]
        assert arms[name]["balanced_accuracy"]["mean"] == pytest.approx(figures["balanced_accuracy"])
        assert f"| {name} |" in markdown
        assert f"<td>{name}</td>" in html
        assert f"method: {method}\n" in html


def test_the_name_of_an_arm_of_several_seeds_names_none(tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        place = PlaceConfig(device="cpu", report_to="none", output=tmp_path)
        first = train(
            TrainConfig(
                data=DataConfig(data="digits"),
                objective=ObjectiveConfig(method="ce"),
                optimization=OptimizationConfig(updates=3, batch_size=32),
                seed=seed,
                place=place,
            )
        ).folder
        folders += [first, retrain(RetrainConfig(run=first, method="logit_adjustment", place=place)).folder]
    assert [folder.name for folder in folders[:2]] == ["digits-ce-seed1", "digits-ce-seed1-logit_adjustment"]
    files = report(ReportConfig(runs=tuple(folders), out=tmp_path / "all"))
    assert set(json.loads(files.json.read_text())["arms"]) == {"digits-ce", "digits-ce-logit_adjustment"}


def test_runs_are_paired_by_seed_with_the_first_arm_where_their_images_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, method: str, seed: int, **data: Any) -> Path:
        settings = TrainConfig(
            data=DataConfig(data="digits", **data),
            objective=ObjectiveConfig(method=method),
            optimization=OptimizationConfig(updates=3, batch_size=32),
            seed=seed,
            place=PlaceConfig(device="cpu", report_to="none", output=tmp_path, experiment=name),
        )
        return train(settings).folder

    plain = [run(f"plain-{seed}", "ce", seed) for seed in (0, 1, 2)]
    ours = [run(f"ours-{seed}", "balanced_softmax", seed) for seed in (0, 1)]
    other = run("other", "ce", 0, subset_seed=7)
    files = report(ReportConfig(runs=(*plain, ours[1], ours[0], other), out=tmp_path / "all"))
    found = json.loads(files.json.read_text())
    (difference,) = found["differences"]
    assert (difference["arm"], difference["against"]) == ("ours-1", "plain-0")
    accuracy = {
        folder: json.loads((folder / "metrics.json").read_text())["test"]["balanced_accuracy"]
        for folder in (*plain, *ours)
    }
    gains = [accuracy[ours[seed]] - accuracy[plain[seed]] for seed in (1, 0)]
    assert difference["balanced_accuracy"] == pytest.approx(vars(estimate(gains)))
    assert "ours-1 against plain-0: " in files.html.read_text()
    assert "Not compared with plain-0, which has other images in its splits: other." in files.markdown.read_text()
    assert "Train again with" not in files.markdown.read_text()
    assert "read once at the end" not in files.markdown.read_text()
    monkeypatch.chdir(tmp_path)
    two = [report(ReportConfig(runs=(plain[0], run))).html for run in (ours[0], other)]
    assert [file.parent.name[:-7] for file in two] == ["plain-0-and-ours-0", "plain-0-and-other"]
    apart = report(ReportConfig(runs=(plain[2], *ours)))
    assert "Not compared with plain-2, for no seed in common: ours-0." in apart.markdown.read_text()
    assert json.loads(apart.json.read_text())["differences"] == []
    assert all(file.exists() for file in two)
    assert "Train again with --seed 1 and --seed 2" in two[0].read_text()
    shutil.copytree(plain[0], tmp_path / "copy")
    with pytest.raises(InputError, match=r"each seed once; got .*plain-0 and .*copy, both of seed 0"):
        report(ReportConfig(runs=(*plain, tmp_path / "copy"), out=tmp_path / "twice"))


def class_entry(name: str, **changes: Any) -> dict[str, Any]:
    return {"class": name, "real": 5, "wanted": 3, "made": 4, "kept": 3, "rejected": {"flat": 1}, **changes}


def quality_entry(name: str, made: int) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(
        ("kid", "kid_made", "precision", "recall", "density", "coverage", "diversity", "diversity_real")
    )
    histogram = {"edges": [0.0, 0.1, 0.2], "real": [0, 0], "kept": [2, 1], "rejected": [0, 1]}
    return {
        "class": name,
        "group": "few",
        "made": made,
        "kept": 3,
        "acceptance": 0.75,
        **figures,
        "limit": 0.15,
        "loosened": name == "class 7",
        "histogram": histogram,
    }


def many_classes(n: int) -> SynthesisData:
    names = [f"class {i}" for i in range(n)]
    entries = [quality_entry(name, i) for i, name in enumerate(names)]
    nothing = {**dict.fromkeys(entries[0]), "classes": 0, "kept": 0, "made": 0}
    quality = {
        "space": "classifier",
        "gates": {"skipped": [], "hash_limit": 2, "copy_limit": 0.1, "third_class": 0.9, "text": False},
        "groups": {"all": {**entries[0], "classes": n}, "many": nothing, "medium": nothing, "few": nothing},
        "classes": entries,
        "test": None,
    }
    classes = [class_entry(name, loosened=name == "class 7") for name in names]
    totals = {"kept": 3 * n, "made": 4 * n, "wanted": 3 * n, "image_size": 32}
    return SynthesisData({**totals, "classes": classes, "quality": quality}, (), MAX_SHEETS + 5)


def test_loosened_gates_limits_and_missing_figures_are_said() -> None:
    context = synthesis_context(many_classes(9))
    assert any("loosened for 1 of 9 classes: 'class 7'" in note for note in context["notes"])
    assert any("at most 2 of 64 bits" in note for note in context["notes"])
    assert context["verdicts"][7][-1] == "1 flat, (distance gate loosened)"
    assert context["quality"]["classes"][0][2:4] == ["75", "n/a / n/a"]
    assert [row[0] for row in context["quality"]["groups"]] == ["all"]


def test_of_very_many_classes_a_part_is_shown_and_that_is_said() -> None:
    data = many_classes(300)
    context = synthesis_context(data)
    assert f"of {MAX_SHEETS + 5}" in context["sheets_left"]
    assert len(context["verdicts"]) == 200
    figure = distance_figure(data)
    assert figure is not None
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == [f"class {i}" for i in range(300 - MAX_PANELS, 300)]


def test_a_synthesis_of_an_earlier_version_is_shown_without_quality() -> None:
    data = many_classes(3)
    summary = {name: value for name, value in data.summary.items() if name != "quality"}
    context = synthesis_context(SynthesisData(summary, (), 0))
    assert context["quality"] is None
    assert context["notes"] == []
    assert distance_figure(SynthesisData(summary, (), 0)) is None
