from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from generators.told_augmentation import N_NUMBERS, draw_numbers, tell, transform
from rebalance.errors import InputError

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1, told=True)
SETTINGS = TrainingSettings(updates=4, batch_size=16, checkpoint_updates=2, flip=False, augment=0.5)


def pictures(size: int = 8) -> Tensor:
    return torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1


def done(**numbers: float) -> Tensor:
    """The numbers (2, 7) where nothing else is done."""
    names = ("upside_down", "scale", "stretch", "cosine", "sine", "right", "down")
    return torch.tensor([[numbers.get(name, 0.0) for name in names]] * 2)


def turned(angle: float) -> Tensor:
    return done(cosine=math.cos(angle) - 1, sine=math.sin(angle))


def test_images_that_nothing_is_done_to_are_the_same_bit_for_bit() -> None:
    images, numbers = pictures(), done(scale=0.3)
    numbers[0] = 0
    changed = transform(images, numbers)
    assert torch.equal(changed[0], images[0])
    assert not torch.equal(changed[1], images[1])


def test_the_numbers_say_what_is_done() -> None:
    images = pictures()
    close = {"rtol": 0.0, "atol": 1e-5}
    torch.testing.assert_close(transform(images, done(upside_down=1.0)), images.flip(2), **close)
    torch.testing.assert_close(transform(images, turned(math.pi / 2)), images.rot90(-1, dims=(2, 3)), **close)
    torch.testing.assert_close(transform(images, turned(math.pi)), images.flip(2, 3), **close)
    moved = transform(images, done(right=2 / 4, down=-1 / 4))  # two of eight pixels right, one up
    torch.testing.assert_close(moved[:, :, :-1, 2:], images[:, :, 1:, :-2], **close)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, -2.0])
@pytest.mark.parametrize("others", [{}, {"upside_down": 1.0, "scale": 0.4, "stretch": -0.3}])
def test_the_middle_goes_where_the_moves_say_whatever_else_is_done(angle: float, others: dict[str, float]) -> None:
    dot = torch.zeros((2, 1, 9, 9))
    dot[:, :, 4, 4] = 1
    moved = transform(dot, turned(angle) + done(right=2 / 4.5, down=-1 / 4.5, **others))  # two pixels right, one up
    assert moved[0, 0, 3, 6].item() == pytest.approx(1, abs=1e-5)


def test_no_edge_shows_where_an_image_ends() -> None:
    plain = torch.full((2, 3, 8, 8), -0.4)
    changed = transform(plain, turned(0.7) + done(scale=-1.0, right=0.5, down=0.3))
    torch.testing.assert_close(changed, plain)


@pytest.mark.parametrize(("scale", "stretch"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)])
def test_scale_enlarges_and_stretch_widens(scale: float, stretch: float) -> None:
    size = 32
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    square = ((place.abs() < 0.25)[:, None] & (place.abs() < 0.25)).float().expand(2, 3, -1, -1)
    changed = transform(square, done(scale=scale, stretch=stretch))[0, 0] > 0.5
    changed = changed[4:-4, 4:-4]  # at the edges what is beyond them is mirrored
    width, height = changed.any(dim=0).sum().item(), changed.any(dim=1).sum().item()
    assert (width, height) == pytest.approx((8 * 2 ** (scale + stretch), 8 * 2 ** (scale - stretch)), abs=1)


def test_each_transformation_is_done_to_its_share() -> None:
    numbers = draw_numbers(20_000, 0.12, torch.Generator().manual_seed(0))
    assert numbers.shape == (20_000, N_NUMBERS)
    kinds = [numbers[:, :1], numbers[:, 1:2], numbers[:, 2:3], numbers[:, 3:5], numbers[:, 5:]]
    touched = [kind.any(dim=1).float().mean().item() for kind in kinds]
    assert touched == pytest.approx([0.12] * 5, abs=0.01)
    one, other = kinds[1].ne(0).flatten(), kinds[3].ne(0).any(dim=1)
    assert (one & other).float().mean().item() == pytest.approx(0.12**2, abs=0.004)  # independently
    for kind, spread in ((kinds[1], 0.2), (kinds[2], 0.2), (kinds[4], 0.25)):
        assert kind[kind != 0].std().item() == pytest.approx(spread, rel=0.05)
    angles = torch.atan2(kinds[3][:, 1], kinds[3][:, 0] + 1)[other]
    assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)  # any angle alike
    assert set(kinds[0].unique().tolist()) == {0.0, 1.0}


def test_the_network_is_told_in_channels_of_their_own() -> None:
    images, numbers = pictures(), done(scale=0.3, down=-0.2)
    told = tell(images, numbers)
    assert torch.equal(told[:, :3], images)
    assert torch.equal(told[:, 3:], numbers[:, :, None, None].expand(-1, -1, 8, 8))
    assert torch.equal(tell(images, None), tell(images, done()))


# In training and sampling


def data() -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images, torch.tensor([0] * 8 + [1] * 2)


def watch(unet: nn.Module) -> list[Tensor]:
    """What the U-Net is given."""
    seen: list[Tensor] = []
    unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def test_training_tells_what_it_did_and_sampling_that_nothing_is_to_be_done() -> None:
    seen: list[list[Tensor]] = []

    def wrap(unet: nn.Module) -> nn.Module:
        seen.append(watch(unet))
        return unet

    unet = train_class_conditional(*data(), NETWORK, SETTINGS, wrap=wrap)
    told = torch.cat(seen[0])[:, 3:]
    assert (told == told[:, :, :1, :1]).all()
    assert told[:, :, 0, 0].any(dim=1).float().mean().item() == pytest.approx(1 - 0.5**5, abs=0.1)
    generator = ClassConditionalGenerator(unet, NETWORK, batch_size=2)
    sampled = watch(generator.unet)
    images = generator.generate([Job("f", "", i, i, i, {"steps": 2, "guidance": 2.0}) for i in range(2)])
    assert images.shape == (2, 3, 8, 8)
    assert all(given.shape[1] == 3 + N_NUMBERS and not given[:, 3:].any() for given in sampled)


def test_what_is_noised_is_the_changed_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from generators import class_conditional_training

    clean: list[Tensor] = []

    class Scheduler(class_conditional_training.DDPMScheduler):  # type: ignore[misc]
        def add_noise(self, images: Tensor, *arguments: Any) -> Tensor:
            clean.append(images)
            return super().add_noise(images, *arguments)

    told: list[list[Tensor]] = []

    def wrap(unet: nn.Module) -> nn.Module:
        told.append(watch(unet))
        return unet

    monkeypatch.setattr(class_conditional_training, "DDPMScheduler", Scheduler)
    same = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(1)).mul(255).byte().expand(10, -1, -1, -1)
    train_class_conditional(same, data()[1], NETWORK, SETTINGS, wrap=wrap)
    numbers = torch.cat(told[0])[:, 3:, 0, 0]
    original = (same[:1].float() / 127.5 - 1).expand(len(numbers), -1, -1, -1)
    torch.testing.assert_close(torch.cat(clean), transform(original, numbers))


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    generator = ClassConditionalGenerator(train_class_conditional(*data(), NETWORK, SETTINGS), NETWORK, batch_size=2)
    generator.save(tmp_path)
    loaded = ClassConditionalGenerator.load(tmp_path, batch_size=2)
    jobs = [Job("f", "", i, i, i, {"steps": 2, "guidance": 2.0}) for i in range(2)]
    assert loaded.settings == NETWORK
    assert torch.equal(loaded.generate(jobs), generator.generate(jobs))


@pytest.mark.parametrize(("told", "augment"), [(False, 0.1), (True, 0.0)])
def test_augmentation_that_is_not_told_is_refused(told: bool, augment: float) -> None:
    with pytest.raises(InputError, match=f"got told={told} and augment={augment:g}"):
        train_class_conditional(*data(), replace(NETWORK, told=told), replace(SETTINGS, augment=augment))
