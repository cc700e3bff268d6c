"""`Judge`: from files and rows to verdicts, and what is reported of the quality of what was kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from generators.manifest import Row
from pipelines import FilterConfig
from pipelines.contact_sheets import write_contact_sheets
from pipelines.judging import Judge
from pipelines.loading import DecodedTable
from pipelines.model_files import ModelDescription, TrainedClassifier, build_classifier
from pipelines.synthesis_quality import measure_quality
from rebalance.data.store import ResidentStore
from rebalance.data.table import ImageTable

CLASSES = ("cat", "dog", "eel")
COUNTS = (30, 8, 1)
SIZE = 40


def pictures(n: int, seed: int, size: int = SIZE) -> Tensor:
    """Smooth pictures (N, 3, S, S) uint8, no two alike."""
    coarse = torch.rand(n, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    return (smooth * 255).clamp(0, 255).byte()


@pytest.fixture(scope="module")
def model() -> TrainedClassifier:
    torch.manual_seed(0)
    description = ModelDescription(
        "small_cnn", "small", "linear", 1.0, 16, (0.5,) * 3, (0.25,) * 3, CLASSES, train_counts=COUNTS
    )
    return TrainedClassifier(build_classifier(description), description)


def table(size: int = SIZE) -> tuple[ImageTable, Tensor]:
    pixels = pictures(sum(COUNTS), seed=1, size=size)
    targets = np.repeat(np.arange(3), COUNTS)
    return ImageTable(pixels.permute(0, 2, 3, 1).numpy(), targets, CLASSES), pixels


Write = Callable[[Tensor | list[Tensor]], list[Row]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Images (3, S, S) uint8 → rows of candidates with files."""

    def make(images: Tensor | list[Tensor]) -> list[Row]:
        rows: list[Row] = []
        for i, image in enumerate(images):
            name = f"{i}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name)
            digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            rows.append({"job": f"job-{i}", "class": "dog", "label": 1, "index": i, "path": name, "sha256": digest})
        return rows

    return make


def judge(model: TrainedClassifier, folder: Path, size: int = SIZE, **gates: Any) -> Judge:
    real, pixels = table(size)
    return Judge(model, pixels, real, FilterConfig(**{"skip_gate": ("distance", "third-class"), **gates}), folder)


def test_every_kind_of_failure_is_its_own_reason(model: TrainedClassifier, write: Write, tmp_path: Path) -> None:
    rows = write(pictures(5, seed=2))
    rows[0] |= {"path": None, "failure": "safety checker"}
    rows[1] |= {"path": None, "failure": "not finite"}
    rows[2] |= {"path": None}
    (tmp_path / "3.png").write_bytes(b"no image")
    found = judge(model, tmp_path)(1, rows, 9, final=True)
    assert found.reason == ["safety checker", "not finite", "not finite", "not decodable", ""]
    assert found.verdict == ["rejected"] * 4 + ["kept"]


def test_copies_of_training_images_of_any_class_are_found(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    _, pixels = table()
    cat = pixels[0]
    changed = (cat.float() * 0.9 + 8).byte()
    rows = write([cat, changed, changed.flip(2), pictures(1, seed=3)[0]])
    found = judge(model, tmp_path)(1, rows, 9, final=True)
    near = "near-duplicate of a training image"
    assert found.reason == ["duplicate of a training image", near, near, ""]
    skipped = judge(model, tmp_path, skip_gate=("duplicate", "hash", "copy", "distance", "third-class"))
    assert skipped(1, rows, 9, final=True).reason == ["", "", "", ""]
    dog = write([pixels[30].flip(2)])
    skipped = judge(model, tmp_path, skip_gate=("hash", "distance", "third-class"))
    assert skipped(1, [{**dog[0], "job": "new"}], 9, final=True).reason == ["copy of a training image"]


def test_perceptual_hashes_are_not_compared_below_32_px(model: TrainedClassifier, write: Write, tmp_path: Path) -> None:
    _, pixels = table(size=16)
    rows = write([(pixels[0].float() * 0.8 + 20).byte()])
    small = judge(model, tmp_path, size=16)
    assert small.hash_limit == -1
    found = small(1, rows, 1, final=True)
    assert found.reason == [""]
    assert "hash_distance" not in found.scores(0)


def test_candidates_of_another_size_are_brought_to_the_judges(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    _, pixels = table()
    larger = torch.nn.functional.interpolate(pixels[30:32].float(), size=96, mode="bicubic", align_corners=False)
    rows = write([larger[0].clamp(0, 255).byte(), pictures(1, seed=5, size=96)[0]])
    found = judge(model, tmp_path)(1, rows, 9, final=True)
    assert found.reason == ["near-duplicate of a training image", ""]


def test_a_class_the_classifier_is_sure_of_is_a_reason_unless_it_is_the_usual_confusion(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    rows = write(pictures(6, seed=2))
    given = judge(model, tmp_path, skip_gate=("distance",))
    head = given.model.classifier.head
    usual = int(given._usual[1])
    third = next(c for c in range(3) if c not in (1, usual))
    before = head.bias.detach().clone()
    try:
        for named, reason in ((third, "looks like a third class"), (usual, ""), (1, "")):
            with torch.no_grad():
                head.bias.copy_(before)
                head.bias[named] += 30
            given._seen.clear()
            found = given(1, rows, 9, final=True)
            assert set(found.reason) == {reason}, named
            assert found.n_kept == (0 if reason else 6)
    finally:
        head.bias.data.copy_(before)


def test_the_usual_confusion_is_of_a_class_s_own_images(model: TrainedClassifier, tmp_path: Path) -> None:
    given = judge(model, tmp_path)
    real, pixels = table()
    shares = given._look_at_real(pixels, torch.from_numpy(real.targets))[1]
    probabilities = given._classify(pixels)[0].double().softmax(dim=1)
    expected = torch.stack([probabilities[torch.from_numpy(real.targets == c)].mean(dim=0) for c in range(3)])
    torch.testing.assert_close(shares, expected)
    assert not torch.allclose(shares[0], shares[1], atol=1e-4)


def test_clip_holds_candidates_to_what_real_images_score(
    model: TrainedClassifier, write: Write, tmp_path: Path, tiny_clip: Path
) -> None:
    rows = write(pictures(12, seed=2))
    given = judge(model, tmp_path, clip=tiny_clip, text_quantile=0.5)
    assert given.agreement_limits is not None
    found = given(1, rows, 12, final=True)
    scores = np.array(found.more["agreement"])
    expected = ["" if score >= given.agreement_limits[1] else "does not fit its class name" for score in scores]
    assert found.reason == expected
    assert 0 < found.n_kept < 12
    without = judge(model, tmp_path)(1, rows, 12, final=True)
    assert "agreement" not in without.scores(0)


def test_clip_reads_class_names_as_words_or_as_they_are_called(model: TrainedClassifier, tiny_clip: Path) -> None:
    real, pixels = table()
    folders = replace(real, classes=("001.black_cat", "n02084071", "eel"))
    given = Judge(model, pixels, folders, FilterConfig(clip=tiny_clip), Path(), {"n02084071": "dog", "n1": "other"})
    assert given.clip is not None
    torch.testing.assert_close(given._texts, given.clip.classes(["black cat", "dog", "eel"]))


def test_distances_may_be_taken_in_clips_features(
    model: TrainedClassifier, write: Write, tmp_path: Path, tiny_clip: Path
) -> None:
    rows = write(pictures(3, seed=2))
    by_classifier = judge(model, tmp_path, clip=tiny_clip)(1, rows, 3, final=True)
    by_clip = judge(model, tmp_path, clip=tiny_clip, distance_in="clip")(1, rows, 3, final=True)
    assert by_classifier.distance != by_clip.distance


def test_verdicts_do_not_depend_on_what_was_judged_before(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    rows = write(pictures(9, seed=2))
    whole = judge(model, tmp_path)(1, rows, 5, final=True)
    given = judge(model, tmp_path)
    given(1, rows[:4], 5, final=False)
    assert given(1, rows, 5, final=True).verdict == whole.verdict


# Quality


def judged(model: TrainedClassifier, images: Tensor, write: Write, folder: Path) -> tuple[Judge, list[Row]]:
    given, rows = judge(model, folder), write(images)
    found = given(1, rows, 6, final=True)
    return given, [
        {**row, "verdict": found.verdict[i], "reason": found.reason[i], "scores": found.scores(i)}
        for i, row in enumerate(rows)
    ]


def test_quality_is_told_by_class_and_group(model: TrainedClassifier, write: Write, tmp_path: Path) -> None:
    given, rows = judged(model, torch.cat([pictures(8, seed=2), table()[1][:1]]), write, tmp_path)
    quality = measure_quality(given, rows, table()[0])
    (entry,) = quality["classes"]
    assert (entry["class"], entry["group"], entry["made"], entry["kept"]) == ("dog", "few", 9, 6)
    assert entry["acceptance"] == pytest.approx(8 / 9)  # spare ones passed
    assert quality["groups"]["few"]["kid"] == quality["groups"]["all"]["kid"] == entry["kid"]
    assert quality["groups"]["many"]["classes"] == 0
    assert quality["groups"]["many"]["kid"] is None
    assert sum(entry["histogram"]["kept"]) == 6
    assert sum(entry["histogram"]["real"]) == 8
    assert quality["test"] is None
    json.dumps(quality, allow_nan=False)


def test_with_clip_quality_is_measured_in_its_features(
    model: TrainedClassifier, write: Write, tmp_path: Path, tiny_clip: Path
) -> None:
    images = pictures(8, seed=2)
    _, rows = judged(model, images, write, tmp_path)
    with_clip = judge(model, tmp_path, clip=tiny_clip)
    found = measure_quality(with_clip, rows, table()[0])
    assert found["space"] == "CLIP"
    assert found["gates"]["text"]
    assert found["classes"][0]["kid"] != measure_quality(judge(model, tmp_path), rows, table()[0])["classes"][0]["kid"]


def test_a_class_of_one_real_image_has_no_figures_but_does_not_fail(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    given, rows = judged(model, pictures(4, seed=2), write, tmp_path)
    eels = [{**row, "class": "eel", "label": 2, "job": row["job"] + "e"} for row in rows]
    (entry,) = measure_quality(given, eels, table()[0])["classes"]
    assert entry["kid"] is entry["precision"] is entry["coverage"] is entry["diversity_real"] is None
    assert entry["diversity"] > 0


def test_near_duplicates_of_test_images_are_counted_and_change_no_verdict(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    images = pictures(6, seed=2)
    given, rows = judged(model, images, write, tmp_path)
    changed = (images[2].float() * 0.9 + 8).byte()
    seen = torch.stack([images[0], changed, pictures(1, seed=7)[0], table()[1][0]])
    targets = np.array([0, 2, 1, 0])
    test = DecodedTable(ImageTable(seen.permute(0, 2, 3, 1).numpy(), targets, CLASSES), ResidentStore(seen))
    before = [row["verdict"] for row in rows]
    found = measure_quality(given, rows, table()[0], test)["test"]
    assert (found["images"], found["kept"], found["near"], found["real_near"]) == (4, 6, 2, 1)
    assert [(pair["job"], pair["test"]) for pair in found["pairs"]] == [("job-0", "image 0"), ("job-2", "image 1")]
    assert [row["verdict"] for row in rows] == before == ["kept"] * 6


def test_contact_sheets_show_kept_images_beside_their_nearest_real_one(
    model: TrainedClassifier, write: Write, tmp_path: Path
) -> None:
    real, pixels = table()
    noisy = (pixels[30:38].int() + 30).clamp(0, 255).byte()
    given = judge(model, tmp_path, skip_gate=("distance", "third-class", "copy", "hash"))
    rows = write(noisy)
    found = given(1, rows, 8, final=True)
    assert found.nearest_real == list(range(8))
    judged_rows = [
        {**row, "verdict": found.verdict[i], "reason": "", "scores": found.scores(i)} for i, row in enumerate(rows)
    ]
    write_contact_sheets(tmp_path, judged_rows, real, pixels)
    with Image.open(tmp_path / "contact_sheets" / "dog.png") as sheet:
        with_pairs = sheet.height
    write_contact_sheets(tmp_path, [{**row, "verdict": "spare"} for row in judged_rows], real, pixels)
    with Image.open(tmp_path / "contact_sheets" / "dog.png") as sheet:
        assert with_pairs > sheet.height + 2 * 72
