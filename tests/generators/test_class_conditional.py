from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet, is_grey
from rebalance.errors import InputError

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1)
SETTINGS = {"steps": 2, "guidance": 2.0}


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_unet(NETWORK)


@pytest.fixture(scope="module")
def generator(unet: nn.Module) -> ClassConditionalGenerator:
    return ClassConditionalGenerator(unet, NETWORK, batch_size=4)


def jobs(*seeds: int, label: int = 0, **settings: Any) -> list[Job]:
    return [Job("f", NETWORK.classes[label], label, i, seed, {**SETTINGS, **settings}) for i, seed in enumerate(seeds)]


# Sampling


def test_images_are_colours_in_the_unit_range(generator: ClassConditionalGenerator) -> None:
    images = generator.generate(jobs(1, 2, 3, 4, 5))
    assert (images.shape, images.dtype) == ((5, 3, 8, 8), torch.float32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 5
    assert generator.generate([]).shape == (0, 3, 8, 8)


def test_an_image_depends_on_its_job_alone(generator: ClassConditionalGenerator) -> None:
    work = [*jobs(10, 11, 12), *jobs(13, 14, 15, 16, label=1)]
    together = generator.generate(work)
    order = [6, 0, 3, 5, 1, 4, 2]
    assert torch.equal(generator.generate([work[i] for i in order]), together[order])
    for i in (0, 2, 3, 6):  # at the start, inside and at the end of a batch
        assert torch.equal(generator.generate([work[i]])[0], together[i])


def test_the_global_random_state_plays_no_part(generator: ClassConditionalGenerator) -> None:
    torch.manual_seed(1)
    first = generator.generate(jobs(1))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(generator.generate(jobs(1)), first)
    torch.set_rng_state(state)


def test_class_seed_guidance_and_steps_all_shape_the_image(generator: ClassConditionalGenerator) -> None:
    first = generator.generate(jobs(1))
    for other in (jobs(2), jobs(1, label=1), jobs(1, guidance=3.0), jobs(1, guidance=1.0), jobs(1, steps=3)):
        assert not torch.equal(generator.generate(other), first)


def test_guidance_leans_from_no_class_to_the_class_and_beyond(unet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    forward = unet.forward

    def watched(x: Tensor, t: Tensor, class_labels: Tensor) -> Any:
        seen.append(class_labels.tolist())
        return forward(x, t, class_labels=class_labels)

    monkeypatch.setattr(unet, "forward", watched)
    ClassConditionalGenerator(unet, NETWORK, batch_size=2).generate(jobs(1, label=1))
    assert seen == [[1, 1, 2, 2]] * 2  # the job and its padding, then the null class for both
    seen.clear()
    ClassConditionalGenerator(unet, NETWORK, batch_size=2).generate(jobs(1, label=1, guidance=1.0))
    assert seen == [[1, 1]] * 2


def test_jobs_of_unlike_settings_do_not_share_a_batch(generator: ClassConditionalGenerator) -> None:
    with pytest.raises(InputError, match="jobs of equal steps, guidance and strength"):
        generator.generate([*jobs(1), *jobs(2, steps=3)])


def test_weights_that_are_no_numbers_give_images_that_say_so() -> None:
    broken = build_unet(NETWORK)
    nn.init.constant_(broken.conv_out.bias, float("nan"))
    images = ClassConditionalGenerator(broken, NETWORK, batch_size=2).generate(jobs(1, 2, 3))
    assert images.shape == (3, 3, 8, 8)
    assert not torch.isfinite(images).any()


def test_a_grey_network_gives_grey_images() -> None:
    grey = NetworkSettings(("cat", "dog"), 8, (8,), n_colours=1, layers=1)
    images = ClassConditionalGenerator(build_unet(grey), grey, batch_size=2).generate(jobs(1, 2))
    assert images.shape == (2, 3, 8, 8)
    assert is_grey(images)
    assert not is_grey(images + torch.tensor([0.0, 0.0, 0.01]).view(3, 1, 1))
    assert not is_grey(images + torch.tensor([0.0, 0.01, 0.0]).view(3, 1, 1))


# Files


def test_a_saved_model_makes_the_same_images_under_the_same_fingerprint(
    tmp_path: Path, generator: ClassConditionalGenerator
) -> None:
    generator.save(tmp_path / "generator")
    loaded = ClassConditionalGenerator.load(tmp_path / "generator", batch_size=4)
    assert loaded.settings == generator.settings
    assert loaded.fingerprint == generator.fingerprint
    assert torch.equal(loaded.generate(jobs(1, 2)), generator.generate(jobs(1, 2)))


def test_the_fingerprint_tells_weights_apart(generator: ClassConditionalGenerator) -> None:
    torch.manual_seed(0)
    assert ClassConditionalGenerator(build_unet(NETWORK), NETWORK).fingerprint == generator.fingerprint
    other = build_unet(NETWORK)
    with torch.no_grad():
        other.conv_out.bias[0] += 1e-7
    assert ClassConditionalGenerator(other, NETWORK).fingerprint != generator.fingerprint


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("unet.safetensors", None),
        ("unet.safetensors", b"text"),
        ("generator.json", None),
        ("generator.json", b"{"),
        ("generator.json", b"[]"),
        ("generator.json", b"{}"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(
    tmp_path: Path, generator: ClassConditionalGenerator, file: str, content: bytes | None
) -> None:
    generator.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=r"generator"):
        ClassConditionalGenerator.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_schedule": {"prediction_type": "epsilon"}}, "this version's noise schedule"),
        ({"channels": [8, 32]}, "a whole generator folder"),
        ({"depth": 3}, "a whole generator folder"),
    ],
)
def test_settings_of_another_model_are_refused(
    tmp_path: Path, generator: ClassConditionalGenerator, change: dict[str, Any], message: str
) -> None:
    generator.save(tmp_path)
    values = json.loads((tmp_path / "generator.json").read_text())
    (tmp_path / "generator.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(InputError, match=message):
        ClassConditionalGenerator.load(tmp_path)


# Network


@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        (8, (), "channels that are multiples of 8"),
        (8, (12,), "channels that are multiples of 8"),
        (8, (0, 8), "channels that are multiples of 8"),
        (9, (8, 16), "an image size that 2 levels halve evenly; got 9 px; use a multiple of 2, at least 4"),
        (28, (8, 8, 8, 8), "4 levels halve evenly; got 28 px; use a multiple of 8, at least 16"),
        (4, (8, 8, 8), "3 levels halve evenly; got 4 px"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: int, channels: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSettings(("a", "b"), size, channels)


@pytest.mark.parametrize("channels", [(8,), (40, 80), (16, 40), (24, 32)])
def test_all_multiples_of_eight_make_a_network(channels: tuple[int, ...]) -> None:
    network = build_unet(NetworkSettings(("a", "b"), 8, channels, layers=1)).eval()
    with torch.no_grad():
        out = network(torch.zeros(3, 3, 8, 8), 0, class_labels=torch.tensor([0, 1, 2])).sample
    assert out.shape == (3, 3, 8, 8)


def test_small_maps_below_the_first_level_get_attention() -> None:
    def attends(size: int, channels: Sequence[int]) -> list[bool]:
        blocks = build_unet(NetworkSettings(("a", "b"), size, tuple(channels), layers=1)).down_blocks
        return [hasattr(block, "attentions") for block in blocks]

    assert attends(8, (8, 8)) == [False, True]
    assert attends(64, (8, 8, 8)) == [False, False, True]
