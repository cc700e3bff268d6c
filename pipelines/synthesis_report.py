"""What a report shows of a synthesis: what became of the candidates, and how good the kept ones are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from generators.image_files import folder_name
from pipelines import figures
from rebalance.counts import GROUPS
from rebalance.errors import listed
from rebalance.files import read_json

MAX_SHEETS = 40
"""Contact sheets in a report; of more classes, those with the fewest real images."""
_MAX_ROWS = 200
_COLUMNS = {
    "pass, %": ("acceptance",),
    "KID": ("kid", "kid_made"),
    "precision, %": ("precision",),
    "recall, %": ("recall",),
    "density": ("density",),
    "coverage, %": ("coverage",),
    "diversity": ("diversity", "diversity_real"),
}


@dataclass(frozen=True)
class SynthesisData:
    """A finished synthesis.

    Args:
        summary: What its `metrics.json` holds.
        sheets: Contact sheets, class name and file.
        n_sheets: How many there are in all.
    """

    summary: dict[str, Any]
    sheets: tuple[tuple[str, Path], ...]
    n_sheets: int


def read_synthesis(folder: Path) -> SynthesisData:
    """What a finished synthesis folder holds.

    Raises:
        InputError: A folder without `metrics.json`.
    """
    summary = read_json(folder / "metrics.json")
    entries = sorted(_entries(summary), key=lambda entry: int(entry["real"]))
    files = [(entry["class"], folder / "contact_sheets" / f"{folder_name(entry['class'])}.png") for entry in entries]
    files = [(name, file) for name, file in files if file.is_file()]
    return SynthesisData(summary, tuple(files[:MAX_SHEETS]), len(files))


def synthesis_context(data: SynthesisData) -> dict[str, Any]:
    """What the templates show, as text."""
    summary = data.summary
    entries = _entries(summary)
    return {
        "classes": len(summary["classes"]),
        "real": sum(entry["real"] for entry in summary["classes"]),
        **{name: summary[name] for name in ("kept", "made", "wanted", "image_size")},
        "notes": _notes(summary, len(entries)),
        "verdicts": [_verdict_cells(entry) for entry in entries[:_MAX_ROWS]],
        "quality": _quality(summary["quality"]) if summary.get("quality") else None,
        "sheets_left": f", of {data.n_sheets}; the others are in contact_sheets/"
        if data.n_sheets > len(data.sheets)
        else "",
    }


def distance_figure(data: SynthesisData) -> Figure | None:
    """Histograms of the distances by class; None where nothing was measured."""
    if not data.summary.get("quality"):
        return None
    return figures.distance_histograms([(entry["class"], entry["histogram"], entry["limit"]) for entry in _shown(data)])


def _shown(data: SynthesisData) -> list[dict[str, Any]]:
    """The classes whose distances are drawn: those with the most candidates, in their order."""
    entries = data.summary["quality"]["classes"]
    most = sorted(range(len(entries)), key=lambda i: -int(entries[i]["made"]))[: figures.MAX_PANELS]
    return [entries[i] for i in sorted(most)]


def _entries(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes that images were wanted of."""
    return [entry for entry in summary["classes"] if entry["wanted"]]


def _verdict_cells(entry: Mapping[str, Any]) -> list[str]:
    reasons = [f"{n} {reason}" for reason, n in entry["rejected"].items()]
    if entry.get("loosened"):
        reasons.append("(distance gate loosened)")
    return [entry["class"], *(str(entry[name]) for name in ("real", "wanted", "made", "kept")), ", ".join(reasons)]


def _notes(summary: Mapping[str, Any], n_entries: int) -> list[str]:
    quality = summary.get("quality")
    if not quality:
        return []
    gates = quality["gates"]
    notes: list[str] = list(summary.get("warnings", []))
    if gates["skipped"]:
        notes.append(f"Gates left out: {', '.join(gates['skipped'])}.")
    if gates["hash_limit"] is None:
        notes.append("Perceptual hashes are compared from 32 px up; here pixels alone tell copies.")
    elif gates["hash_limit"] < 0:
        notes.append("Perceptual hashes were not compared: real images of one class have equal ones too often.")
    else:
        notes.append(f"Images whose perceptual hashes differ in at most {gates['hash_limit']} of 64 bits count as one.")
    if not gates["text"]:
        notes.append("Agreement with class names was not judged: no CLIP model was given.")
    loosened = [entry["class"] for entry in quality["classes"] if entry["loosened"]]
    if loosened:
        names = listed(loosened[:10]) + (" and others" if len(loosened) > 10 else "")
        notes.append(f"The distance gate was loosened for {len(loosened)} of {n_entries} classes: {names}.")
    return notes


def _quality(quality: Mapping[str, Any]) -> dict[str, Any]:
    groups = [["all", quality["groups"]["all"]], *([group, quality["groups"][group]] for group in GROUPS)]
    n_classes = len(quality["classes"])
    drawn = f"; the {figures.MAX_PANELS} classes with most candidates" if n_classes > figures.MAX_PANELS else ""
    space = {
        "CLIP": "All in the features of the CLIP model.",
        "classifier": "All in the features of the classifier that the gates use, so they flatter the gates.",
    }
    return {
        "head": ["", "kept", *_COLUMNS],
        "groups": [[name, str(mean["kept"]), *_cells(mean)] for name, mean in groups if mean["classes"]],
        "classes": [[entry["class"], str(entry["kept"]), *_cells(entry)] for entry in quality["classes"][:_MAX_ROWS]],
        "space": space[quality["space"]],
        "shown": drawn,
        "test": _test_words(quality["test"]),
    }


def _cells(entry: Mapping[str, Any]) -> list[str]:
    return [" / ".join(_cell(title, entry[name]) for name in names) for title, names in _COLUMNS.items()]


def _cell(title: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{100 * value:.0f}" if title.endswith("%") else f"{value:.2f}"


def _test_words(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    share = 100 * test["near"] / max(test["kept"], 1)
    real = 100 * test["real_near"] / test["real"]
    return (
        f"{test['near']} of {test['kept']} kept images ({share:.1f} %) are nearly one of the {test['images']} test "
        f"images; of the real training images {test['real_near']} of {test['real']} are ({real:.1f} %). "
        "Reported only: nothing is selected by it."
    )
