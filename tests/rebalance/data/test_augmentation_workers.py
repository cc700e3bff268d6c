import pickle

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from rebalance.data.augmentation import worker_transform
from rebalance.data.augmentation.parsing import PRESETS, STEPS
from rebalance.errors import InputError


def _image(height=60, width=90, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*STEPS, *PRESETS])
def test_every_name_gives_uint8_views_of_the_size(name):
    result = worker_transform(f"{name},none", image_size=40)(_image(), 3)
    assert type(result) is torch.Tensor
    assert (result.shape, result.dtype) == ((2, 3, 40, 40), torch.uint8)


def test_without_a_step_the_view_is_the_resized_centre():
    image = _image()
    expected = TF.center_crop(TF.resize(image, [40], antialias=True), [40, 40])
    assert torch.equal(worker_transform("none", image_size=40)(image, 0)[0], expected)


def test_pil_images_are_taken():
    image = Image.fromarray(_image(40, 40).permute(1, 2, 0).numpy())
    assert torch.equal(worker_transform("none", image_size=40)(image, 0)[0], TF.pil_to_tensor(image))


@pytest.mark.parametrize("name", [name for name in [*STEPS, *PRESETS] if name != "none"])
def test_views_depend_on_image_and_seed_alone(name):
    transform = worker_transform(f"{name},{name}", image_size=32)
    copy = pickle.loads(pickle.dumps(transform))
    first = [transform(_image(), seed) for seed in range(25)]
    torch.manual_seed(1)  # another worker, in another state
    again = [copy(_image(), seed) for seed in reversed(range(25))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(first[0], other) for other in first[1:])
    assert any(not torch.equal(views[0], views[1]) for views in first)


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    worker_transform("strong", image_size=32)(_image(), 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_cutout_blackens_a_square_and_reaches_over_the_border():
    transform = worker_transform("cutout:16", image_size=32)
    black = torch.stack([(transform(torch.full((3, 32, 32), 9, dtype=torch.uint8), s)[0, 0] == 0) for s in range(300)])
    area = black.sum(dim=(1, 2))
    assert area.max() == 256
    assert 64 <= area.min() < 100
    torch.testing.assert_close(area.float().mean().item(), 14.0**2, rtol=0.1, atol=0)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'strong'"):
        worker_transform("stron", image_size=32)
