"""Write a report: one self-contained HTML file, and the same as Markdown and JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from pipelines import figures
from pipelines.comparison import METRIC_TITLES, Estimate
from pipelines.config import ReportConfig
from pipelines.console import log
from pipelines.report_data import ReportData, read_report_data
from rebalance.counts import GROUPS
from rebalance.files import write_json, write_text

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
    data = read_report_data(config.runs)
    folder = config.out or (config.runs[0] if len(config.runs) == 1 else Path("runs") / "report")
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = _context(data)
    files = ReportFiles(folder / "report.html", folder / "report.md", folder / "report.json")
    write_text(files.html, environment.get_template("report.html.j2").render(**context, pictures=_pictures(data)))
    write_text(files.markdown, environment.get_template("report.md.j2").render(**context))
    write_json(files.json, _as_json(data))
    return files


def _context(data: ReportData) -> dict[str, Any]:
    arms = dict(zip(data.metrics, data.comparison.arms.values(), strict=True))
    return {
        "data": data,
        "headline": [METRIC_TITLES[name] for name in _HEADLINE],
        "rows": [(arm, [_text(estimates.get(name)) for name in _HEADLINE]) for arm, estimates in arms.items()],
        "words": data.comparison.words(),
        "class_rows": _class_rows(data),
        "calibration_rows": [(arm, _ece_cells(data.metrics[arm])) for arm in data.metrics],
        "groups": GROUPS,
        "settings": yaml.safe_dump(data.config, sort_keys=False, allow_unicode=True),
        "environment": yaml.safe_dump(data.environment, sort_keys=False, allow_unicode=True),
        "n_seeds": max(len(seeds) for seeds in data.metrics.values()),
    }


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
    encoded = {
        name: _uri(figures.save_png(item)) if isinstance(item, Figure) else item for name, item in pictures.items()
    }
    files = {"sheets": data.sheets, "of_methods": data.pictures}
    return {**encoded, **{key: [(name, _uri(file.read_bytes())) for name, file in of] for key, of in files.items()}}


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
        "synthesis": data.synthesis,
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
