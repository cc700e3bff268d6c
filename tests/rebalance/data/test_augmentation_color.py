import math

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from rebalance.data.augmentation.color import ORDERS, Blur, Gray, Jitter, blur, grayscale, jitter, turn_hue
from rebalance.errors import InputError

SIZES = [(8, 8), (9, 9), (32, 32), (12, 20)]


def _images(n, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator)
    images[0] = images[0, :1]  # grey
    images[1] = 0
    images[2] = 255
    images[3:5] = (images[3:5] // 128) * 255  # pure colours, with ties between the channels
    return images


def _uniforms(n, step, seed=1):
    return torch.rand(n, step.n_uniforms, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_jitter_is_torchvisions_in_every_order(size):
    n = len(ORDERS)
    images = _images(n, size)
    factors = 0.6 + 0.8 * torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    turn = torch.rand(n, generator=torch.Generator().manual_seed(2)) - 0.5
    result = jitter(images, ORDERS, factors, turn)
    for i in range(n):
        expected = images[i].float() / 255
        for kind in ORDERS[i].tolist():
            if kind == 3:
                expected = TF.adjust_hue(expected, turn[i].item())
            else:
                adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)[kind]
                expected = adjust(expected, factors[i, kind].item())
        assert (result[i].float() - 255 * expected).abs().max() <= 0.5 + 5e-3


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 1 / 6, 0.3])
def test_turning_the_hue_is_torchvisions(turn):
    pixels = _images(8).float()
    expected = 255 * TF.adjust_hue(pixels / 255, turn)
    torch.testing.assert_close(turn_hue(pixels, torch.full((8, 1, 1, 1), turn)), expected, atol=2e-3, rtol=0)


def test_jitter_without_strength_changes_nothing():
    images, step = _images(30), Jitter(0.0, 0.0, 1.0)
    assert torch.equal(step(images, _uniforms(30, step)), images)


def test_jitter_changes_the_share_p_of_the_images():
    images, step = _images(1_000, (2, 2))[5:], Jitter()
    changed = (step(images, _uniforms(995, step)) != images).flatten(1).any(dim=1)
    assert abs(changed.float().mean() - 0.8) < 0.05


def test_jitter_draws_factors_orders_and_turns_uniformly(monkeypatch):
    seen = {}

    def record(images, order, factors, turn):
        seen.update(order=order, factors=factors, turn=turn)
        return images

    monkeypatch.setattr("rebalance.data.augmentation.color.jitter", record)
    n, step = 24_000, Jitter(0.4, 0.1, 1.0)
    step(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), _uniforms(n, step))
    code = (seen["order"] * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    counts = code.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - n / 24).abs().max() < 5 * math.sqrt(n / 24)
    for values, low, high in ((seen["factors"], 0.6, 1.4), (seen["turn"], -0.1, 0.1)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.01 * (high - low)


def test_gray_is_pils():
    images = _images(40)
    for image, got in zip(images, grayscale(images), strict=True):
        expected = TF.pil_to_tensor(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert (got.int() - expected.int()).abs().max() <= 1
        assert (got == expected).float().mean() > 0.97


def test_gray_changes_the_share_p_of_the_images():
    images, step = _images(1_000, (2, 2))[5:], Gray()
    changed = (step(images, _uniforms(995, step)) != images).flatten(1).any(dim=1)
    assert abs(changed.float().mean() - 0.2) < 0.05


@pytest.mark.parametrize("size", [*SIZES, (5, 7), (1, 3)])
def test_blur_is_torchvisions(size):
    n = 12
    images = _images(n, size)
    sigma = torch.linspace(0.1, 2.0, n)
    radius = min(6, size[0] - 1, size[1] - 1)
    for image, s, got in zip(images, sigma.tolist(), blur(images, sigma), strict=True):
        expected = TF.gaussian_blur(image.float(), [2 * radius + 1] * 2, [s, s])
        assert (got.float() - expected).abs().max() <= 0.5 + 1e-3


def test_blur_is_done_in_float32_under_autocast():
    images, sigma = _images(6), torch.full((6,), 1.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = blur(images, sigma)
    assert torch.equal(inside, blur(images, sigma))


def test_blur_changes_the_share_p_of_the_images():
    images, step = _images(600, (8, 8))[5:], Blur()
    changed = (step(images, _uniforms(595, step)) != images).flatten(1).any(dim=1)
    assert 0.3 < changed.float().mean() < 0.56  # the narrowest kernels round to nothing


@pytest.mark.parametrize("options", [(-0.1, 0.1), (0.4, 0.6), (0.4, -0.1)])
def test_jitter_refuses_options_out_of_range(options):
    with pytest.raises(InputError, match="strength >= 0 and hue"):
        Jitter(*options)
