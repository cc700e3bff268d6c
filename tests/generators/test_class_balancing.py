from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators import class_conditional_training
from generators.class_balancing import class_balancing_loss
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings
from generators.class_conditional_training import TrainingSettings, train_class_conditional

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1, dropout=0.0)
SETTINGS = TrainingSettings(updates=3, batch_size=16, checkpoint_updates=2, label_drop=0.25)


def predictions(seed: int) -> Tensor:
    return torch.randn((3, 2, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_formula() -> None:
    one, other, times = predictions(0), predictions(1), torch.tensor([0.0, 0.25, 0.9], dtype=torch.float64)
    found = class_balancing_loss(one, other, times, tau=2.0, commitment=0.5)
    for i in range(3):
        distance = sum(float(a - b) ** 2 for a, b in zip(one[i].flatten(), other[i].flatten(), strict=True)) / 32
        assert float(found[i]) == pytest.approx(2.0 * float(times[i]) * 1.5 * distance, rel=1e-12)


def test_nothing_is_asked_where_classes_agree_or_nothing_is_noised() -> None:
    one = predictions(0)
    assert not class_balancing_loss(one, one.clone(), torch.ones(3)).any()
    assert not class_balancing_loss(one, predictions(1), torch.zeros(3)).any()


def test_the_drawn_classes_are_pulled_a_quarter_as_much() -> None:
    one, other = predictions(0).requires_grad_(), predictions(1).requires_grad_()
    class_balancing_loss(one, other, torch.full((3,), 0.5)).sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, (one - other).detach() * 2 * 0.5 / 32)
    torch.testing.assert_close(other.grad, -one.grad / 4)


# In the training of a generator


def data() -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images, torch.tensor([0] * 8 + [1] * 2)


class Watched(nn.Module):
    """The U-Net, with what it was asked and what it answered."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, timesteps: Tensor, class_labels: Tensor) -> Any:
        answer = self.unet(noisy, timesteps, class_labels=class_labels)
        self.asked.append((timesteps, class_labels, answer.sample.detach()))
        return answer


def watched_training(
    monkeypatch: pytest.MonkeyPatch, settings: TrainingSettings
) -> tuple[Watched, list[tuple[Tensor, Tensor]]]:
    """The U-Net; target and loss of every update."""
    losses: list[Tensor] = []
    targets: list[Tensor] = []
    unets: list[Watched] = []

    class Scheduler(class_conditional_training.DDPMScheduler):  # type: ignore[misc]
        def get_velocity(self, *arguments: Any) -> Tensor:
            targets.append(super().get_velocity(*arguments))
            return targets[-1]

    def wrap(unet: nn.Module) -> nn.Module:
        unets.append(Watched(unet))
        return unets[0]

    def backward(loss: Tensor) -> None:
        losses.append(loss.detach())
        loss.backward()

    monkeypatch.setattr(class_conditional_training, "DDPMScheduler", Scheduler)
    train_class_conditional(*data(), NETWORK, settings, wrap=wrap, backward=backward)
    return unets[0], list(zip(targets, losses, strict=True))


@pytest.mark.parametrize(("label_exponent", "rare"), [(1.0, 0.2), (0.0, 0.5)])
def test_classes_are_compared_with_others_drawn_like_the_images(
    monkeypatch: pytest.MonkeyPatch, label_exponent: float, rare: float
) -> None:
    settings = replace(SETTINGS, objective="cbdm", label_exponent=label_exponent, batch_size=64)
    unet, updates = watched_training(monkeypatch, settings)
    drawn = torch.cat([labels for _, labels, _ in unet.asked[1::2]])
    assert set(drawn.tolist()) == {0, 1}  # never the null class
    assert drawn.float().mean().item() == pytest.approx(rare, abs=0.1)
    for update, (target, loss) in enumerate(updates):
        (timesteps, told, own), (same, others, other) = unet.asked[2 * update : 2 * update + 2]
        assert torch.equal(timesteps, same)
        assert not torch.equal(told, others)
        term = class_balancing_loss(own, other, timesteps / 1000) * (told < 2)
        torch.testing.assert_close(loss, (own - target).square().mean() + term.mean())
        assert term.sum() > 0


def test_a_plain_training_looks_at_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, updates = watched_training(monkeypatch, SETTINGS)
    assert len(unet.asked) == len(updates) == 3
    for (_, _, own), (target, loss) in zip(unet.asked, updates, strict=True):
        torch.testing.assert_close(loss, (own - target).square().mean())


def test_the_trained_network_is_saved_and_loaded_like_a_plain_one(tmp_path: Path) -> None:
    plain, other = (
        train_class_conditional(*data(), NETWORK, settings)
        for settings in (SETTINGS, replace(SETTINGS, objective="cbdm"))
    )
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert any((one != two).any() for one, two in zip(plain.parameters(), other.parameters(), strict=True))
    generator = ClassConditionalGenerator(other, NETWORK)
    generator.save(tmp_path)
    assert ClassConditionalGenerator.load(tmp_path).fingerprint == generator.fingerprint
