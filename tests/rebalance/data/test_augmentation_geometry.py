import math

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from rebalance.data.augmentation.geometry import Crop, Cutout, Flip, ResizedCrop, crop, resized_crop
from rebalance.data.augmentation.rows import choose
from rebalance.errors import InputError

SIZES = [(8, 8), (9, 9), (32, 32), (12, 20)]


def _images(n, size=(32, 32), seed=0):
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _uniforms(n, step, seed=1):
    return torch.rand(n, step.n_uniforms, generator=torch.Generator().manual_seed(seed))


def test_choose_never_reaches_n():
    largest = torch.tensor([1.0 - 2.0**-24])  # the largest number torch.rand draws
    assert all(choose(largest, n).item() == n - 1 for n in range(1, 3000))


def test_choose_is_uniform():
    counts = torch.bincount(choose(torch.rand(70_000, generator=torch.Generator().manual_seed(0)), 7), minlength=7)
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pad", [1, 4])
def test_crop_is_torchvisions_padded_crop(size, pad):
    images = _images(40, size)
    top, left = torch.randint(0, 2 * pad + 1, (2, 40), generator=torch.Generator().manual_seed(2))
    top[0], left[0], top[1], left[1] = 0, 0, 2 * pad, 2 * pad
    result = crop(images, top, left, pad)
    for image, y, x, got in zip(images, top.tolist(), left.tolist(), result, strict=True):
        assert torch.equal(got, TF.crop(TF.pad(image, [pad]), y, x, *size))


def test_crop_offsets_are_uniform_and_independent():
    step = Crop(pad=1)
    image = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    image[0, :, 1, 1] = 255  # where the centre goes tells the offset
    result = step(image.expand(9_000, -1, -1, -1).contiguous(), _uniforms(9_000, step))
    share = (result[:, 0] > 0).float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((3, 3), 1 / 9), atol=0.015, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_flip_mirrors_half_of_the_images(size):
    images, step = _images(400, size), Flip()
    result = step(images, _uniforms(400, step))
    mirrored = (result == images.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(result[~mirrored], images[~mirrored])
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize(("p", "flipped"), [(0.0, False), (1.0, True)])
def test_flip_at_the_ends_of_its_probability(p, flipped):
    images, step = _images(3), Flip(p)
    assert torch.equal(step(images, _uniforms(3, step)), images.flip(-1) if flipped else images)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [1, 4, 5, 16])
def test_cutout_is_a_black_square_cut_off_at_the_border(size, side):
    step = Cutout(side)
    images, uniforms = _images(50, size), _uniforms(50, step)
    expected = images.clone()
    for image, (u, v) in zip(expected, uniforms.tolist(), strict=True):
        y, x = int(u * size[0]), int(v * size[1])
        image[:, max(y - side // 2, 0) : y - side // 2 + side, max(x - side // 2, 0) : x - side // 2 + side] = 0
    assert torch.equal(step(images, uniforms), expected)


@pytest.mark.parametrize("size", SIZES)
def test_resized_crop_is_torchvisions(size):
    step = ResizedCrop(0.08)
    images, uniforms = _images(60, size), _uniforms(60, step)
    boxes = step.boxes(uniforms, *size)
    result = resized_crop(images, boxes)
    assert torch.equal(result, step(images, uniforms))
    for image, (top, left, height, width), got in zip(images, boxes.int().tolist(), result, strict=True):
        expected = TF.resized_crop(image.float(), top, left, height, width, list(size), antialias=True)
        assert (got.float() - expected).abs().max() <= 0.5 + 1e-2


def test_resized_crop_of_the_whole_image_changes_nothing():
    images = _images(2, (7, 7))
    assert torch.equal(resized_crop(images, torch.tensor([[0.0, 0.0, 7.0, 7.0]] * 2)), images)


def test_resized_crop_boxes_are_distributed_as_torchvisions():
    from torchvision.transforms.v2 import RandomResizedCrop

    size, n = (32, 32), 4_000
    step = ResizedCrop(0.2)
    ours = step.boxes(_uniforms(n, step), *size)
    theirs = torch.empty(n, 4)
    transform, image = RandomResizedCrop(32, scale=(0.2, 1.0)), torch.zeros(3, *size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for row in theirs:
            box = transform.make_params([image])
            row[:] = torch.tensor([box["top"], box["left"], box["height"], box["width"]])
    for column in range(4):
        a, b = ours[:, column], theirs[:, column]
        edges = torch.arange(34.0)
        distance = ((a[:, None] < edges).float().mean(0) - (b[:, None] < edges).float().mean(0)).abs().max()
        assert distance < 1.95 * math.sqrt(2 / n)  # Kolmogorov and Smirnov, 0.1 %
    assert abs((ours[:, 2] * ours[:, 3]).mean() - (theirs[:, 2] * theirs[:, 3]).mean()) < 20
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 32).all()


@pytest.mark.parametrize(("size", "expected"), [((8, 40), (8, 11)), ((40, 8), (11, 8)), ((9, 10), (9, 10))])
def test_resized_crop_falls_back_to_the_largest_centred_crop(size, expected):
    step = ResizedCrop(1.0)  # the whole area never fits at another aspect ratio
    uniforms = torch.full((2, step.n_uniforms), 0.9)
    box = step.boxes(uniforms, *size)[0].int().tolist()
    assert box == [(size[0] - expected[0]) // 2, (size[1] - expected[1]) // 2, *expected]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Crop(0), "at least 1 pixel"),
        (lambda: Cutout(0), "at least 1 pixel"),
        (lambda: ResizedCrop(0.0), "share"),
    ],
)
def test_options_out_of_range_are_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()
