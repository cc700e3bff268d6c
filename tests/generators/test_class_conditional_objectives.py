"""What the class-conditional generator is asked beside the noise, in its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators import class_conditional_training
from generators.capacity import ReservedPart, capacity_loss, general_part
from generators.class_balancing import class_balancing_loss
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings
from generators.class_conditional_training import Objective, TrainingSettings, train_class_conditional

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1, dropout=0.0)
SETTINGS = TrainingSettings(updates=3, batch_size=16, checkpoint_updates=2, label_drop=0.25)
BOTH = pytest.mark.parametrize("objective", ["cbdm", "cm"])


def data() -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images, torch.tensor([0] * 8 + [1] * 2)


class Watched(nn.Module):
    """The U-Net, with what it was asked and what it answered."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.asked: list[tuple[Tensor, Tensor, Tensor, bool]] = []

    def forward(self, noisy: Tensor, timesteps: Tensor, class_labels: Tensor) -> Any:
        answer = self.unet(noisy, timesteps, class_labels=class_labels)
        whole = all(part.active for part in self.modules() if isinstance(part, ReservedPart))
        self.asked.append((timesteps, class_labels, answer.sample.detach(), whole))
        return answer


def watched_training(monkeypatch: pytest.MonkeyPatch, settings: TrainingSettings) -> tuple[Watched, list[Any], Any]:
    """The U-Net, (target, loss) of every update, the rows of each."""
    losses: list[Tensor] = []
    targets: list[Tensor] = []
    rows: list[Tensor] = []
    unets: list[Watched] = []

    class Scheduler(class_conditional_training.DDPMScheduler):  # type: ignore[misc]
        def get_velocity(self, *arguments: Any) -> Tensor:
            targets.append(super().get_velocity(*arguments))
            return targets[-1]

    class Draws(class_conditional_training._LabelSampler):
        def __call__(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            drawn = super().__call__(n, generator)
            rows.append(drawn[1])
            return drawn

    def wrap(unet: nn.Module) -> nn.Module:
        unets.append(Watched(unet))
        return unets[0]

    def backward(loss: Tensor) -> None:
        losses.append(loss.detach())
        loss.backward()

    monkeypatch.setattr(class_conditional_training, "DDPMScheduler", Scheduler)
    monkeypatch.setattr(class_conditional_training, "_LabelSampler", Draws)
    train_class_conditional(*data(), NETWORK, settings, wrap=wrap, backward=backward)
    return unets[0], list(zip(targets, losses, strict=True)), rows


def test_class_balancing_compares_with_drawn_classes_where_the_class_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, updates, _ = watched_training(monkeypatch, replace(SETTINGS, objective="cbdm"))
    drawn = torch.cat([labels for _, labels, _, _ in unet.asked[1::2]])
    assert set(drawn.tolist()) == {0, 1}  # never the null class
    assert drawn.float().mean() < 0.45  # as frequent as in the data: 8 and 2
    for update, (target, loss) in enumerate(updates):
        (timesteps, told, own, _), (same, others, other, _) = unet.asked[2 * update : 2 * update + 2]
        assert torch.equal(timesteps, same)
        assert not torch.equal(told, others)
        term = class_balancing_loss(own, other, timesteps / 1000) * (told < 2)
        torch.testing.assert_close(loss, (own - target).square().mean() + term.mean())
        assert term.sum() > 0


def test_capacity_compares_with_the_general_part_for_the_real_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, updates, rows = watched_training(monkeypatch, replace(SETTINGS, objective="cm"))
    for update, (target, loss) in enumerate(updates):
        (timesteps, told, own, whole), (same, again, general, part) = unet.asked[2 * update : 2 * update + 2]
        assert (whole, part) == (True, False)
        assert torch.equal(timesteps, same)
        assert torch.equal(told, again)
        term = capacity_loss(own, general, rows[update], torch.tensor([8, 2]))
        torch.testing.assert_close(loss, (own - target).square().mean() + term.mean())
        assert (term != 0).any() == (update > 0)  # B begins at 0


def test_a_plain_training_looks_at_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, updates, _ = watched_training(monkeypatch, SETTINGS)
    assert len(unet.asked) == len(updates) == 3
    for (_, _, own, _), (target, loss) in zip(unet.asked, updates, strict=True):
        torch.testing.assert_close(loss, (own - target).square().mean())


@BOTH
def test_shares_of_a_batch_add_up_to_the_gradient_of_all(objective: Objective) -> None:
    def gradient(share: tuple[int, int]) -> Tensor:
        unets: list[nn.Module] = []
        gradients: list[Tensor] = []

        def remember(unet: nn.Module) -> nn.Module:
            for part in unet.modules():
                if isinstance(part, ReservedPart):
                    nn.init.constant_(part.b, 0.01)
            unets.append(unet)
            return unet

        def backward(loss: Tensor) -> None:
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in unets[0].parameters() if p.grad is not None]))

        settings = replace(SETTINGS, updates=1, batch_size=5, objective=objective)
        train_class_conditional(*data(), NETWORK, settings, wrap=remember, backward=backward, share=share)
        return gradients[0]

    both = (gradient((0, 2)) + gradient((1, 2))) / 2  # DDP takes the mean over its processes
    torch.testing.assert_close(both, gradient((0, 1)), rtol=1e-4, atol=1e-6)


class StoppedError(Exception):
    pass


@BOTH
def test_a_resumed_training_ends_bit_for_bit_like_an_undisturbed_one(objective: Objective, tmp_path: Path) -> None:
    settings = replace(SETTINGS, updates=4, objective=objective)
    undisturbed = train_class_conditional(*data(), NETWORK, settings)
    done: list[int] = []

    def interrupt(n: int, loss: float) -> None:
        done.append(n)
        if len(done) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_class_conditional(*data(), NETWORK, settings, checkpoints=tmp_path, progress=interrupt)
    for _ in range(2):  # goes on; then finds it finished
        resumed = train_class_conditional(*data(), NETWORK, settings, checkpoints=tmp_path)
        pairs = zip(resumed.state_dict().values(), undisturbed.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@BOTH
def test_the_trained_network_is_saved_and_loaded_like_a_plain_one(objective: Objective, tmp_path: Path) -> None:
    plain, other = (
        train_class_conditional(*data(), NETWORK, replace(SETTINGS, objective=asked)) for asked in ("plain", objective)
    )
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert any((one != two).any() for one, two in zip(plain.parameters(), other.parameters(), strict=True))
    generator = ClassConditionalGenerator(other, NETWORK)
    generator.save(tmp_path)
    assert ClassConditionalGenerator.load(tmp_path).fingerprint == generator.fingerprint


def test_rare_classes_come_to_use_the_reserved_part() -> None:
    unets: list[nn.Module] = []

    def remember(unet: nn.Module) -> nn.Module:
        unets.append(unet)
        return unet

    settings = replace(SETTINGS, updates=40, batch_size=32, lr=1e-2, objective="cm")
    train_class_conditional(*data(), NETWORK, settings, wrap=remember)
    noisy, labels = torch.randn((64, 3, 8, 8), generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
    timesteps = torch.full((64,), 500)
    with torch.no_grad():
        whole = unets[0](noisy, timesteps, class_labels=labels).sample
        with general_part(unets[0]):
            general = unets[0](noisy, timesteps, class_labels=labels).sample
    apart = (whole - general).square().mean(dim=(1, 2, 3))
    assert apart[labels == 1].mean() > 1.5 * apart[labels == 0].mean()
