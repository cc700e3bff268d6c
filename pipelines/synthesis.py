"""Make images of the rare classes: plan, train the generator, generate, judge, and write an image folder.

images/<class>/*.png      kept images, for any tool that reads class folders
candidates/<class>/*.png  everything that was made
manifest.jsonl, .csv      how each was made, and its verdict with the reason
contact_sheets/*.png      real, kept and rejected images of each class
generator/                the trained model
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.class_conditional import ClassConditionalDiffusion, is_grey
from generators.class_conditional_training import train_class_conditional
from generators.image_files import folder_name
from generators.manifest import KEPT, REJECTED, Row, write_manifest
from generators.plan import plan_jobs
from pipelines.candidates import make_and_judge
from pipelines.config import SynthesizeConfig, TrainConfig
from pipelines.config_groups import ObjectiveConfig, OptimizationConfig, PlaceConfig
from pipelines.console import log, print_table, progress_bar
from pipelines.contact_sheets import write_contact_sheets
from pipelines.judging import Judge, resize
from pipelines.loading import image_size, load_splits
from pipelines.model_files import TrainedClassifier, load_model
from pipelines.open_data import OpenData, open_data
from pipelines.runs import RunFolder, slug
from pipelines.session import Session, start_session, wrap
from pipelines.synthesis_plan import SynthesisPlan, estimate_minutes, plan_synthesis, show_plan
from pipelines.training import train_in
from rebalance.counts import check_counts
from rebalance.data.table import ImageTable
from rebalance.errors import InputError
from rebalance.files import check_free_space, read_json, write_json
from rebalance.ranks import barrier, broadcast, is_main


@dataclass(frozen=True)
class SynthesisResult:
    """A finished synthesis.

    Args:
        folder: Its folder.
        summary: What `metrics.json` holds: by class what was wanted, made, kept, and why others were not.
    """

    folder: Path
    summary: dict[str, Any]


def synthesize(config: SynthesizeConfig, opened: OpenData | None = None) -> SynthesisResult | None:
    """Synthesize as the config says, or go on where an earlier start was interrupted; None for a dry run.

    Args:
        config: What to make.
        opened: The data, if they are open already.

    Raises:
        InputError: Anything wrong with the config, the data or the folder, too long an estimate, or too little disk.
    """
    folder = config.out or Path("runs") / "synthesize" / slug(config.data.data)
    session = start_session(config.device)
    if config.resume and not config.dry_run and (folder / "metrics.json").exists():
        with RunFolder(folder, "synthesize", config):
            log.info("%s is finished already", folder)
            return SynthesisResult(folder, read_json(folder / "metrics.json"))
    splits = opened.splits if opened is not None else load_splits(config.data)
    check_counts(splits.train.counts, splits.classes)
    size = opened.size if opened is not None else image_size(config.data, splits.train)
    plan = plan_synthesis(config, splits.train, size, session.device)
    begun = config.resume and (folder / "config.yaml").exists()
    if config.dry_run or not begun:
        _check_cost(config, plan, session, folder)
    if config.dry_run:
        return None
    opened = opened if opened is not None else open_data(config.data, session.device, splits)
    with RunFolder(folder, "synthesize", config, resume=config.resume):
        return SynthesisResult(folder, _work(config, plan, opened, session, folder))


def _check_cost(config: SynthesizeConfig, plan: SynthesisPlan, session: Session, folder: Path) -> None:
    minutes = broadcast(estimate_minutes(plan, session.device))
    show_plan(plan, minutes)
    if config.dry_run:
        return
    check_free_space(folder, plan.megabytes * 1e6, "the plan")
    if sum(minutes) > config.max_minutes:
        raise InputError(
            f"a plan of at most {config.max_minutes:g} minutes (--max-minutes)",
            f"about {sum(minutes):.0f} minutes: {minutes[0]:.0f} to train the generator, {minutes[1]:.0f} to sample",
            "lower --generator-updates, --generator-batch-size or --max-images, or raise --max-minutes",
        )


def _work(
    config: SynthesizeConfig, plan: SynthesisPlan, opened: OpenData, session: Session, folder: Path
) -> dict[str, Any]:
    table = opened.train.table
    pixels = _real_pixels(opened, plan.network.image_size)
    generator = _trained_generator(plan, pixels, table, session, folder, config.amp)
    model = _feature_model(config, opened, session, folder)
    judge = Judge(model, pixels, table, config.filter, folder) if is_main() else None
    settings = {"steps": plan.steps, "guidance": plan.guidance, "batch_size": plan.sampling_batch, "amp": config.amp}
    jobs = plan_jobs(
        generator.fingerprint, plan.classes, plan.budget, reserve=plan.reserve, seed=config.seed, settings=settings
    )
    rows = make_and_judge(folder, jobs, plan.budget.tolist(), generator, judge)
    if is_main():
        write_manifest(folder, rows)
        _write_image_folder(folder, rows)
        write_contact_sheets(folder, rows, table, pixels)
        write_json(folder / "metrics.json", _summary(plan, rows, generator.fingerprint))
    barrier()
    summary: dict[str, Any] = read_json(folder / "metrics.json")
    return summary


def _real_pixels(opened: OpenData, size: int) -> Tensor:
    """Real training images (N, 3, size, size) uint8, on the CPU."""
    rows = np.arange(len(opened.train.table), dtype=np.int64)
    parts = opened.train.store.batches(np.array_split(rows, max(1, len(rows) // 1024)))
    images = torch.cat([part.cpu() for part in parts])
    return images if images.shape[-1] == size else torch.cat([resize(part, size) for part in torch.split(images, 1024)])


def _trained_generator(
    plan: SynthesisPlan, pixels: Tensor, table: ImageTable, session: Session, folder: Path, amp: str
) -> ClassConditionalDiffusion:
    place = folder / "generator"
    if not (place / "unet.safetensors").exists():
        with progress_bar(plan.training.updates, "training the generator", "updates") as bar:

            def report(n: int, loss: float) -> None:
                bar.update(n)
                if loss == loss:
                    bar.note(f"loss {loss:.3f}")

            network = replace(plan.network, n_colours=1 if is_grey(pixels) else 3)
            unet = train_class_conditional(
                pixels.to(session.device),
                torch.from_numpy(table.targets),
                network,
                plan.training,
                checkpoints=place / "checkpoints",
                wrap=lambda module: wrap(session, module),
                backward=session.accelerator.backward,
                progress=report,
            )
        if is_main():
            ClassConditionalDiffusion(unet, network).save(place)
            shutil.rmtree(place / "checkpoints")
        barrier()
    generator = ClassConditionalDiffusion.load(place, batch_size=plan.sampling_batch, amp=amp)
    return generator.to(session.device)


def _feature_model(config: SynthesizeConfig, opened: OpenData, session: Session, folder: Path) -> TrainedClassifier:
    """The classifier whose features the gates use: the given run's, or one trained on the real images."""
    run = config.filter.features
    if run is None:
        run = folder / "features"
        training = TrainConfig(
            data=config.data,
            model=config.model,
            objective=ObjectiveConfig(method="balanced_softmax"),
            optimization=OptimizationConfig(updates=config.filter.feature_updates),
            seed=config.seed,
            place=PlaceConfig(device=config.device, report_to="none"),
        )
        train_in(run, training, replace(opened, tables={"train": opened.train}))
    model = load_model(run)
    if model.classes != opened.classes:
        raise InputError("a features run with the classes of the data", f"{run} with others", "train it on these data")
    return model.to(session.device)


def _write_image_folder(folder: Path, rows: Sequence[Row]) -> None:
    """`images/<class>/`: the kept images, by hard link where the file system has them; rebuilt whole."""
    building, target = folder / ".images.tmp", folder / "images"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    for row in rows:
        if row["verdict"] != KEPT:
            continue
        place = building / folder_name(row["class"])
        place.mkdir(exist_ok=True)
        try:
            os.link(folder / row["path"], place / Path(row["path"]).name)
        except OSError:
            shutil.copyfile(folder / row["path"], place / Path(row["path"]).name)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def _summary(plan: SynthesisPlan, rows: Sequence[Row], fingerprint: str) -> dict[str, Any]:
    classes = []
    for label, name in enumerate(plan.classes):
        own = [row for row in rows if row["class"] == name]
        reasons = Counter(row["reason"] for row in own if row["verdict"] == REJECTED)
        classes.append(
            {
                "class": name,
                "real": int(plan.counts[label]),
                "wanted": int(plan.budget[label]),
                "made": len(own),
                "kept": sum(row["verdict"] == KEPT for row in own),
                "rejected": dict(sorted(reasons.items())),
                "limit": own[0]["scores"]["limit"] if own else None,
            }
        )
    return {
        "generator": fingerprint,
        "image_size": plan.network.image_size,
        "wanted": int(plan.budget.sum()),
        "made": len(rows),
        "kept": sum(row["verdict"] == KEPT for row in rows),
        "classes": classes,
    }


def synthesize_command(config: SynthesizeConfig) -> None:
    """`rebalance synthesize`: synthesize, then say by class what became of the candidates."""
    result = synthesize(config)
    if result is None:
        return
    rows = []
    for entry in result.summary["classes"]:
        if entry["wanted"]:
            reasons = ", ".join(f"{n} {reason}" for reason, n in entry["rejected"].items())
            short = entry["wanted"] - entry["kept"]
            numbers = [str(entry[key]) for key in ("real", "wanted", "made", "kept")]
            rows.append([entry["class"], *numbers, f"{short} short" if short else "", reasons])
    print_table("synthesized images", ["class", "real", "wanted", "made", "kept", "", "rejected"], rows)
    log.info("image folder: %s", result.folder / "images")
