from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet, is_grey
from generators.head_to_tail import head_to_tail_jobs
from rebalance.data.table import Image, ImageTable, content_hash
from rebalance.errors import InputError

COUNTS = (6, 3, 1)
NETWORK = NetworkSettings(("a", "b", "c"), 8, (8, 16), layers=1)


def table() -> ImageTable:
    images = np.random.default_rng(0).integers(0, 256, (sum(COUNTS), 10, 8, 3), dtype=np.uint8)
    return ImageTable(images, np.repeat(np.arange(3), COUNTS), NETWORK.classes)


def plan(budget: list[int], **changes: Any) -> tuple[list[list[Job]], dict[str, Image]]:
    arguments: dict[str, Any] = {"reserve": 0.5, "seed": 0, "settings": {"steps": 10, "guidance": 2.0}, **changes}
    return head_to_tail_jobs(
        "f", arguments.pop("data", table()), budget, arguments.pop("strengths", (0.5, 0.8)), **arguments
    )


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_unet(NETWORK)


def generator(unet: nn.Module, sources: dict[str, Image], batch_size: int = 4) -> ClassConditionalGenerator:
    found = ClassConditionalGenerator(unet, NETWORK, batch_size=batch_size)
    found.sources.update(sources)
    return found


def source_of(job: Job, sources: dict[str, Image]) -> Tensor:
    """Its pixels (3, 8, 8) in [0, 1]: 10 px high images lose their first and last row."""
    pixels = np.asarray(sources[job.settings["source"]])[1:9]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


# Plan


def test_sources_are_images_of_other_classes_and_strengths_take_turns() -> None:
    jobs, sources = plan([0, 4, 9])
    assert [len(part) for part in jobs] == [0, 6, 14]
    labels = {content_hash(image).hex(): label for image, label in zip(table().images, table().targets, strict=True)}
    for label, part in enumerate(jobs):
        assert all(labels[job.settings["source"]] != label for job in part)
        assert [job.settings["strength"] for job in part] == [(0.5, 0.8)[i % 2] for i in range(len(part))]
        assert all(job.settings["steps"] == 10 for job in part)
    used = {job.settings["source"] for part in jobs for job in part}
    assert used == sources.keys()
    assert all(content_hash(image).hex() == name for name, image in sources.items())


def test_each_image_of_another_class_is_as_likely() -> None:
    (_, _, jobs), sources = plan([0, 0, 6000])
    times = Counter(job.settings["source"] for job in jobs)
    assert len(times) == len(sources) == 9
    assert max(abs(n - 1000) for n in times.values()) < 5 * 1000**0.5


def test_the_plan_is_a_function_of_the_seed_and_a_longer_one_begins_with_it() -> None:
    first = plan([0, 4, 9])[0]
    assert plan([0, 4, 9])[0] == first
    assert plan([0, 8, 9])[0][1][:6] == first[1]
    other = plan([0, 4, 9], seed=1)[0]
    assert [job.settings["source"] for job in other[2]] != [job.settings["source"] for job in first[2]]
    assert len({job.id for part in (*first, *other) for job in part}) == 40


def test_a_class_alone_has_nothing_to_begin_from() -> None:
    alone = ImageTable(np.zeros((2, 8, 8, 3), dtype=np.uint8), np.zeros(2, dtype=np.int64), ("a", "b"))
    with pytest.raises(InputError, match="images of other classes to begin from; got a alone; leave head to tail out"):
        plan([1, 0], data=alone)
    assert len(plan([0, 1], data=alone)[0][1]) == 2


# Images


def test_strength_says_how_much_of_the_source_remains(unet: nn.Module) -> None:
    distances = []
    for strength in (0.05, 0.5, 1.0):
        jobs, sources = plan([0, 0, 8], strengths=(strength,), settings={"steps": 20, "guidance": 2.0})
        made = generator(unet, sources).generate(jobs[2])
        kept = torch.stack([source_of(job, sources) for job in jobs[2]])
        distances.append(float((made - kept).square().mean()))
    assert distances[0] < 0.01
    assert distances[0] < distances[1] < distances[2]


def test_the_whole_way_forgets_the_source(unet: nn.Module) -> None:
    jobs, sources = plan([0, 0, 4], strengths=(1.0,))
    plain = [
        Job(job.generator, job.class_name, job.label, job.index, job.seed, {"steps": 10, "guidance": 2.0})
        for job in jobs[2]
    ]
    ours = generator(unet, sources)
    torch.testing.assert_close(ours.generate(jobs[2]), ours.generate(plain), rtol=0, atol=0.05)


def test_only_the_steps_that_are_left_are_run(unet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = unet.forward

    def watched(x: Tensor, t: Tensor, class_labels: Tensor) -> Any:
        seen.append(int(t))
        return forward(x, t, class_labels=class_labels)

    monkeypatch.setattr(unet, "forward", watched)
    (_, _, jobs), sources = plan([0, 0, 1], strengths=(1.0,))
    generator(unet, sources).generate(jobs[:1])
    whole = list(seen)
    seen.clear()
    (_, _, jobs), sources = plan([0, 0, 1], strengths=(0.35,))
    generator(unet, sources).generate(jobs[:1])
    assert len(whole) == 10
    assert seen == whole[-3:]


def test_an_image_depends_on_its_job_alone(unet: nn.Module) -> None:
    (_, few, tail), sources = plan([0, 4, 4])
    ours = generator(unet, sources)
    batches = ours.batches([*few, *tail])
    assert all(len({job.settings["strength"] for job in batch}) == 1 for batch in batches)
    together = {job.id: image for batch in batches for job, image in zip(batch, ours.generate(batch), strict=True)}
    assert len(together) == 12
    for job in (few[0], few[3], tail[1], tail[5]):
        assert torch.equal(ours.generate([job])[0], together[job.id])
    assert len({image.numpy().tobytes() for image in together.values()}) == 12


def test_jobs_of_unlike_strengths_do_not_share_a_batch(unet: nn.Module) -> None:
    (_, _, tail), sources = plan([0, 0, 4])
    with pytest.raises(InputError, match="jobs of equal steps, guidance and strength"):
        generator(unet, sources).generate(tail)


def test_the_source_of_every_job_has_to_be_at_hand(unet: nn.Module) -> None:
    (_, _, tail), _ = plan([0, 0, 1])
    with pytest.raises(InputError, match="the source image of every job; got none for"):
        generator(unet, {}).generate(tail[:1])


def test_a_grey_network_begins_from_grey() -> None:
    torch.manual_seed(0)
    grey = NetworkSettings(NETWORK.classes, 8, (8,), n_colours=1, layers=1)
    (_, _, tail), sources = plan([0, 0, 1], strengths=(0.1,))
    ours = ClassConditionalGenerator(build_unet(grey), grey, batch_size=1)
    ours.sources.update(sources)
    (made,) = ours.generate(tail[:1])
    assert is_grey(made[None])
    assert float((made[0] - source_of(tail[0], sources)[0]).abs().mean()) < 0.1
