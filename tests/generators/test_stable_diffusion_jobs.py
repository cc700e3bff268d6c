from __future__ import annotations

import numpy as np
import pytest

from generators.latent_sampling import Sampling
from generators.prompts import TEMPLATES, make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_jobs import find_sources, image_jobs, text_jobs
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.digits import read_digits
from rebalance.data.table import ImageTable, content_hash
from rebalance.errors import InputError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = tuple(str(i) for i in range(10))
FEW = Sampling(steps=3)
PROMPTS = make_prompts(CLASSES, names=dict(zip(CLASSES, NAMES, strict=True)), negative="dark")


def test_seeds_are_32_bits_and_unique_within_a_class(tiny_generator: StableDiffusion) -> None:
    jobs = text_jobs("", CLASSES, [2000, *[0] * 9], PROMPTS, FEW, reserve=0.5, seed=0)
    seeds = [job.seed for job in jobs[0]]
    assert len(set(seeds)) == len(seeds) == 3000
    assert max(seeds) < 2**32
    assert not any(jobs[1:])


def test_text_jobs_take_the_prompts_in_turn() -> None:
    jobs = text_jobs("f", CLASSES, [12] * 10, PROMPTS, FEW, reserve=0, seed=0, adapter="abc")
    assert [job.settings["prompt"] for job in jobs[3]] == [PROMPTS(3, i) for i in range(12)]
    assert len({job.settings["prompt"] for job in jobs[3]}) == len(TEMPLATES)
    assert jobs[3][0].settings == {
        "mode": "text",
        "prompt": PROMPTS(3, 0),
        "negative": "dark",
        "steps": 3,
        "guidance": 2.0,
        "scheduler": "dpmsolver++",
        "adapter": "abc",
    }
    assert len({job.id for own in jobs for job in own}) == 120


def table(counts: dict[str, int]) -> ImageTable:
    images = [np.full((4, 4, 3), 10 * label + i, np.uint8) for label, n in enumerate(counts.values()) for i in range(n)]
    targets = np.repeat(np.arange(len(counts)), list(counts.values()))
    return ImageTable(images, targets, tuple(counts))


def test_image_jobs_mix_sources_and_strengths() -> None:
    data = table({"head": 6, "tail": 5})
    budget = [0, 40]
    sources = find_sources(data, budget)
    prompts = make_prompts(data.classes)
    (none, jobs) = image_jobs("f", data.classes, budget, prompts, Sampling(10), sources, reserve=0, seed=0)
    assert none == []
    own = {content_hash(image).hex() for image in data.images[6:]}
    pairs = [(job.settings["source"], job.settings["strength"]) for job in jobs]
    assert {source for source, _ in pairs} == own
    assert len(set(pairs[:20])) == 20  # every source at every strength before any pair comes again
    assert len({source for source, _ in pairs[:5]}) == 5
    assert not any(job.settings["donor"] for job in jobs)
    assert all(content_hash(image).hex() == name for name, image in sources.images.items())


def test_small_classes_borrow_images_of_frequent_ones_at_the_largest_strength() -> None:
    data = table({"head": 8, "middle": 6, "tail": 2, "empty": 0})
    budget = [0, 0, 10, 10]
    sources = find_sources(data, budget, min_sources=4)
    assert [len(part) for part in sources.own] == [0, 0, 2, 0]
    assert [len(part) for part in sources.donors] == [0, 0, 2, 4]
    jobs = image_jobs("f", data.classes, budget, make_prompts(data.classes), Sampling(10), sources, reserve=0, seed=0)
    lenders = {content_hash(image).hex() for image in data.images[:14]}
    for job in [*jobs[2], *jobs[3]]:
        assert job.settings["donor"] == (job.settings["source"] in lenders)
        if job.settings["donor"]:
            assert job.settings["strength"] == 0.85


def test_a_class_without_images_needs_donors() -> None:
    data = table({"head": 8, "empty": 0})
    with pytest.raises(InputError, match="source images for every class in mode image; got none for empty"):
        find_sources(data, [0, 3], min_sources=0)
    assert find_sources(data, [5, 0], min_sources=0).own[1] == ()


def test_strengths_that_run_no_step_are_refused_when_planning() -> None:
    data = table({"head": 8, "tail": 5})
    sources = find_sources(data, [0, 3])
    with pytest.raises(InputError, match=r"at least 1; got 4 × 0\.2"):
        image_jobs(
            "f", data.classes, [0, 3], make_prompts(data.classes), Sampling(4), sources,
            strengths=[0.2, 0.5], reserve=0, seed=0,
        )  # fmt: skip


def test_a_plan_does_not_depend_on_anything_but_its_inputs() -> None:
    data = table({"head": 8, "tail": 5})
    plans = [
        image_jobs(
            "f", data.classes, [0, 9], make_prompts(data.classes), FEW, find_sources(data, [0, 9]), reserve=0.5, seed=3
        )
        for _ in range(2)
    ]
    assert [[job.id for job in own] for own in plans[0]] == [[job.id for job in own] for own in plans[1]]


def test_plans_run(tiny_generator: StableDiffusion) -> None:
    train = read_digits().train
    keep = np.flatnonzero((train.targets > 0) | (np.arange(len(train)) % 50 == 0))
    data = train.select(keep)
    sources = find_sources(data, [3, *[0] * 9])
    ours = StableDiffusion(tiny_generator.checkpoint, ImageSettings(batch_size=4), sources=sources.images)
    jobs = image_jobs(ours.fingerprint, CLASSES, [3, *[0] * 9], PROMPTS, Sampling(5), sources, reserve=0, seed=0)
    made = ours.generate_checked(jobs[0])
    assert made.failures == [""] * 3
