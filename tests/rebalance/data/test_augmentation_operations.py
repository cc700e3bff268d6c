import math

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from rebalance.data.augmentation.operations import OPERATIONS, apply_operations

SIZES = [(8, 8), (9, 9), (32, 32), (12, 20)]
MAGNITUDES = {
    "Identity": [0.0],
    "ShearX": [-0.3, -0.1, 0.0, 0.17, 0.99],
    "ShearY": [-0.3, -0.1, 0.0, 0.17, 0.99],
    "TranslateX": [-40.0, -3.9, -0.5, 0.0, 2.7, 5.0],
    "TranslateY": [-40.0, -3.9, -0.5, 0.0, 2.7, 5.0],
    "Rotate": [-29.0, -6.7, 0.0, 13.3, 90.0, 135.0],
    "Brightness": [-0.99, -0.9, -0.3, 0.0, 0.3, 0.9],
    "Color": [-0.99, -0.9, -0.3, 0.0, 0.3, 0.9],
    "Contrast": [-0.99, -0.9, -0.3, 0.0, 0.3, 0.9],
    "Sharpness": [-0.99, -0.9, -0.3, 0.0, 0.3, 0.9],
    "Posterize": [2.0, 4.0, 7.0, 8.0],
    "Solarize": [0.0, 28.3, 127.5, 170.0, 255.0],
    "AutoContrast": [0.0],
    "Equalize": [0.0],
    "Invert": [0.0],
}
EXACT = {
    "Identity",
    "TranslateX",
    "TranslateY",
    "Brightness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
}


def _images(size):
    """Noise, smooth and narrow ramps, grey, black, white, a checkerboard, two values."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    noise = torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=generator)
    ramp = torch.linspace(0, 255, height * width).view(1, 1, height, width).expand(1, 3, -1, -1)
    narrow = 100 + 40 * torch.rand(2, 3, height, width, generator=generator)
    flat = torch.tensor([0.0, 255.0, 77.0]).view(3, 1, 1, 1).expand(-1, 3, height, width)
    check = ((torch.arange(height)[:, None] + torch.arange(width)) % 2 * 200.0).expand(1, 3, -1, -1)
    return torch.cat([noise, *(part.to(torch.uint8) for part in (ramp, narrow, flat, check))])


def _torchvision(image, name, m, fill):
    if name in ("ShearX", "ShearY"):
        angle = math.degrees(math.atan(m))
        shear = [angle, 0.0] if name == "ShearX" else [0.0, angle]
        return TF.affine(image, 0.0, [0, 0], 1.0, shear, fill=fill, center=[0, 0])
    if name in ("TranslateX", "TranslateY"):
        shift = [int(m), 0] if name == "TranslateX" else [0, int(m)]
        return TF.affine(image, 0.0, shift, 1.0, [0.0, 0.0], fill=fill)
    functions = {
        "Identity": lambda: image,
        "Rotate": lambda: TF.rotate(image, m, fill=fill),
        "Brightness": lambda: TF.adjust_brightness(image, 1.0 + m),
        "Color": lambda: TF.adjust_saturation(image, 1.0 + m),
        "Contrast": lambda: TF.adjust_contrast(image, 1.0 + m),
        "Sharpness": lambda: TF.adjust_sharpness(image, 1.0 + m),
        "Posterize": lambda: TF.posterize(image, int(m)),
        "Solarize": lambda: TF.solarize(image, m),
        "AutoContrast": lambda: TF.autocontrast(image),
        "Equalize": lambda: TF.equalize(image),
        "Invert": lambda: TF.invert(image),
    }
    return functions[name]()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_torchvisions(name, size):
    images = _images(size)
    n = len(images)
    for magnitude in torch.tensor(MAGNITUDES[name]).tolist():  # as float32 has them
        operation = torch.full((n,), OPERATIONS.index(name))
        result = apply_operations(images, operation, torch.full((n,), magnitude), fill=128)
        expected = torch.stack([_torchvision(image, name, magnitude, 128) for image in images])
        if name in EXACT:
            assert torch.equal(result, expected), magnitude
        elif name in ("ShearX", "ShearY", "Rotate"):  # nearest pixels: another one where two are equally near
            assert (result == expected).float().mean() > 0.98, magnitude
        else:
            assert (result.int() - expected.int()).abs().max() <= 1, magnitude
            assert (result == expected).float().mean() > 0.98, magnitude


def test_each_image_gets_its_own_operation():
    images = _images((16, 16))[:1].expand(len(OPERATIONS), -1, -1, -1).contiguous()
    operation = torch.randperm(len(OPERATIONS), generator=torch.Generator().manual_seed(3))
    magnitude = torch.tensor([MAGNITUDES[OPERATIONS[i]][-1] for i in operation])
    result = apply_operations(images, operation, magnitude, fill=7)
    for i, which in enumerate(operation.tolist()):
        name = OPERATIONS[which]
        alone = apply_operations(images[:1], operation[i : i + 1], magnitude[i : i + 1], fill=7)
        assert torch.equal(result[i], alone[0]), name


def test_images_are_left_as_they_are():
    images = _images((10, 10))
    before = images.clone()
    for which in range(len(OPERATIONS)):
        magnitude = torch.full((len(images),), MAGNITUDES[OPERATIONS[which]][-1])
        apply_operations(images, torch.full((len(images),), which), magnitude)
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [(1, 1), (2, 5)])
def test_tiny_images_pass_through_every_operation(size):
    images = torch.randint(0, 256, (len(OPERATIONS), 3, *size), dtype=torch.uint8)
    magnitude = torch.tensor([MAGNITUDES[name][-1] for name in OPERATIONS])
    result = apply_operations(images, torch.arange(len(OPERATIONS)), magnitude)
    assert result.shape == images.shape
    sharpness = OPERATIONS.index("Sharpness")
    assert torch.equal(result[sharpness], images[sharpness])
