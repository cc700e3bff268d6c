from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from generators import class_conditional_training
from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet, is_grey
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from rebalance.errors import InputError, RunError

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
    with pytest.raises(InputError, match="jobs of equal steps and guidance"):
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


# Training


def data(grey: bool = False) -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (10, 1 if grey else 3, 8, 8), generator=torch.Generator().manual_seed(0))
    return images.byte().expand(10, 3, 8, 8), torch.tensor([0] * 8 + [1] * 2)


def training(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"updates": 6, "batch_size": 4, "shift": 1, "checkpoint_updates": 3, **changes})


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [2, 3, 5, 6])
def test_a_resumed_training_ends_bit_for_bit_like_an_undisturbed_one(tmp_path: Path, stop: int) -> None:
    undisturbed = train_class_conditional(*data(), NETWORK, training())
    done: list[int] = []

    def interrupt(n: int, loss: float) -> None:
        done.append(n)
        if sum(done) == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_class_conditional(*data(), NETWORK, training(), checkpoints=tmp_path, progress=interrupt)
    torch.manual_seed(99)
    done.clear()
    resumed = train_class_conditional(
        *data(), NETWORK, training(), checkpoints=tmp_path, progress=lambda n, loss: done.append(n)
    )
    assert same(resumed, undisturbed)
    assert sum(done) == 6
    assert done[0] == (3 if stop > 3 else 1)  # what an interrupted update had not saved is done again


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = train_class_conditional(*data(), NETWORK, training(), checkpoints=tmp_path)
    done: list[int] = []
    again = train_class_conditional(
        *data(), NETWORK, training(), checkpoints=tmp_path, progress=lambda n, loss: done.append(n)
    )
    assert same(first, again)
    assert done == [6]


def test_the_seed_decides_and_the_average_moves_slowly() -> None:
    first, other = (train_class_conditional(*data(), NETWORK, training(seed=seed)) for seed in (0, 1))
    assert not same(first, other)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_a_narrow_network_learns_the_classes_it_is_told() -> None:
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    images[:20, :, :, :4], images[20:, :, :, 4:] = 255, 255  # white on the left, white on the right
    losses: list[float] = []
    grey = NetworkSettings(("left", "right"), 8, (16,), n_colours=1, layers=1, dropout=0.0)
    settings = TrainingSettings(updates=60, batch_size=16, lr=5e-3, ema=0.9, flip=False)
    unet = train_class_conditional(
        images, torch.arange(40) // 20, grey, settings, progress=lambda n, loss: losses.append(loss)
    )
    assert losses[-1] < 0.6
    generator = ClassConditionalGenerator(unet, grey, batch_size=4)
    for label, sign in ((0, 1), (1, -1)):
        made = generator.generate([Job("f", "", label, i, i, {"steps": 6, "guidance": 1.5}) for i in range(4)])
        contrast = made[..., :4].mean(dim=(1, 2, 3)) - made[..., 4:].mean(dim=(1, 2, 3))
        assert (sign * contrast).min() > 0.4


@pytest.mark.parametrize("flip", [True, False])
def test_images_are_moved_mirrored_and_matched_with_their_class(monkeypatch: pytest.MonkeyPatch, flip: bool) -> None:
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 8, 8).clone()
    images[:, :, :, 0] = 255  # a white left edge
    labels = torch.tensor([0, 0, 0, 1])
    seen: list[tuple[Tensor, Tensor]] = []

    class Scheduler(class_conditional_training.DDPMScheduler):  # type: ignore[misc]
        def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
            seen.append((clean, timesteps))
            return super().add_noise(clean, noise, timesteps)

    told: list[Tensor] = []
    build = class_conditional_training.build_unet

    def watched(settings: NetworkSettings) -> nn.Module:
        network = build(settings)
        network.register_forward_pre_hook(
            lambda _, args, options: told.append(options["class_labels"]), with_kwargs=True
        )
        return network  # type: ignore[no-any-return]

    monkeypatch.setattr(class_conditional_training, "DDPMScheduler", Scheduler)
    monkeypatch.setattr(class_conditional_training, "build_unet", watched)
    settings = training(updates=8, batch_size=32, flip=flip, label_drop=0.25, label_exponent=0.0)
    train_class_conditional(images, labels, NETWORK, settings)
    clean = torch.cat([image for image, _ in seen])
    pixels = ((clean + 1) * 127.5).round()
    own = pixels[:, 0, 4, 4].long()  # the number of the image, which its class follows from
    classes = torch.cat(told)
    dropped = classes == 2
    assert torch.equal(classes[~dropped], labels[own[~dropped]])
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.1)
    assert (own == 3).float().mean().item() == pytest.approx(0.5, abs=0.12)  # classes alike, members alike
    right = pixels[:, 0, 4, 7] == 255
    assert right.any() == flip
    assert torch.unique((pixels[:, 0, 4] == 255).sum(dim=1)).tolist() == [0, 1, 2]  # moved out, unmoved, moved in
    timesteps = torch.cat([t for _, t in seen])
    assert timesteps.min() < 100
    assert timesteps.max() > 900


def test_grey_images_train_a_grey_network() -> None:
    grey = NetworkSettings(("cat", "dog"), 8, (8,), n_colours=1, layers=1)
    unet = train_class_conditional(*data(grey=True), grey, training(updates=2))
    assert is_grey(ClassConditionalGenerator(unet, grey, batch_size=2).generate(jobs(1)))


def test_a_class_without_images_is_never_drawn() -> None:
    three = NetworkSettings(("a", "b", "c"), 8, (8,), layers=1)
    train_class_conditional(*data(), three, training(updates=2, label_exponent=0.0))


@pytest.mark.parametrize("place", ["loss", "weights"])
def test_numbers_that_are_not_finite_stop_and_the_last_good_checkpoint_stays(tmp_path: Path, place: str) -> None:
    updates: list[int] = []

    def backward(loss: Tensor) -> None:
        loss.backward()
        updates.append(1)

    def spoil(n: int, loss: float) -> None:
        if len(updates) == (4 if place == "loss" else 6):
            with torch.no_grad():
                wrapped[0].conv_out.bias.fill_(float("nan"))

    wrapped: list[nn.Module] = []

    def wrap(module: nn.Module) -> nn.Module:
        wrapped.append(module)
        return module

    with pytest.raises(RunError, match=f"the generator's {place} after 6 updates .*; lower --generator-lr"):
        train_class_conditional(
            *data(), NETWORK, training(), checkpoints=tmp_path, wrap=wrap, backward=backward, progress=spoil
        )
    (saved,) = tmp_path.glob("update_*")
    assert saved.name == "update_0000003"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(saved / "unet.safetensors").values())
