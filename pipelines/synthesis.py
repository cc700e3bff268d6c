"""Make images of the rare classes: plan, train the generator, generate, judge, and write an image folder.

images/<class>/*.png      kept images, for any tool that reads class folders; or
shards/*.tar              the same as WebDataset shards
candidates/<class>/*.png  everything that was made
manifest.jsonl, .csv      how each was made, and its verdict with the reason
contact_sheets/*.png      real, kept and rejected images of each class
generator/                the trained model or adapter
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from generators.base import ImageGenerator
from generators.class_names import read_names
from generators.image_files import folder_name
from generators.manifest import KEPT, REJECTED, Row, rows_by_class, write_manifest
from generators.shards import write_shards
from pipelines.candidates import make_and_judge
from pipelines.checked_settings import check_config
from pipelines.config import SynthesizeConfig, TrainConfig
from pipelines.config_groups import ObjectiveConfig, OptimizationConfig, PlaceConfig
from pipelines.console import log, print_table
from pipelines.contact_sheets import write_contact_sheets
from pipelines.data_flags import check_data
from pipelines.generator_config import ImageFilesConfig
from pipelines.generator_flags import check_generator
from pipelines.generator_plan import Workshop
from pipelines.judging import Judge, check_gates, warn_of_feature_updates
from pipelines.kernels import kernels
from pipelines.model_files import TrainedClassifier, load_model, weights_of
from pipelines.open_data import OpenData, open_data
from pipelines.ranges import refuse_below
from pipelines.results import claim_data
from pipelines.runs import RunFolder, slug
from pipelines.session import Session, start_session
from pipelines.synthesis_plan import Minutes, SynthesisPlan, check_cost, plan_synthesis, show_plan
from pipelines.synthesis_quality import add_quality
from pipelines.training import train_in
from pipelines.training_time import training_minutes
from rebalance.data.resizing import resize_images
from rebalance.errors import InputError
from rebalance.files import read_json, write_json
from rebalance.ranks import barrier, broadcast, is_main


@dataclass(frozen=True)
class SynthesisResult:
    """A finished synthesis.

    Args:
        folder: Its folder.
        summary: What `metrics.json` holds: by class what was wanted, made, kept, and why others were not.
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)


def synthesize(
    config: SynthesizeConfig, opened: OpenData | None = None, *, checked: bool = False
) -> SynthesisResult | None:
    """Synthesize as the config says, or go on where an earlier start was interrupted; None for a dry run.

    Args:
        config: What to make.
        opened: The data, if they are open already.
        checked: The plan was shown and its cost found to be bearable, see `check_synthesis`.

    Raises:
        InputError: Anything wrong with the config, the data or the folder, too long an estimate, or too little disk.
    """
    check_config(config, SynthesizeConfig)
    check_data(config.data)
    refuse_below(0, {"--max-minutes": config.max_minutes})
    folder = config.out or Path("runs") / "synthesize" / slug(config.data.data)
    session = start_session(config.device, patient=True)
    if config.resume and not config.dry_run and (folder / "metrics.json").exists():
        opened = open_data(config.data, session.device) if opened is None else opened
        with RunFolder(folder, "synthesize", config) as run:
            _claim(run, opened, None)
            log.info("%s is finished already", folder)
            return SynthesisResult(folder, read_json(folder / "metrics.json"))
    check_generator(config)
    check_gates(config.filter)
    if config.filter.features is not None and not checked:
        warn_of_feature_updates(config.filter, config.filter.features)
        weights_of(config.filter.features)
    opened = open_data(config.data, session.device) if opened is None else opened
    plan = plan_synthesis(config, opened.train.table, opened.size, session.device)
    begun = config.resume and (folder / "config.yaml").exists()
    if config.dry_run or not (begun or checked):
        _show_and_check(config, plan, opened, folder)
    if config.dry_run:
        return None
    chosen = kernels(deterministic=config.deterministic, timed=False)  # a resumed synthesis makes the same images
    with RunFolder(folder, "synthesize", config, resume=config.resume) as run, chosen:
        _claim(run, opened, session.device)
        return SynthesisResult(folder, _work(config, plan, opened, session, folder))


def _claim(run: RunFolder, opened: OpenData, device: torch.device | None) -> None:
    """Go on with the data and, unless it is finished, on the kind of device that a synthesis was begun with."""
    file = run / "classes.json"
    begun: dict[str, Any] = {} if device is None else {"device": device.type}
    if file.exists():
        begun = read_json(file)
    if device is not None and begun.get("device", device.type) != device.type:
        raise InputError(
            f"the kind of device that {run.path} was begun on, {begun['device']}, which its images depend on",
            device.type,
            "go on there, or make the images in another folder",
        )
    claim_data(run, opened, **{name: begun[name] for name in ("device",) if name in begun})


def check_synthesis(config: SynthesizeConfig, opened: OpenData) -> Minutes:
    """Show the plan of a synthesis, and refuse one that costs too much; nothing is written.

    Returns:
        Minutes that its parts will take, about.

    Raises:
        InputError: Anything wrong with the config, too long an estimate, or too little disk.
    """
    plan = plan_synthesis(config, opened.train.table, opened.size, start_session(config.device).device)
    return _show_and_check(config, plan, opened, config.out or Path("runs"))


def _show_and_check(config: SynthesizeConfig, plan: SynthesisPlan, opened: OpenData, folder: Path) -> Minutes:
    features, own = 0.0, folder / "features"
    if config.filter.features is None and not (config.resume and (own / "metrics.json").exists()):
        device = start_session(config.device).device
        features = training_minutes(features_config(config), _train_split(opened), device, own)
    minutes = Minutes(features, *broadcast(plan.generator.estimate_minutes(plan.expected_candidates)))
    show_plan(plan, minutes)
    try:
        check_cost(config, plan, minutes, folder)
    except InputError as error:
        if not config.dry_run:
            raise
        lines = f"expected {error.expected}\n  got {error.got}\n  {error.fix}"
        log.warning("without --dry-run this is refused:\n  %s", lines)
    return minutes


def _work(
    config: SynthesizeConfig, plan: SynthesisPlan, opened: OpenData, session: Session, folder: Path
) -> dict[str, Any]:
    table = opened.train.table
    workshop = Workshop(opened, session, folder / "generator")
    generator = plan.generator.make(workshop)
    jobs = plan.generator.jobs(generator, table, plan.amount)
    model = _feature_model(config, opened, session, folder)
    given = config.stable_diffusion.class_names
    names = None if given is None else read_names(given)
    judge = None
    if is_main():
        pixels = resize_images(workshop.pixels(), min(plan.generator.image_size, opened.size))
        judge = Judge(model, pixels, table, config.filter, folder, names)
    rows = make_and_judge(folder, jobs, plan.budget.tolist(), generator, judge, config.files, config.data.workers)
    if judge is not None:
        write_manifest(folder, rows)
        _write_images(folder, rows, config.files, plan.classes)
        write_contact_sheets(folder, rows, table, pixels)
        write_json(folder / "metrics.json", add_quality(_summary(plan, rows, generator), judge, rows, opened))
    barrier()
    summary: dict[str, Any] = read_json(folder / "metrics.json")
    for text in summary["warnings"] if is_main() else ():
        log.warning("%s", text)
    return summary


def features_config(config: SynthesizeConfig) -> TrainConfig:
    """The training of the classifier whose features the gates use."""
    return TrainConfig(
        data=config.data,
        model=config.model,
        objective=ObjectiveConfig(method="balanced_softmax"),
        optimization=OptimizationConfig(updates=config.filter.feature_updates),
        seed=config.seed,
        place=PlaceConfig(device=config.device, report_to="none"),
    )


def _train_split(opened: OpenData) -> OpenData:
    return replace(opened, tables={"train": opened.train})


def _feature_model(config: SynthesizeConfig, opened: OpenData, session: Session, folder: Path) -> TrainedClassifier:
    """The classifier whose features the gates use: the given run's, or one trained on the real images."""
    run = config.filter.features
    if run is None:
        run = folder / "features"
        train_in(run, features_config(config), _train_split(opened))
    model = load_model(run)
    if model.classes != opened.classes:
        raise InputError("a features run with the classes of the data", f"{run} with others", "train it on these data")
    return model.to(session.device)


def _write_images(folder: Path, rows: Sequence[Row], files: ImageFilesConfig, classes: Sequence[str]) -> None:
    """The kept images, as `shards/*.tar` or as `images/<class>/`."""
    kept = [row for row in rows if row["verdict"] == KEPT]
    if files.shards:
        write_shards(folder / "shards", kept, folder, classes, files.shard_images)
    else:
        _write_image_folder(folder, kept)


def _write_image_folder(folder: Path, kept: Sequence[Row]) -> None:
    """`images/<class>/`: by hard link where the file system has them; rebuilt whole."""
    building, target = folder / ".images.tmp", folder / "images"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    for row in kept:
        place = building / folder_name(row["class"])
        place.mkdir(exist_ok=True)
        try:
            os.link(folder / row["path"], place / Path(row["path"]).name)
        except OSError:
            shutil.copyfile(folder / row["path"], place / Path(row["path"]).name)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def _summary(plan: SynthesisPlan, rows: Sequence[Row], generator: ImageGenerator) -> dict[str, Any]:
    classes = []
    for label, (name, own) in enumerate(rows_by_class(rows, plan.classes).items()):
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
        "generator": generator.fingerprint,
        "made_by": generator.facts,
        "image_size": plan.generator.image_size,
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
            notes = [f"{short} short"] * (short > 0) + ["gate loosened"] * entry["loosened"]
            rows.append([entry["class"], *numbers, ", ".join(notes), reasons])
    print_table("synthesized images", ["class", "real", "wanted", "made", "kept", "note", "rejected"], rows)
    log.info("images: %s", result.folder / ("shards" if config.files.shards else "images"))
