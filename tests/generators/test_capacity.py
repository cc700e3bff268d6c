from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generators.capacity import (
    RANK_SHARE,
    SCALE,
    ReservedPart,
    capacity_loss,
    general_part,
    merged_state,
    reserve_capacity,
)
from generators.class_conditional import NetworkSettings, build_unet

NETWORK = NetworkSettings(("cat", "dog"), 8, (16, 32), layers=1, dropout=0.0)


def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_unet(NETWORK)


def predict(network: nn.Module) -> Tensor:
    noisy = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(noisy, torch.tensor([10, 900]), class_labels=torch.tensor([0, 1])).sample  # type: ignore[no-any-return]


def parts(network: nn.Module) -> list[ReservedPart]:
    return [module for module in network.modules() if isinstance(module, ReservedPart)]


def reserved() -> nn.Module:
    """A network whose reserved parts say something."""
    network = unet()
    reserve_capacity(network)
    with torch.no_grad():
        for part in parts(network):
            part.b.normal_()
    return network


def test_a_network_begins_as_it_would_without() -> None:
    network = unet()
    plain = predict(network)
    reserve_capacity(network)
    torch.testing.assert_close(predict(network), plain, rtol=0, atol=0)


def test_the_general_part_is_the_network_without_what_is_reserved() -> None:
    network = reserved()
    whole = predict(network)
    with general_part(network):
        torch.testing.assert_close(predict(network), predict(unet()), rtol=0, atol=0)
    torch.testing.assert_close(predict(network), whole, rtol=0, atol=0)
    assert not torch.allclose(whole, predict(unet()))


def test_what_is_reserved_is_back_after_an_error() -> None:
    network = reserved()
    with pytest.raises(KeyError), general_part(network):
        raise KeyError
    assert all(part.active for part in parts(network))


def test_merged_it_is_a_network_like_any_other() -> None:
    network, plain = reserved(), unet()
    whole = predict(network)
    plain.load_state_dict(merged_state(network))
    torch.testing.assert_close(predict(plain), whole, rtol=0, atol=0)
    torch.testing.assert_close(predict(network), whole, rtol=0, atol=0)


def test_the_reserved_part_is_of_low_rank() -> None:
    weight = torch.zeros(40, 20, 3, 3)
    part = ReservedPart(weight)
    with torch.no_grad():
        part.b.normal_()
    change = part(weight)
    rank = int(RANK_SHARE * 20)
    matrix = change.reshape(120, 60)  # as out · k rows and in · k columns
    assert torch.linalg.matrix_rank(matrix.double(), rtol=1e-5) == 3 * rank
    torch.testing.assert_close(matrix, SCALE * part.b @ part.a)


def test_a_narrow_convolution_has_a_reserved_part_too() -> None:
    assert ReservedPart(torch.zeros(8, 4, 3, 3)).a.shape == (3, 12)


def test_the_loss_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn((3, 2, 4, 4), generator=generator, dtype=torch.float64) for _ in range(2))
    labels, counts = torch.tensor([2, 0, 1]), torch.tensor([60, 30, 10])
    found = capacity_loss(one, other, labels, counts, consistency=0.7, diversity=0.4)
    inverse = [100 / 60, 100 / 30, 100 / 10]
    for i, label in enumerate(labels.tolist()):
        distance = sum(float(a - b) ** 2 for a, b in zip(one[i].flatten(), other[i].flatten(), strict=True)) / 32
        weight = 0.7 * counts[label].item() / 100 - 0.4 * inverse[label] / sum(inverse)
        assert float(found[i]) == pytest.approx(3 * weight * distance, rel=1e-12)


def test_frequent_classes_are_held_together_and_rare_ones_driven_apart() -> None:
    one, other = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    frequent, rare = capacity_loss(one, other, torch.tensor([0, 1]), torch.tensor([99, 1])).tolist()
    assert frequent == pytest.approx(2 * (0.99 - 0.2 * 0.01))
    assert rare == pytest.approx(2 * (0.01 - 0.2 * 0.99))


def test_a_class_without_images_changes_nothing() -> None:
    one, other, labels = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.tensor([0, 1])
    with_empty = capacity_loss(one, other, labels, torch.tensor([5, 3, 0]))
    torch.testing.assert_close(with_empty, capacity_loss(one, other, labels, torch.tensor([5, 3])))
