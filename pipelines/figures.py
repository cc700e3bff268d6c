"""The pictures of reports, as matplotlib figures; one look for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e8ee"
REAL, SYNTHETIC = "#2f6db3", "#e0912f"
COLOURS = ("#8c96a3", "#2f6db3", "#5aa469", "#c06fbd", "#e0912f", "#b33a3a", "#4a9d9c", "#7a5fc0")
_MAX_LABELS = 40
_LONGEST_LABEL = 40  # characters
_MIN_BIN_IMAGES = 5
MAX_PANELS = 12
"""Classes whose distances are drawn."""
_PANEL_COLUMNS = 4
_OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "IPAGothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)
"""Fonts for class names that matplotlib's own has no glyphs for, where they are installed."""
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}

mpl.rcParams.update(
    {
        "font.family": ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in _INSTALLED)],
        "font.size": 9,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.color": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "legend.frameon": False,
        "svg.fonttype": "path",
        "text.parse_math": False,  # class names may have dollar signs
    }
)


def save_png(figure: Figure, dpi: int = 150) -> bytes:
    """PNG bytes of a figure."""
    buffer = BytesIO()
    with _missing_glyphs():
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _missing_glyphs() -> Iterator[None]:
    """No warnings of class names that no installed font can draw; the tables beside a figure have them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from (current )?font")
        yield


def class_distribution(classes: Sequence[str], real: npt.ArrayLike, synthetic: npt.ArrayLike | None) -> Figure:
    """Images of each class, most frequent first, synthetic ones on top of the real."""
    n = np.asarray(real)
    m = np.zeros_like(n) if synthetic is None else np.asarray(synthetic)
    order = np.argsort(-n, kind="stable")
    figure = Figure(figsize=(7.2, 2.9))
    axes = figure.subplots()
    axes.bar(range(len(n)), n[order], color=REAL, width=0.8, label="real")
    if m.any():
        axes.bar(range(len(n)), m[order], bottom=n[order], color=SYNTHETIC, width=0.8, label="synthetic")
        _legend_above(axes)
    axes.set_ylabel("training images")
    if n.max() > 200 * max(n.min(), 1):
        _log_scale(axes)
    else:
        axes.set_ylim(0, 1.05 * float((n + m).max()))
    _class_axis(axes, [classes[i] for i in order])
    return figure


def accuracy_by_class(
    classes: Sequence[str], counts: npt.ArrayLike, arms: Mapping[str, Sequence[float | None]]
) -> Figure:
    """Accuracy of each class, most frequent first, a line for each arm; gaps where there is no test image."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots()
    for (name, recall), colour in zip(arms.items(), COLOURS, strict=False):
        values = [np.nan if recall[i] is None else 100 * float(recall[i] or 0) for i in order]
        axes.plot(
            range(len(order)),
            values,
            marker="o" if len(order) <= _MAX_LABELS else None,
            ms=3.5,
            lw=1.4,
            color=colour,
            label=name,
        )
    axes.set_ylabel("accuracy, %")
    _legend_above(axes)
    _class_axis(axes, [f"{classes[i]}\n{np.asarray(counts)[i]}" for i in order])
    return figure


def arm_comparison(arms: Mapping[str, Mapping[str, tuple[float, float | None]]], metrics: Mapping[str, str]) -> Figure:
    """Mean and 95 % interval of each arm, one panel for each metric.

    Args:
        arms: Arm → metric → mean and half-width (None with one seed), in percent.
        metrics: Metric → its title.
    """
    figure = Figure(figsize=(7.2, 0.42 * len(arms) + 1.1))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    places = np.arange(len(arms))[::-1]
    for panel, (metric, title) in zip(panels, metrics.items(), strict=True):
        for place, (values, colour) in zip(places, zip(arms.values(), COLOURS, strict=False), strict=True):
            if metric not in values:
                continue
            mean, half = values[metric]
            reach = None if half is None else [[min(half, mean)], [min(half, max(100 - mean, 0))]]  # none is beyond
            panel.errorbar(mean, place, xerr=reach, fmt="o", color=colour, ms=5, capsize=3, lw=1.5)
        panel.set_title(title, fontsize=9)
        panel.set_ylim(-0.6, len(arms) - 0.4)
    panels[0].set_yticks(places, list(arms))
    figure.tight_layout()
    return figure


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training loss over the updates, a line for each run."""
    figure = Figure(figsize=(7.2, 2.7))
    axes = figure.subplots()
    for (name, rows), colour in zip(histories.items(), COLOURS, strict=False):
        axes.plot(
            [row["updates"] for row in rows], [row["train_loss"] for row in rows], lw=1.1, color=colour, label=name
        )
    _log_scale(axes)
    axes.set_xlabel("updates")
    axes.set_ylabel("training loss")
    _legend_above(axes)
    return figure


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_PlainNumbers(labelOnlyBase=False))
    axes.yaxis.set_minor_formatter(_PlainNumbers(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


@final
class _PlainNumbers(LogFormatter):
    """Where matplotlib writes powers as formulas, which are switched off here."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def reliability(arms: Mapping[str, npt.ArrayLike]) -> Figure:
    """Accuracy against confidence, a line for each arm, with the diagonal of perfect calibration.

    Bins of fewer than five images are left out.

    Args:
        arms: Arm → bins (B, 3): images, sum of confidences, number right.
    """
    figure = Figure(figsize=(3.6, 4.0))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls=":")
    for (name, bins), colour in zip(arms.items(), COLOURS, strict=False):
        b = np.asarray(bins, dtype=np.float64)
        b = b[b[:, 0] >= _MIN_BIN_IMAGES]
        axes.plot(b[:, 1] / b[:, 0], b[:, 2] / b[:, 0], marker="o", ms=3, lw=1.2, color=colour, label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def confusion(classes: Sequence[str], matrix: npt.ArrayLike) -> Figure:
    """Confusion matrix, each row divided by its sum; rows are the true classes."""
    counts = np.asarray(matrix, dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(3.7, 3.4))
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= 20:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for i, j in zip(*np.nonzero(share >= 0.01), strict=True):
            colour = "white" if share[i, j] > 0.5 else INK
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=6, color=colour)
    return figure


def distance_histograms(classes: Sequence[tuple[str, Mapping[str, Any], float]]) -> Figure:
    """How far real images are from one another, and kept and rejected candidates from them; a panel for each class.

    Args:
        classes: Name, histogram ("edges", and counts "real", "kept", "rejected"), and the limit of the gate.
    """
    rows = -(-len(classes) // _PANEL_COLUMNS)
    figure = Figure(figsize=(7.2, 1.5 * rows + 0.3))
    panels = figure.subplots(rows, _PANEL_COLUMNS, squeeze=False).ravel()
    looks = (("rejected", COLOURS[0], 0.55), ("real", REAL, 0.55), ("kept", SYNTHETIC, 0.55))
    for panel, (name, histogram, limit) in zip(panels, classes, strict=False):
        edges = np.asarray(histogram["edges"], dtype=np.float64)
        for part, colour, alpha in looks:
            counts = np.asarray(histogram[part], dtype=np.float64)
            if counts.sum():
                panel.stairs(100 * counts / counts.sum(), edges, fill=True, color=colour, alpha=alpha)
        panel.axvline(limit, color=INK, lw=1, ls="--")
        panel.set_title(name if len(name) <= 22 else f"{name[:21]}…", fontsize=8)
        panel.set_xlim(0, edges[-1])
        panel.tick_params(labelsize=7)
        panel.locator_params(nbins=4)
    for panel in panels[len(classes) :]:
        panel.set_axis_off()
    panels[0].set_ylabel("%", fontsize=8)
    with _missing_glyphs():
        figure.tight_layout(pad=0.6)
    return figure


def _legend_above(axes: Any) -> None:
    axes.legend(ncols=3, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def _class_axis(axes: Any, names: Sequence[str]) -> None:
    if len(names) <= _MAX_LABELS:
        crowded = len(names) > 12 or max(map(len, names)) > 8
        names = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…" for name in names]
        axes.set_xticks(range(len(names)), names, rotation=60 if crowded else 0, ha="right" if crowded else "center")
    else:
        axes.set_xlabel("classes, most frequent first")
    axes.grid(axis="x", visible=False)
