from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.losses import RegionRebalanceLoss, logit_adjustments
from rebalance.region_rebalance import RegionBranch, Regions, images_with_class, region_means

C, IGNORED = 5, 255
IMAGES = [9, 5, 3, 2, 1]


def maps_of(dtype: torch.dtype = torch.float64, size: tuple[int, int] = (3, 4)) -> Tensor:
    return torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def labels_of(size: tuple[int, int] = (7, 9)) -> Tensor:
    """Of all classes but 3, some pixels of none."""
    ids = torch.tensor([0, 1, 2, 4, IGNORED])
    return ids[torch.randint(5, (2, *size), generator=torch.Generator().manual_seed(1))]


def branch_of(*, frozen: bool = False, dtype: torch.dtype = torch.float64, **options: float) -> RegionBranch:
    torch.manual_seed(0)
    return RegionBranch(6, C, width=4, hidden=8, frozen=frozen, **{"dropout": 0.0, **options}).to(dtype)  # type: ignore[arg-type]


def loss_of(regions: Regions) -> Tensor:
    loss: Tensor = RegionRebalanceLoss(IMAGES)(*regions)
    return loss


def means_in_loops(maps: Tensor, labels: Tensor) -> list[list[float] | None]:
    """Bilinear interpolation with aligned corners at every pixel, then the mean of each class, number by number."""
    (batch, channels, h, w), (_, height, width) = maps.shape, labels.shape
    sums, n_pixels = [[0.0] * channels for _ in range(C)], [0] * C
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                label = int(labels[b, i, j])
                if label == IGNORED:
                    continue
                y = i * (h - 1) / (height - 1) if height > 1 else 0.0
                x = j * (w - 1) / (width - 1) if width > 1 else 0.0
                n_pixels[label] += 1
                for row in range(h):
                    for column in range(w):
                        share = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                        for d in range(channels):
                            sums[label][d] += share * float(maps[b, d, row, column])
    return [[s / n for s in row] if n else None for row, n in zip(sums, n_pixels, strict=True)]


SIZES = [((3, 4), (7, 9)), ((3, 4), (3, 4)), ((5, 6), (3, 4)), ((1, 4), (3, 4)), ((3, 4), (1, 5)), ((2, 1), (4, 1))]


@pytest.mark.parametrize(("of_maps", "of_labels"), SIZES)
def test_means_equal_those_of_upsampled_maps(of_maps: tuple[int, int], of_labels: tuple[int, int]) -> None:
    maps, labels = maps_of(size=of_maps), labels_of(of_labels)
    means, n_pixels = region_means(maps, labels, C)
    for c, row in enumerate(means_in_loops(maps, labels)):
        assert int(n_pixels[c]) == int((labels == c).sum())
        expected = torch.tensor(row or [0.0] * 6, dtype=torch.float64)
        torch.testing.assert_close(means[c], expected)


def test_gradients_of_means_are_those_of_upsampled_maps() -> None:
    maps, again, labels = maps_of().requires_grad_(), maps_of().requires_grad_(), labels_of()
    factors = torch.randn(C, 6, dtype=torch.float64)
    (region_means(maps, labels, C)[0] * factors).sum().backward()
    pixels = F.interpolate(again, size=labels.shape[1:], mode="bilinear", align_corners=True).movedim(1, -1)
    sum((pixels[labels == c].mean(0) * factors[c]).sum() for c in (0, 1, 2, 4)).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(maps.grad, again.grad)


def test_a_row_for_each_class_and_which_of_them_are_there() -> None:
    regions = branch_of()(maps_of(), labels_of())
    assert regions.logits.shape == (C, C)
    assert regions.targets.tolist() == [0, 1, 2, 3, 4]
    assert regions.present.tolist() == [True, True, True, False, True]


def test_classes_that_are_missing_change_nothing_for_the_others() -> None:
    small, large = branch_of(), RegionBranch(6, C + 3, width=4, hidden=8, dropout=0.0).double()
    state = small.state_dict()
    state["img_cls.1.weight"] = torch.cat([state["img_cls.1.weight"], torch.zeros(3, 8)])
    state["img_cls.1.bias"] = torch.cat([state["img_cls.1.bias"], torch.zeros(3)])
    large.load_state_dict(state)
    few, many = small(maps_of(), labels_of()), large(maps_of(), labels_of())
    torch.testing.assert_close(many.logits[:C, :C], few.logits)
    assert many.present.tolist() == [*few.present.tolist(), False, False, False]


def test_pixels_of_no_class_count_nowhere() -> None:
    maps, labels = maps_of().requires_grad_(), labels_of((3, 4))
    region_means(maps, labels, C)[0].square().sum().backward()
    assert maps.grad is not None
    taught = maps.grad.abs().sum(1) > 0  # (B, h, w), where no pixel is between locations
    assert torch.equal(taught, labels != IGNORED)
    other = torch.where(labels == IGNORED, -1, labels)
    torch.testing.assert_close(region_means(maps, other, C, ignore_index=-1), region_means(maps, labels, C))


def test_a_batch_without_a_labelled_pixel_gives_zero_and_zero_gradients() -> None:
    branch, maps = branch_of(), maps_of().requires_grad_()
    regions = branch(maps, torch.full((2, 7, 9), IGNORED))
    loss = loss_of(regions)
    loss.backward()
    assert loss.item() == 0
    assert not regions.present.any()
    for tensor in (maps, *branch.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_it_teaches_the_maps_and_learns_nothing(frozen: bool) -> None:
    branch, maps = branch_of(frozen=frozen), maps_of().requires_grad_()
    loss_of(branch(maps, labels_of())).backward()
    assert maps.grad is not None
    assert maps.grad.any()
    assert all((weight.grad is None) == frozen for weight in branch.parameters())
    torch.testing.assert_close(maps.grad, unfrozen_gradient())


def unfrozen_gradient() -> Tensor:
    maps = maps_of().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(branch_of()(maps, labels_of())), maps)
    return gradient


def test_it_is_frozen_unless_told_as_in_the_released_code() -> None:
    assert not any(weight.requires_grad for weight in RegionBranch(6, C).parameters())


def test_parameters_have_the_names_and_sizes_of_the_original() -> None:
    sizes = {name: tuple(weight.shape) for name, weight in RegionBranch(6, C).named_parameters()}
    assert sizes == {
        "reduce.0.weight": (128, 6, 1, 1),
        "reduce.1.weight": (128,),
        "reduce.1.bias": (128,),
        "gain.0.weight": (512, 128),
        "gain.0.bias": (512,),
        "img_cls.1.weight": (C, 512),
        "img_cls.1.bias": (C,),
    }


def test_dropout_is_between_the_linear_layers_and_in_training_alone() -> None:
    branch = branch_of(dropout=0.5)
    torch.manual_seed(1)
    first, second = branch(maps_of(), labels_of()).logits, branch(maps_of(), labels_of()).logits
    assert not torch.allclose(first, second)
    branch.eval()
    torch.testing.assert_close(branch(maps_of(), labels_of()), branch(maps_of(), labels_of()))


def test_scale_is_a_factor_of_the_logits() -> None:
    plain, scaled = branch_of(), branch_of(scale=5.0)
    torch.testing.assert_close(scaled(maps_of(), labels_of()).logits, 5 * plain(maps_of(), labels_of()).logits)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_of_any_integer_type_and_have_a_channel(dtype: torch.dtype) -> None:
    expected = region_means(maps_of(), labels_of(), C)
    torch.testing.assert_close(region_means(maps_of(), labels_of().to(dtype), C), expected)
    torch.testing.assert_close(region_means(maps_of(), labels_of().to(dtype)[:, None], C), expected)


def test_of_bf16_maps_under_autocast_means_and_logits_are_float32() -> None:
    branch, maps = branch_of(dtype=torch.float32), maps_of(torch.float32).requires_grad_()
    exact = branch(maps, labels_of())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        regions = branch(maps, labels_of())
        loss = loss_of(regions)
    loss.backward()
    assert regions.logits.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(regions.logits, exact.logits, rtol=5e-2, atol=5e-2)
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_a_large_region_of_bf16_maps_is_averaged_in_float32() -> None:
    maps = torch.full((1, 1, 8, 8), 1.0078125, dtype=torch.bfloat16)
    means, _ = region_means(maps, torch.zeros(1, 512, 512, dtype=torch.uint8), 1)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means, torch.tensor([[1.0078125]]))


def test_in_bf16_alone_it_runs() -> None:
    branch = branch_of(dtype=torch.bfloat16)
    loss = loss_of(branch(maps_of(torch.bfloat16), labels_of()))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in branch.parameters())


def test_nothing_on_the_device_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta", without values, has none
    branch, loss = branch_of().to("meta"), RegionRebalanceLoss(IMAGES).to("meta")
    value = loss(*branch(maps_of().to("meta").requires_grad_(), labels_of().to("meta")))
    value.backward()
    assert value.shape == ()
    assert all(weight.grad is not None for weight in branch.parameters())


class Segmenter(nn.Module):
    """What a loop wraps for several processes: network and branch in one, the branch in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.pixels = nn.Conv2d(6, C, 1)
        self.branch = RegionBranch(6, C, width=4, hidden=8, dropout=0.0, frozen=False)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Regions]:
        maps = self.body(images).relu()
        return self.pixels(maps), self.branch(maps, labels)


def test_beside_a_pixel_loss_it_learns_to_name_regions() -> None:
    torch.manual_seed(0)
    labels = labels_of((12, 12))
    colours = torch.randn(C, 3)[torch.where(labels == IGNORED, 3, labels)]
    images = colours.movedim(-1, 1) + 0.1 * torch.randn(2, 3, 12, 12)
    network = Segmenter()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    history = []
    for _ in range(40):
        logits, regions = network(images, labels)
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORED) + loss_of(regions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.7 * history[0]
    found = (regions.logits + logit_adjustments(IMAGES)).argmax(dim=1)  # under the prior, as they were trained
    assert torch.equal(found[regions.present], regions.targets[regions.present])


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: region_means(maps_of()[0], labels_of(), C), r"expected maps \(B, D, h, w\); got \(6, 3, 4\); pass what"),
    (
        lambda: region_means(maps_of(), labels_of()[:1], C),
        r"expected label maps \(2, H, W\) or \(2, 1, H, W\), one for each map; got \(1, 7, 9\); pass class ids",
    ),
    (lambda: region_means(maps_of(), torch.zeros(2, 5, 7, 9), C), r"one for each map; got \(2, 5, 7, 9\); pass class"),
    (lambda: region_means(maps_of(), labels_of()[:, :0], C), r"one for each map; got \(2, 0, 9\); pass class ids"),
    (lambda: region_means(maps_of(), labels_of().float(), C), "an integer type; got torch.float32; call labels.long"),
    (
        lambda: region_means(maps_of(), labels_of(), C - 1),
        "expected labels from 0 to 3, or 255 for none; got 4; renumber the classes, or set ignore_index",
    ),
    (lambda: region_means(maps_of(), labels_of() - 1, C, ignore_index=254), "from 0 to 4, or 254 for none; got -1"),
    (lambda: RegionBranch(6, 0), "expected n_classes >= 1; got 0; pass the size"),
    (lambda: RegionBranch(6, C, dropout=1.0), r"expected a dropout in \[0, 1\); got 1.0; use 0 for none"),
    (lambda: RegionBranch(6, C, scale=0.0), "expected a scale > 0; got 0.0; 1 is the original's default"),
    (
        lambda: RegionBranch(6, 300),
        "an ignore_index that is none of the classes 0 to 299; got 255; use -1",
    ),
    (lambda: region_means(maps_of(), labels_of(), C, ignore_index=4), "none of the classes 0 to 4; got 4; use -1"),
    (lambda: images_with_class([[[0]]], 300), "none of the classes 0 to 299; got 255; use -1"),
    (lambda: images_with_class([[0, 1]], C), r"label maps \(H, W\); got shape \(2,\); put a single map into a list"),
    (lambda: images_with_class([[[0]], [[7]]], C), "or 255 for none; got 7 in label map 1; renumber the classes"),
    (lambda: images_with_class([[[0.5]]], C), "or 255 for none; got 0.5 in label map 0; renumber the classes"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[-30:] for _, message in WRONG])
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_images_with_a_class_are_counted_once_whatever_their_size() -> None:
    label_maps = [
        labels_of()[0].numpy().astype(np.uint8),
        torch.zeros(3, 2, dtype=torch.int64),
        np.full((2, 2), IGNORED),
    ]
    assert images_with_class(label_maps, C).tolist() == [2, 1, 1, 0, 1]
    assert images_with_class(labels_of(), C).tolist() == [2, 2, 2, 0, 2]
    assert images_with_class([[[0, 9]]], C, ignore_index=9).tolist() == [1, 0, 0, 0, 0]
    assert images_with_class([], C).tolist() == [0] * C
