import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rebalance.data.augmentation import Augmentation, MultiView, normalize, parse_augmentation, parse_views
from rebalance.data.augmentation.parsing import PRESETS, STEPS
from rebalance.errors import InputError

NAMES = [*STEPS, *PRESETS]


def _images(n, size=32, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _generator(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [8, 9, 32, 33])
@pytest.mark.parametrize("name", NAMES)
def test_shards_are_augmented_as_the_whole_batch(name, size):
    images = _images(23, size)
    augment = parse_augmentation(name, image_size=size)
    uniforms = augment.draw(23, _generator())
    whole = augment(images, uniforms)
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    for world in (2, 3, 23):  # 23: one image a rank
        for rank in range(world):
            part = augment(images[rank::world], uniforms[rank::world])
            assert torch.equal(part, whole[rank::world])


@settings(max_examples=25, deadline=None)
@given(
    text=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("+".join),
    size=st.integers(8, 20),
    n=st.integers(1, 9),
)
def test_any_chain_keeps_shape_dtype_and_input(text, size, n):
    images = _images(n, size)
    before = images.clone()
    augment = parse_augmentation(text, image_size=size)
    result = augment(images, augment.draw(n, _generator()))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_same_seed_same_images_other_seed_other_images(name):
    images = _images(40)
    augment = parse_augmentation(name, image_size=32)
    first = augment(images, augment.draw(40, _generator(0)))
    assert torch.equal(first, augment(images, augment.draw(40, _generator(0))))
    assert not torch.equal(first, augment(images, augment.draw(40, _generator(1))))


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    views = parse_views("strong,sim,rand", image_size=32)
    views(_images(4), views.draw(4, _generator()))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("make", [parse_augmentation, parse_views])
def test_draws_are_uniform_between_0_and_1(make):
    augment = make("sim", image_size=32)
    uniforms = augment.draw(2_000, _generator())
    assert uniforms.shape == (2_000, augment.n_uniforms)
    torch.testing.assert_close(uniforms.mean(dim=0), torch.full((augment.n_uniforms,), 0.5), atol=0.03, rtol=0)
    assert 0 <= uniforms.min() < 0.001 < 0.999 < uniforms.max() < 1


def test_steps_in_a_row_are_independent_of_each_other():
    images = _images(1, 4).expand(4_000, -1, -1, -1)
    augment = parse_augmentation("flip+gray:0.5", image_size=4)
    result = augment(images, augment.draw(4_000, _generator()))
    gray = (result[:, :1] == result).flatten(1).all(dim=1)
    plain = (result == images).flatten(1).all(dim=1)
    mirrored = (result == images.flip(-1)).flatten(1).all(dim=1)
    shares = torch.stack([gray, plain, mirrored]).float().mean(dim=1)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]), atol=0.04, rtol=0)


def test_none_is_the_identity():
    images = _images(3)
    augment = parse_augmentation("none", image_size=32)
    assert torch.equal(augment(images, augment.draw(3, _generator())), images)


def test_channels_last_images_are_augmented_as_contiguous_ones():
    images = _images(16)
    augment = parse_augmentation("strong+sim", image_size=32)
    uniforms = augment.draw(16, _generator())
    assert torch.equal(augment(images.to(memory_format=torch.channels_last), uniforms), augment(images, uniforms))


def test_views_are_stacked_and_independent():
    images = _images(64)
    views = parse_views("none,auto,auto", image_size=32)
    result = views(images, views.draw(64, _generator()))
    assert result.shape == (64, 3, 3, 32, 32)
    assert torch.equal(result[:, 0], images)
    assert (result[:, 1] == result[:, 2]).flatten(1).all(dim=1).float().mean() < 0.1


def test_shards_of_views_are_those_of_the_whole():
    images = _images(10)
    views = parse_views("strong,sim,sim", image_size=32)
    uniforms = views.draw(10, _generator())
    whole = views(images, uniforms)
    assert all(torch.equal(views(images[r::2], uniforms[r::2]), whole[r::2]) for r in range(2))


@pytest.mark.parametrize(
    ("images", "uniforms", "text"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3), "uint8 images"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 3), "uint8 images"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 3), r"uniforms \(2, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 2), r"uniforms \(2, 3\)"),
    ],
)
@pytest.mark.parametrize("make", [parse_augmentation, parse_views])
def test_wrong_input_is_refused(make, images, uniforms, text):
    with pytest.raises(InputError, match=text):
        make("auto", image_size=8)(images, uniforms)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("auto", "crop:4+flip"),
        ("strong", "crop+flip+autoaugment:128+cutout:16"),
        ("sim", "resizedcrop+flip:0.5+jitter+gray+blur"),
        ("none+flip", "flip"),
        ("auto + cutout", "crop+flip+cutout:16"),
        ("randaugment:2:10", "randaugment"),
        ("jitter:0.4:0.1:0.8", "jitter"),
    ],
)
def test_names_with_the_same_meaning(name, same):
    assert parse_augmentation(name, image_size=32) == parse_augmentation(same, image_size=32)


@pytest.mark.parametrize(("size", "pad", "side"), [(8, 1, 4), (9, 1, 4), (32, 4, 16), (64, 8, 32), (1, 1, 1)])
def test_pad_and_side_follow_the_image_size(size, pad, side):
    steps = parse_augmentation("crop+cutout", image_size=size).steps
    assert (steps[0].pad, steps[1].side) == (pad, side)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop+flp", "did you mean 'flip'"),
        ("stong", "did you mean 'strong'"),
        ("", "valid: auto, autoaugment"),
        ("crop:x", "crop with at most these options: int"),
        ("crop:4:4", "crop with at most these options: int"),
        ("strong:2", "valid:"),
        ("resizedcrop:1.5", "smallest share"),
        ("flip:nan", r"share of the images in \[0, 1\]"),
        ("gray:2", r"share of the images in \[0, 1\]"),
        ("strong,,sim", "valid:"),
    ],
)
def test_wrong_names_and_options_are_refused_with_advice(text, message):
    with pytest.raises(InputError, match=message):
        parse_views(text, image_size=32)


def test_the_documented_types_come_out():
    assert isinstance(parse_augmentation("sim", image_size=32), Augmentation)
    assert isinstance(parse_views("sim", image_size=32), MultiView)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3, 6, 4), (5, 2, 3, 6, 4)])
def test_normalize_is_subtraction_and_division(shape, dtype, channels_last):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=_generator())
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    result = normalize(images, mean, std, dtype=dtype, channels_last=channels_last)
    expected = (images.double() / 255 - mean.double().view(3, 1, 1)) / std.double().view(3, 1, 1)
    assert result.shape == shape
    torch.testing.assert_close(result, expected.to(dtype), atol=2e-6, rtol=0.0 if dtype == torch.float32 else 2**-7)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.flatten(0, -4).is_contiguous(memory_format=layout)


class _OneDevice(TorchDispatchMode):
    """Fails where an operation mixes tensors of two devices, other than to copy from one to the other."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim > 0}
        assert len(devices) < 2, func
        return result


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_device_or_mixes_devices(name, monkeypatch):
    # Tensors on the meta device have no values: whatever asks for one, which a GPU would have to be waited for, fails.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    images = torch.empty(40, 3, 16, 16, dtype=torch.uint8, device="meta")
    views = parse_views(name, image_size=16)
    uniforms = views.draw(40, _generator())
    with _OneDevice():
        result = normalize(views(images, uniforms), torch.ones(3, device="meta"), torch.ones(3, device="meta"))
    assert (result.shape, result.device.type) == ((40, 1, 3, 16, 16), "meta")


def test_importing_the_package_does_not_import_torchvision():
    code = "import sys, rebalance.data.augmentation; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_normalize_takes_bytes_only_and_leaves_them_alone():
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    before = images.clone()
    normalize(images, torch.zeros(3), torch.ones(3))
    assert torch.equal(images, before)
    with pytest.raises(InputError, match="uint8 images; got "):
        normalize(images.float(), torch.zeros(3), torch.ones(3))
