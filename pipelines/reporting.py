"""Write a report: one self-contained HTML file, and the same as Markdown and JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from pipelines import figures
from pipelines.checked_settings import check_config
from pipelines.comparison import ARM_TITLES, METRIC_TITLES, Estimate
from pipelines.config import ReportConfig
from pipelines.console import log
from pipelines.report_data import ReportData, read_report_data
from pipelines.runs import read_run_config, slug
from pipelines.synthesis_report import SynthesisData, distance_figure, read_synthesis, synthesis_context
from rebalance.counts import GROUPS
from rebalance.errors import InputError
from rebalance.files import read_json, write_json, write_text

_HEADLINE = ("balanced_accuracy", "many_shot", "medium_shot", "few_shot", "worst_class", "g_mean", "macro_f1", "ece")
_MAX_CLASS_ROWS = 200


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report."""

    html: Path
    markdown: Path
    json: Path


def report(config: ReportConfig) -> ReportFiles:
    """Report on finished runs.

    Raises:
        InputError: No run folder, or a run that is not finished.
    """
    check_config(config, ReportConfig)
    if len(config.runs) == 1 and read_run_config(config.runs[0])["command"] == "synthesize":
        return _report_synthesis(config.runs[0], config.out or config.runs[0])
    data = read_report_data(config.runs)
    folder = config.out or (config.runs[0] if len(config.runs) == 1 else _folder_of(config.runs))
    return _write("report", folder, _context(data), _pictures(data), _as_json(data))


def _report_synthesis(source: Path, folder: Path) -> ReportFiles:
    """Report on a synthesis alone."""
    if not (source / "metrics.json").exists():
        raise InputError("finished runs", f"{source}, which is not", "start its command again to finish it")
    data = read_synthesis(source)
    config = read_run_config(source)
    context = {
        "title": f"{Path(config['data']['data']).name}, synthetic images",
        "synthesis": synthesis_context(data),
        **_texts(config, read_json(source / "environment.json")),
    }
    return _write("synthesis_report", folder, context, _encoded(_synthesis_pictures(data)), data.summary)


def _folder_of(runs: Sequence[Path]) -> Path:
    """Where the report of several runs goes."""
    first, *others = (slug(str(run)) for run in runs)
    beside = others[0] if len(others) == 1 else f"{len(others)}-more"
    which = hashlib.sha256("\n".join(sorted(str(run.resolve()) for run in runs)).encode()).hexdigest()[:6]
    return Path("runs") / "report" / f"{first}-and-{beside}-{which}"


def _write(
    template: str, folder: Path, context: dict[str, Any], pictures: dict[str, Any], values: dict[str, Any]
) -> ReportFiles:
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = ReportFiles(folder / "report.html", folder / "report.md", folder / "report.json")
    write_text(files.html, environment.get_template(f"{template}.html.j2").render(**context, pictures=pictures))
    write_text(files.markdown, environment.get_template(f"{template}.md.j2").render(**context))
    write_json(files.json, values)
    return files


def _context(data: ReportData) -> dict[str, Any]:
    arms = dict(zip(data.metrics, data.comparison.arms.values(), strict=True))
    tuning = data.tuning
    return {
        "title": data.title,
        "data": data,
        "selected": None if data.selected is None else ARM_TITLES.get(data.selected["arm"], data.selected["arm"]),
        "synthesis": None if data.synthesis is None else synthesis_context(data.synthesis),
        "tuning_rows": [] if tuning is None else _tuning_rows(tuning),
        "feedback": None if data.feedback is None else _feedback_table(data.feedback),
        "headline": [METRIC_TITLES[name] for name in _HEADLINE],
        "rows": [(arm, [_text(estimates.get(name)) for name in _HEADLINE]) for arm, estimates in arms.items()],
        "words": [*data.comparison.words(), *_warnings(data.synthesis)],
        "class_rows": _class_rows(data),
        "calibration_rows": [(arm, _ece_cells(data.metrics[arm])) for arm in data.metrics],
        "groups": GROUPS,
        **_texts(data.config, data.environment),
        "n_seeds": max(len(seeds) for seeds in data.metrics.values()),
    }


def _warnings(synthesis: SynthesisData | None) -> list[str]:
    """What is wrong with the synthetic images, beside what they did."""
    return [] if synthesis is None else list(synthesis.summary.get("warnings", ()))


def _texts(config: dict[str, Any], environment: dict[str, Any]) -> dict[str, str]:
    """Settings and environment as YAML."""
    told = _without_directory(environment)
    if "earlier" in told:
        told["earlier"] = [_without_directory(one) for one in told["earlier"]]
    named = {"settings": config, "environment": told}
    return {name: yaml.safe_dump(value, sort_keys=False, allow_unicode=True) for name, value in named.items()}


def _without_directory(environment: dict[str, Any]) -> dict[str, Any]:
    """The reader's is another."""
    return {name: value for name, value in environment.items() if name != "directory"}


def _tuning_rows(tuning: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Candidate, balanced accuracy and a mark for the best; the best first."""
    ordered = sorted(tuning["accuracy"].items(), key=lambda item: -float(item[1]))
    return [(name, _percent(value), "best" if name == tuning["best"] else "") for name, value in ordered]


def _feedback_table(feedback: dict[str, Any]) -> dict[str, list[Any]]:
    """By class the images of each round so far, and how many validation images were right after it."""
    head, columns = ["class", "real"], [feedback["classes"], feedback["real"]]
    for number, made in enumerate(feedback["rounds"], 1):
        head.append(f"images, round {number}")
        columns.append(made["images"])
        if made["recall"] is not None:
            head.append("right after, %")
            columns.append([_percent(value) for value in made["recall"]])
    order = np.argsort(-np.asarray(feedback["real"]), kind="stable")[:_MAX_CLASS_ROWS]
    return {"head": head, "rows": [[str(column[i]) for column in columns] for i in order]}


def _class_rows(data: ReportData) -> list[tuple[str, list[str]]]:
    """Name, and images, synthetic images, group, test images and accuracy by arm; most frequent first."""
    order = np.argsort(-np.asarray(data.counts), kind="stable")[:_MAX_CLASS_ROWS]
    recalls = {arm: data.recall(arm) for arm in data.metrics}
    support = next(iter(data.metrics.values()))[0]["support"]
    rows = []
    for i in order:
        cells = [str(data.counts[i]), str(data.synthetic_counts[i]), data.groups[i], str(support[i])]
        cells += [_percent(recall[i]) for recall in recalls.values()]
        rows.append((data.classes[i], cells))
    return rows


def _ece_cells(seeds: list[dict[str, Any]]) -> list[str]:
    """Calibration error over all images and by group, mean over the seeds."""
    cells = [_percent(_mean([seed["ece"] for seed in seeds]))]
    return cells + [_percent(_mean([seed["ece_groups"][group] for seed in seeds])) for group in GROUPS]


def _pictures(data: ReportData) -> dict[str, Any]:
    """Every picture of the report, as data URIs."""
    arms = {
        arm: {name: (100 * e.mean, None if e.half_width is None else 100 * e.half_width) for name, e in metrics.items()}
        for arm, metrics in zip(data.metrics, data.comparison.arms.values(), strict=True)
    }
    shown = {name: METRIC_TITLES[name] for name in ("balanced_accuracy", "many_shot", "few_shot")}
    shown = {name: title for name, title in shown.items() if any(name in metrics for metrics in arms.values())}
    last = list(data.metrics)[-1]
    histories = {arm: rows for arm, rows in data.histories.items() if rows}  # what is computed has none
    pictures: dict[str, Any] = {
        "distribution": figures.class_distribution(data.classes, data.counts, data.synthetic_counts),
        "comparison": figures.arm_comparison(arms, shown),
        "by_class": figures.accuracy_by_class(
            data.classes, data.counts, {arm: data.recall(arm) for arm in data.metrics}
        ),
        "losses": figures.loss_curves(histories) if histories else None,
        "reliability": figures.reliability({arm: data.total(arm, "calibration_bins") for arm in data.metrics}),
    }
    if data.total(last, "confusion").size:
        pictures["confusion"] = figures.confusion(data.classes, data.total(last, "confusion"))
        pictures["confusion_arm"] = last
    pictures["of_methods"] = data.pictures
    return _encoded({**pictures, **({} if data.synthesis is None else _synthesis_pictures(data.synthesis))})


def _synthesis_pictures(data: SynthesisData) -> dict[str, Any]:
    return {"distances": distance_figure(data), "sheets": data.sheets}


def _encoded(pictures: dict[str, Any]) -> dict[str, Any]:
    """Figures, and lists of names and files, as data URIs; anything else as it is."""
    encoded: dict[str, Any] = {}
    for name, item in pictures.items():
        if isinstance(item, Figure):
            encoded[name] = _uri(figures.save_png(item))
        elif isinstance(item, tuple):
            encoded[name] = [(title, _uri(file.read_bytes())) for title, file in item]
        else:
            encoded[name] = item
    return encoded


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _as_json(data: ReportData) -> dict[str, Any]:
    return {
        "title": data.title,
        "split": data.split,
        "classes": list(data.classes),
        "groups": list(data.groups),
        "train_counts": list(data.counts),
        "synthetic_counts": list(data.synthetic_counts),
        "recall": {arm: data.recall(arm) for arm in data.metrics},
        "selected": data.selected,
        "synthesis": None if data.synthesis is None else data.synthesis.summary,
        "tuning": data.tuning,
        "feedback": data.feedback,
        "notes": list(data.notes),
        **data.comparison.to_dict(),
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _text(value: Estimate | None) -> str:
    return "n/a" if value is None else value.percent()


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"


def report_command(config: ReportConfig) -> None:
    """`rebalance report`: write the report and say where."""
    files = report(config)
    log.info("report: %s (and %s, %s)", files.html, files.markdown.name, files.json.name)
