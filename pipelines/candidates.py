"""Make the candidates of a synthesis and judge them: in rounds, until every class has its images or no spare ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from generators.base import ImageGenerator, Job
from generators.filters import Verdicts
from generators.image_files import folder_name, to_pixels, write_png
from generators.manifest import Journal, Row, read_journals
from pipelines.console import log, progress_bar
from pipelines.judging import Judge
from rebalance.ranks import barrier, broadcast, is_main, rank, world_size

_PER_WRITE = 512


def make_and_judge(
    folder: Path, plan: Sequence[Sequence[Job]], budget: Sequence[int], generator: ImageGenerator, judge: Judge | None
) -> list[Row]:
    """All candidates that were made, with their verdicts.

    Candidates that are on disk are not made again. After each round the classes that are short get as many of their
    spare candidates as their acceptance so far calls for.

    Args:
        folder: Of the synthesis.
        plan: Jobs of each class.
        budget: Wanted images of each class.
        generator: Makes the images.
        judge: On rank 0; the other ranks make images and get no rows.
    """
    tried = [min(n, len(jobs)) for n, jobs in zip(budget, plan, strict=True)]
    while True:
        rows = _make(folder, [job for jobs, n in zip(plan, tried, strict=True) for job in jobs[:n]], generator)
        judged: list[Row] = []
        wanted: list[int] = []
        if judge is not None:
            for label, jobs in enumerate(plan):
                made = [rows[job.id] for job in jobs[: tried[label]]]
                final = tried[label] == len(jobs)
                verdicts = judge(label, made, budget[label], final=final) if made else None
                wanted.append(_next_round(verdicts, tried[label], budget[label], len(jobs)))
                judged += _with_verdicts(made, verdicts)
        wanted = broadcast(wanted)
        if wanted == tried:
            return judged
        if is_main():
            log.info("the gates leave some classes short; trying %d spare candidates", sum(wanted) - sum(tried))
        tried = wanted


def _next_round(verdicts: Verdicts | None, tried: int, budget: int, planned: int) -> int:
    """How many candidates of a class the next round has, those of the rounds before it included."""
    if verdicts is None:
        return tried
    acceptance = max(verdicts.n_kept / tried, 0.2)
    return min(tried + math.ceil((budget - verdicts.n_kept) / acceptance), planned)


def _make(folder: Path, jobs: Sequence[Job], generator: ImageGenerator) -> dict[str, Row]:
    """Make the images of `jobs` that are not on disk yet, this rank's share of them; job id → row, for all."""
    journals = folder / "journals"
    made = read_journals(journals, folder)
    barrier()
    missing = [job for job in jobs if job.id not in made][rank() :: world_size()]
    if missing:
        bar = progress_bar(len(missing), "generating", "images")
        with Journal(journals / f"rank-{rank()}.jsonl") as journal, bar as progress:
            for start in range(0, len(missing), _PER_WRITE):
                part = missing[start : start + _PER_WRITE]
                images = generator.generate(part)
                journal.append(_write(folder, job, image) for job, image in zip(part, images, strict=True))
                progress.update(len(part))
    barrier()
    return read_journals(journals, folder)


def _write(folder: Path, job: Job, image: Tensor) -> Row:
    path, digest = None, None
    if torch.isfinite(image).all():
        path = f"candidates/{folder_name(job.class_name)}/{job.index:06d}.png"
        digest = hashlib.sha256(write_png(folder / path, to_pixels(image), job.id)).hexdigest()
    return {
        "job": job.id,
        "class": job.class_name,
        "label": job.label,
        "index": job.index,
        "seed": job.seed,
        "generator": job.generator,
        "path": path,
        "sha256": digest,
        **job.settings,
    }


def _with_verdicts(rows: Sequence[Row], verdicts: Verdicts | None) -> list[Row]:
    if verdicts is None:
        return []
    return [
        {
            **row,
            "verdict": verdicts.verdict[i],
            "reason": verdicts.reason[i],
            "scores": {
                "distance": round(verdicts.distance[i], 6),
                "limit": round(verdicts.limit, 6),
                "copy_distance": round(verdicts.copy_distance[i], 6),
                "nearest_real": verdicts.nearest_real[i],
            },
        }
        for i, row in enumerate(rows)
    ]
