import math

import pytest
import torch
from torchvision.transforms import v2

from rebalance.data.augmentation.operations import OPERATIONS
from rebalance.data.augmentation.policies import CIFAR10_POLICY, AutoAugment, RandAugment, TrivialAugment, magnitudes
from rebalance.errors import InputError

POLICIES = [AutoAugment(), RandAugment(2, 10), RandAugment(3, 30, 0), TrivialAugment()]


def _uniforms(n, step, seed=1):
    return torch.rand(n, step.n_uniforms, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (12, 20)])
def test_policy_is_torchvisions_operations_in_turn(policy, size):
    n = 150
    images = torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    uniforms = _uniforms(n, policy)
    turns = list(policy.turns(uniforms, *size))
    reference = v2.AutoAugment(fill=policy.fill)
    result = policy(images, uniforms)
    for i in range(n):
        expected = images[i]
        for operation, magnitude in turns:
            name, m = OPERATIONS[operation[i]], magnitude[i].item()
            expected = reference._apply_image_or_video_transform(
                expected, name, m / 255 if name == "Solarize" else m, v2.InterpolationMode.NEAREST, reference._fill
            )
        # One level apart where either cuts to whole numbers just under one; what comes after may spread it.
        assert (result[i] == expected).float().mean() > 0.95, [OPERATIONS[operation[i]] for operation, _ in turns]


def test_auto_augment_has_torchvisions_policy():
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert tuple(tuple((name, p, level or 0) for name, p, level in pair) for pair in theirs) == CIFAR10_POLICY


@pytest.mark.parametrize(
    ("bins", "wide", "reference"), [(10, False, "auto"), (31, False, "rand"), (31, True, "trivial")]
)
def test_magnitudes_are_torchvisions(bins, wide, reference):
    classes = {"auto": v2.AutoAugment, "rand": v2.RandAugment, "trivial": v2.TrivialAugmentWide}
    table = magnitudes(bins, 12, 20, wide=wide)
    for name, (make, _) in classes[reference]._AUGMENTATION_SPACE.items():
        theirs = make(bins, 12, 20)
        expected = torch.zeros(bins) if theirs is None else theirs * (255.0 if name == "Solarize" else 1.0)
        torch.testing.assert_close(table[OPERATIONS.index(name)], expected, check_dtype=False)


def test_auto_augment_takes_each_pair_and_operation_as_often_as_it_should():
    n, policy = 100_000, AutoAugment()
    uniforms = _uniforms(n, policy)
    turns = list(policy.turns(uniforms, 32, 32))
    for turn, (operation, _) in enumerate(turns):
        for name in OPERATIONS[1:]:
            p = sum(pair[turn][1] for pair in CIFAR10_POLICY if pair[turn][0] == name) / 25
            got = (operation == OPERATIONS.index(name)).float().mean().item()
            assert abs(got - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-9, name
    both = (turns[0][0] == OPERATIONS.index("ShearY")) & (turns[1][0] == OPERATIONS.index("TranslateY"))
    assert abs(both.float().mean() - 0.5 * 0.7 / 25) < 2e-3  # the two probabilities are independent


@pytest.mark.parametrize("policy", POLICIES[1:], ids=repr)
def test_every_operation_but_invert_is_equally_likely_and_signs_are_fair(policy):
    n = 70_000
    for operation, magnitude in policy.turns(_uniforms(n, policy), 32, 32):
        counts = torch.bincount(operation, minlength=len(OPERATIONS))
        assert counts[OPERATIONS.index("Invert")] == 0
        assert (counts[:-1] - n / 14).abs().max() < 5 * math.sqrt(n / 14)
        shear = magnitude[(operation == OPERATIONS.index("ShearX")) & (magnitude != 0)]
        assert abs((shear < 0).float().mean() - 0.5) < 0.04
        assert (magnitude[operation >= OPERATIONS.index("Posterize")] >= 0).all()


def test_trivial_augment_takes_all_levels_equally_often():
    n, policy = 140_000, TrivialAugment()
    ((operation, magnitude),) = policy.turns(_uniforms(n, policy), 32, 32)
    levels, counts = magnitude[operation == OPERATIONS.index("Rotate")].abs().unique(return_counts=True)
    torch.testing.assert_close(levels, torch.linspace(0, 135, 31))
    assert (counts - 10_000 / 31).abs().max() < 5 * math.sqrt(10_000 / 31)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandAugment(0, 10), "n >= 1"),
        (lambda: RandAugment(2, 31), "m in 0"),
        (lambda: RandAugment(2, 10, 256), "fill"),
        (lambda: AutoAugment(-1), "fill"),
        (lambda: TrivialAugment(300), "fill"),
    ],
)
def test_options_out_of_range_are_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()
