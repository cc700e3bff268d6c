from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.filters import FLAT, GATES, LOOSER, Candidates, RealImages, Verdicts, judge
from generators.manifest import KEPT, REJECTED, SPARE

SIZE = 6
AXIS = torch.eye(4)[0]
FAR, TRAIN_COPY, KEPT_COPY = "far from the real images", "copy of a training image", "copy of a kept image"


def feature(distance: float) -> Tensor:
    """A unit vector at that cosine distance from the features of all real images."""
    cosine = 1 - distance
    return torch.tensor([cosine, (1 - cosine**2) ** 0.5, 0.0, 0.0])


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def real(n: int = 5, limit: float = 0.2, last_limit: float = 0.5, copy_limit: float = 0.02) -> RealImages:
    return RealImages(images(n, seed=99), AXIS.expand(n, 4), limit, last_limit, copy_limit)


def candidates(distances: list[float], pixels: Tensor | None = None, failures: list[str] | None = None) -> Candidates:
    return Candidates(
        images(len(distances)) if pixels is None else pixels,
        torch.stack([feature(distance) for distance in distances]),
        [""] * len(distances) if failures is None else failures,
    )


def verdicts(given: Candidates, references: RealImages | None = None, wanted: int = 99, **options: Any) -> Verdicts:
    return judge(given, real() if references is None else references, wanted, **{"floor": 0.0, **options})


# Each gate alone


def test_good_candidates_are_kept_without_a_reason() -> None:
    found = verdicts(candidates([0.0, 0.1, 0.2]))
    assert found.verdict == [KEPT] * 3
    assert found.reason == [""] * 3
    assert found.n_kept == 3
    assert found.distance == pytest.approx([0.0, 0.1, 0.2], abs=1e-6)
    assert found.limit == pytest.approx(0.2 * LOOSER)


def test_far_candidates_fall_at_a_little_more_than_the_real_limit() -> None:
    edge = 0.2 * LOOSER
    found = verdicts(candidates([edge - 1e-4, edge + 1e-4, 1.9]))
    assert found.reason == ["", FAR, FAR]
    assert found.verdict == [KEPT, REJECTED, REJECTED]


def test_flat_candidates_fall() -> None:
    wave = torch.tensor([-1.0, 1.0]).repeat(3 * SIZE * SIZE // 2).view(1, 3, SIZE, SIZE)
    std = float(wave.std())
    pixels = 0.5 + wave * torch.tensor([0.99, 1.01, 0.0]).view(3, 1, 1, 1) * FLAT / std
    assert verdicts(candidates([0.1] * 3, pixels), real(copy_limit=1e-6)).reason == ["flat", "", "flat"]


def test_candidates_of_one_saturated_colour_fall_and_those_with_contrast_in_one_channel_do_not() -> None:
    pixels = images(3)
    pixels[0] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    pixels[1, :2] = 0.5
    assert verdicts(candidates([0.1] * 3, pixels), real(copy_limit=1e-6)).reason == ["flat", "", ""]


def test_candidates_without_an_image_fall_whatever_is_skipped() -> None:
    pixels = images(3)
    pixels[0] = float("nan")
    pixels[1, 0, 0, 0] = float("inf")
    found = verdicts(candidates([0.1] * 3, pixels, ["not finite", "safety checker", ""]), skip=GATES)
    assert found.reason == ["not finite", "safety checker", ""]
    assert found.verdict == [REJECTED, REJECTED, KEPT]


def test_features_that_are_no_numbers_are_far() -> None:
    given = candidates([0.1, 0.1])
    features = given.features.clone()
    features[0] = float("nan")
    found = verdicts(replace(given, features=features))
    assert found.reason == [FAR, ""]
    assert found.distance[0] == 2.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_of_training_images_fall_also_mirrored(mirrored: bool) -> None:
    references = real()
    noise = images(2, seed=5) - 0.5
    noise /= noise.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    pixels = references.pixels[[3, 1]] + noise * torch.tensor([0.019, 0.021]).view(2, 1, 1, 1)
    if mirrored:
        pixels = pixels.flip(3)
    found = verdicts(candidates([0.1, 0.1], pixels), references)
    assert found.reason == [TRAIN_COPY, ""]
    assert found.copy_distance == pytest.approx([0.019, 0.021], abs=1e-5)
    assert found.nearest_real == [3, 1]


def test_copies_of_kept_candidates_fall_but_not_of_rejected_or_spare_ones() -> None:
    pixels = images(7)
    pixels[2] = pixels[0] + 0.01  # of a kept one
    pixels[3] = pixels[1]  # of a rejected one
    pixels[6] = pixels[5]  # of a spare one
    found = verdicts(candidates([0.1, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1], pixels), wanted=3)
    assert found.reason == ["", FAR, KEPT_COPY, "", "", "", ""]
    assert found.verdict == [KEPT, REJECTED, REJECTED, KEPT, KEPT, SPARE, SPARE]


def test_a_copy_of_a_copy_is_compared_with_what_was_kept() -> None:
    pixels = images(1).repeat(3, 1, 1, 1) + torch.tensor([0.0, 0.015, 0.03]).view(3, 1, 1, 1)
    assert verdicts(candidates([0.1] * 3, pixels)).reason == ["", KEPT_COPY, ""]


def test_copies_are_found_across_blocks() -> None:
    pixels = images(600)
    pixels[300], pixels[599], pixels[301] = pixels[0], pixels[298], pixels[300]
    found = verdicts(candidates([0.1] * 600, pixels), wanted=600)
    assert [i for i, reason in enumerate(found.reason) if reason == KEPT_COPY] == [300, 301, 599]


def test_the_pixels_of_any_training_image_fall_as_duplicates() -> None:
    given = replace(candidates([0.1, 0.1, 0.1]), digests=[b"a", b"b", b"a"])
    references = replace(real(), digests=frozenset([b"b", b"z"]))
    assert verdicts(given, references).reason == ["", "duplicate of a training image", "duplicate of a kept image"]
    assert verdicts(given, references, skip=("duplicate",)).reason == ["", "", ""]


def hashes_with(*bits: int) -> tuple[Tensor, Tensor]:
    """One hash for each argument, that many bits from the first reference; mirrored images are far from everything."""
    hashes = torch.ones(len(bits), 64, dtype=torch.int8)
    for row, n in zip(hashes, bits, strict=True):
        row[:n] = -1
    mirrored = hashes.clone()
    mirrored[:, 30:60] *= -1
    return hashes, mirrored


def test_hashes_near_a_training_image_fall_also_mirrored() -> None:
    near = "near-duplicate of a training image"
    plain, mirrored = hashes_with(3, 4, 5)
    references = replace(real(), hashes=torch.ones(1, 64, dtype=torch.int8), hash_limit=4)
    for pair in ((plain, mirrored), (mirrored, plain)):
        found = verdicts(replace(candidates([0.1] * 3), hashes=pair), references)
        assert found.reason[:2] == [near, near]
        assert near != found.reason[2]
        assert found.more["hash_distance"] == [3, 4, 5]
    given = replace(candidates([0.1] * 3), hashes=(plain, mirrored))
    assert near not in verdicts(given, replace(references, hash_limit=-1)).reason
    assert near not in verdicts(given, references, skip=("hash",)).reason


def test_hashes_near_a_kept_image_fall_across_blocks() -> None:
    stream = torch.Generator().manual_seed(0)
    hashes = (torch.randint(0, 2, (300, 64), generator=stream) * 2 - 1).to(torch.int8)
    hashes[2], hashes[299] = hashes[1], hashes[1]
    hashes[299, :3] *= -1
    given = replace(candidates([0.1] * 300), hashes=(hashes, hashes))
    references = replace(real(), hashes=-hashes[:0], hash_limit=3)
    found = verdicts(given, references, wanted=300)
    assert [i for i, why in enumerate(found.reason) if why == "near-duplicate of a kept image"] == [2, 299]
    assert verdicts(given, references, wanted=300, skip=("hash",)).n_kept == 300


def test_a_confident_third_class_falls() -> None:
    given = replace(candidates([0.1] * 3), third_class=torch.tensor([0.89, 0.9, 0.0]))
    references = replace(real(), third_class_limit=0.9)
    assert verdicts(given, references).reason == ["", "looks like a third class", ""]
    assert verdicts(given, references, skip=("third-class",)).reason == ["", "", ""]


def test_less_agreement_with_the_class_name_than_real_images_have_falls() -> None:
    given = replace(candidates([0.1] * 3), agreement=torch.tensor([0.21, 0.19, float("nan")]))
    references = replace(real(), agreement_limit=0.2)
    unfit = "does not fit its class name"
    assert verdicts(given, references).reason == ["", unfit, unfit]
    assert verdicts(given, references, skip=("text",)).reason == ["", "", ""]


def test_only_the_distance_gate_is_loosened_and_that_is_said() -> None:
    given = replace(candidates([0.24, 0.1]), third_class=torch.tensor([0.0, 0.95]))
    found = verdicts(given, replace(real(), third_class_limit=0.9), wanted=2, floor=1.0)
    assert found.reason == ["", "looks like a third class"]
    assert found.loosened
    assert not verdicts(candidates([0.1]), wanted=1, floor=1.0).loosened


def test_scores_are_plain_numbers_for_the_manifest() -> None:
    given = replace(candidates([0.1, 0.2]), third_class=torch.tensor([0.123456789, 0.0]))
    scores = verdicts(given).scores(0)
    assert scores == {
        "distance": pytest.approx(0.1, abs=1e-6),
        "limit": 0.21,
        "copy_distance": scores["copy_distance"],
        "nearest_real": scores["nearest_real"],
        "third_class": 0.123457,
    }


@pytest.mark.parametrize(
    ("skip", "kept"),
    [((), [0]), (("flat",), [0, 1]), (("copy",), [0, 2, 3]), (("distance",), [0, 4]), (("flat", "copy"), [0, 1, 2, 3])],
)
def test_a_gate_may_be_left_out(skip: tuple[str, ...], kept: list[int]) -> None:
    references = real()
    pixels = images(5)
    pixels[1], pixels[2], pixels[3] = 0.5, references.pixels[0], pixels[0]
    found = verdicts(candidates([0.1, 0.1, 0.1, 0.1, 1.0], pixels), references, skip=skip)
    assert [i for i, verdict in enumerate(found.verdict) if verdict == KEPT] == kept


def test_the_cheapest_reason_is_named() -> None:
    references = replace(real(), pixels=torch.full((1, 3, SIZE, SIZE), 0.5), features=AXIS[None])
    found = verdicts(candidates([1.0], torch.full((1, 3, SIZE, SIZE), 0.5)), references)
    assert found.reason == ["flat"]
    assert verdicts(candidates([1.0], references.pixels), references, skip=("flat",)).reason == [TRAIN_COPY]


# How many


@pytest.mark.parametrize("wanted", [0, 1, 3, 5, 9])
def test_the_first_that_pass_are_kept_and_no_more(wanted: int) -> None:
    found = verdicts(candidates([0.1, 1.0, 0.1, 0.1, 1.0, 0.1]), wanted=wanted)
    passing = [0, 2, 3, 5]
    assert [i for i, verdict in enumerate(found.verdict) if verdict == KEPT] == passing[:wanted]
    assert [i for i, verdict in enumerate(found.verdict) if verdict == SPARE] == passing[wanted:]
    assert found.n_kept == min(wanted, 4)


def test_the_gate_is_loosened_step_by_step_until_the_floor_is_reached() -> None:
    given = candidates([0.1, 0.25, 0.24, 0.4, 0.45])
    found = verdicts(given, wanted=4, floor=0.75)
    assert found.verdict == [KEPT, KEPT, KEPT, REJECTED, REJECTED]
    assert found.limit == pytest.approx(0.2 * LOOSER**5)  # 0.2553, the first step beyond 0.25
    assert verdicts(given, wanted=4, floor=0.5).verdict.count(KEPT) == 2
    assert verdicts(given, wanted=4, floor=0.0).limit == pytest.approx(0.2 * LOOSER)


def test_the_gate_is_not_loosened_beyond_what_real_images_show() -> None:
    given = candidates([0.24, 0.26, 0.3])
    found = verdicts(given, real(last_limit=0.27), wanted=3, floor=1.0)
    assert found.verdict == [KEPT, KEPT, REJECTED]
    assert found.limit <= 0.27 < found.limit * LOOSER


def test_the_gate_is_not_loosened_before_all_candidates_are_there() -> None:
    given = candidates([0.25, 0.25])
    assert verdicts(given, wanted=2, floor=1.0, final=False).n_kept == 0
    assert verdicts(given, wanted=2, floor=1.0, final=True).n_kept == 2


def test_the_floor_is_rounded_up() -> None:
    given = candidates([0.1, 0.25, 0.3])
    assert verdicts(given, wanted=3, floor=0.34).n_kept == 2


@pytest.mark.parametrize(
    "limits", [{"limit": 0.0, "last_limit": 0.0}, {"limit": 0.0, "last_limit": 1.0}, {"limit": float("nan")}]
)
def test_real_images_without_a_usual_distance_do_not_hang(limits: dict[str, float]) -> None:
    found = verdicts(candidates([0.5, 0.5], torch.full((2, 3, SIZE, SIZE), 0.5)), real(**limits), wanted=5, floor=1.0)
    assert found.verdict == [REJECTED] * 2


@pytest.mark.parametrize("skip", [(), ("distance",)])
def test_a_floor_out_of_reach_ends_all_the_same(skip: tuple[str, ...]) -> None:
    found = verdicts(candidates([0.1, 1.5]), wanted=50, floor=1.0, skip=skip)
    assert found.n_kept == (2 if skip else 1)


def test_a_class_of_one_real_image() -> None:
    found = verdicts(candidates([0.1, 0.3, 0.1]), real(1), wanted=2)
    assert found.verdict == [KEPT, REJECTED, KEPT]
    assert found.nearest_real == [0, 0, 0]
