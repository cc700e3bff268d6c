"""Make the candidates of a synthesis and judge them: in rounds, until every class has its images or no spare ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from generators.base import ImageGenerator, Job
from generators.filters import Verdicts
from generators.image_files import SUFFIXES, ImageKind, folder_name, to_pixels, write_image
from generators.manifest import Journal, Row, read_journals
from pipelines.console import log, progress_bar
from pipelines.generator_config import ImageFilesConfig
from pipelines.image_writers import ImageWriters
from pipelines.judging import Judge
from rebalance.errors import RunError
from rebalance.ranks import barrier, broadcast, is_main, rank, world_size


def make_and_judge(
    folder: Path,
    plan: Sequence[Sequence[Job]],
    budget: Sequence[int],
    generator: ImageGenerator,
    judge: Judge | None,
    files: ImageFilesConfig,
    threads: int,
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
        files: How images are written.
        threads: That write them.

    Raises:
        RunError: The images take more room than allowed, or cannot be written.
    """
    tried = [min(n, len(jobs)) for n, jobs in zip(budget, plan, strict=True)]
    rows: dict[str, Row] = {}
    while True:
        jobs = [job for own, n in zip(plan, tried, strict=True) for job in own[:n]]
        rows = _make(folder, jobs, generator, rows, files, threads)
        judged: list[Row] = []
        wanted: list[int] = []
        n_kept = 0
        if judge is not None:
            for label, own in enumerate(plan):
                made = [rows[job.id] for job in own[: tried[label]]]
                final = tried[label] == len(own)
                verdicts = judge(label, made, budget[label], final=final) if made else None
                wanted.append(_next_round(verdicts, tried[label], budget[label], len(own)))
                judged += _with_verdicts(made, verdicts)
                n_kept += 0 if verdicts is None else verdicts.n_kept
        wanted = broadcast(wanted)
        if wanted == tried:
            return judged
        if is_main():
            log.info(
                "%d of %d candidates pass; some classes are short: trying %d spare ones",
                n_kept,
                sum(tried),
                sum(wanted) - sum(tried),
            )
        tried = wanted


def _next_round(verdicts: Verdicts | None, tried: int, budget: int, planned: int) -> int:
    """How many candidates of a class the next round has, those of the rounds before it included."""
    if verdicts is None:
        return tried
    acceptance = max(verdicts.n_kept / tried, 0.2)
    return min(tried + math.ceil((budget - verdicts.n_kept) / acceptance), planned)


def _make(
    folder: Path,
    jobs: Sequence[Job],
    generator: ImageGenerator,
    known: Mapping[str, Row],
    files: ImageFilesConfig,
    threads: int,
) -> dict[str, Row]:
    """Make the images of `jobs` that are not on disk yet, this rank's share of them; job id → row, for all."""
    journals = folder / "journals"
    made = read_journals(journals, folder, known)
    barrier()
    missing = [job for job in jobs if job.id not in made][rank() :: world_size()]
    if missing:
        facts = generator.facts

        def write(job: Job, image: Tensor, failure: str) -> Row:
            return _write(folder, job, image, failure, files.format, facts)

        room = _Room(files.max_gb, made.values())
        generator.prepare(missing)
        with (
            Journal(journals / f"rank-{rank()}.jsonl") as journal,
            progress_bar(len(missing), "generating", "images") as progress,
            ImageWriters(write, journal.append, threads) as writers,
        ):
            for batch in generator.batches(missing):
                room.take(writers.put(batch, generator.generate_checked(batch)))
                progress.update(len(batch))
            room.take(writers.rest())
    barrier()
    return read_journals(journals, folder, made)


class _Room:
    """What the images may take on disk."""

    def __init__(self, max_gb: float | None, rows: Iterable[Row]) -> None:
        self.max_gb = max_gb
        self.used = sum(row["bytes"] for row in rows)

    def take(self, rows: Iterable[Row]) -> None:
        """Count what was written, here and likely on the other ranks too."""
        self.used += sum(row["bytes"] for row in rows) * world_size()
        if self.max_gb is not None and self.used > self.max_gb * 1e9:
            raise RunError(
                f"the images take more than {self.max_gb:g} GB; raise --max-gb and the same command goes on from here"
            )


def _write(folder: Path, job: Job, image: Tensor, failure: str, kind: ImageKind, facts: Mapping[str, Any]) -> Row:
    row: Row = {
        "job": job.id,
        "class": job.class_name,
        "label": job.label,
        "index": job.index,
        "seed": job.seed,
        "generator": job.generator,
        "path": None,
        "sha256": None,
        "bytes": 0,
        "made_by": facts,
        **job.settings,
    }
    if failure:
        return {**row, "failure": failure}
    path = f"candidates/{folder_name(job.class_name)}/{job.index:06d}{SUFFIXES[kind]}"
    content = write_image(folder / path, to_pixels(image), job.id)
    return {**row, "path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _with_verdicts(rows: Sequence[Row], verdicts: Verdicts | None) -> list[Row]:
    if verdicts is None:
        return []
    return [
        {**row, "verdict": verdicts.verdict[i], "reason": verdicts.reason[i], "scores": verdicts.scores(i)}
        for i, row in enumerate(rows)
    ]
