from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from generators import class_conditional_training
from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, is_grey
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from rebalance.errors import RunError

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1)


def data(grey: bool = False) -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (10, 1 if grey else 3, 8, 8), generator=torch.Generator().manual_seed(0))
    return images.byte().expand(10, 3, 8, 8), torch.tensor([0] * 8 + [1] * 2)


def training(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"updates": 6, "batch_size": 4, "shift": 1, "checkpoint_updates": 3, **changes})


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("changes", [{}, {"objective": "cbdm"}, {"augment": 0.5}])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_shares_of_a_batch_add_up_to_the_gradient_of_all(batch_size: int, changes: dict[str, Any]) -> None:
    network = replace(NETWORK, dropout=0.0, told="augment" in changes)

    def gradient(share: tuple[int, int]) -> Tensor:
        unets: list[nn.Module] = []
        gradients: list[Tensor] = []

        def remember(unet: nn.Module) -> nn.Module:
            unets.append(unet)
            return unet

        def backward(loss: Tensor) -> None:
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in unets[0].parameters() if p.grad is not None]))

        settings = training(updates=1, batch_size=batch_size, **changes)
        train_class_conditional(*data(), network, settings, wrap=remember, backward=backward, share=share)
        return gradients[0]

    both = (gradient((0, 2)) + gradient((1, 2))) / 2  # DDP takes the mean over its processes
    torch.testing.assert_close(both, gradient((0, 1)), rtol=1e-4, atol=1e-6)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("stop", "changes"), [(2, {}), (3, {}), (5, {}), (6, {}), (5, {"objective": "cbdm"}), (5, {"augment": 0.5})]
)
def test_a_resumed_training_ends_bit_for_bit_like_an_undisturbed_one(
    tmp_path: Path, stop: int, changes: dict[str, Any]
) -> None:
    network, settings = replace(NETWORK, told="augment" in changes), training(**changes)
    undisturbed = train_class_conditional(*data(), network, settings)
    done: list[int] = []

    def interrupt(n: int, loss: float) -> None:
        done.append(n)
        if sum(done) == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_class_conditional(*data(), network, settings, checkpoints=tmp_path, progress=interrupt)
    torch.manual_seed(99)
    done.clear()
    resumed = train_class_conditional(
        *data(), network, settings, checkpoints=tmp_path, progress=lambda n, loss: done.append(n)
    )
    assert same(resumed, undisturbed)
    assert sum(done) == 6
    assert done[0] == (3 if stop > 3 else 1)  # what an interrupted update had not saved is done again


def test_what_was_done_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    settings = training(updates=9, checkpoint_updates=1000)
    undisturbed = train_class_conditional(*data(), NETWORK, settings)
    done: list[int] = []

    def press(n: int, loss: float) -> None:
        done.append(n)
        if len(done) == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_class_conditional(*data(), NETWORK, settings, checkpoints=tmp_path, progress=press)
    assert len(done) == 4
    assert json.loads((tmp_path / "last.json").read_text()) == {"checkpoint": "update_0000004"}
    assert same(train_class_conditional(*data(), NETWORK, settings, checkpoints=tmp_path), undisturbed)


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
    job = Job("f", "cat", 0, 0, 1, {"steps": 2, "guidance": 2.0})
    assert is_grey(ClassConditionalGenerator(unet, grey, batch_size=2).generate([job]))


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

    with pytest.raises(RunError, match=f"the {place} of the generator after 6 updates .*; lower --generator-lr"):
        train_class_conditional(
            *data(), NETWORK, training(), checkpoints=tmp_path, wrap=wrap, backward=backward, progress=spoil
        )
    (saved,) = tmp_path.glob("update_*")
    assert saved.name == "update_0000003"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(saved / "unet.safetensors").values())
