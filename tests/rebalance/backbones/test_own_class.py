from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rebalance.backbones import build_backbone, check_backbone
from rebalance.errors import InputError

CODE = """
from torch import nn

from rebalance.backbones import Backbone, SmallCNN

called = []


class Own(Backbone):
    def __init__(self, image_size: int, width: int = 4) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, 8, 3, 2, 1)])
        self.stage_channels = (width, 8)
        self.options = {"width": width}
        self.image_size = image_size


class Broken(Own):
    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        self.stage_channels = (4, 9)


class WithoutSize(Backbone):
    pass


def function(**_):
    called.append(1)


not_a_backbone = nn.Linear
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"own_{abs(hash(request.node.name))}"  # each test imports a module of its own
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_class_of_ones_own_is_built_by_its_address(module: str) -> None:
    backbone = build_backbone(f"{module}:Own", image_size=16)
    assert (backbone.name, backbone.image_size, backbone.n_features) == (f"{module}:Own", 16, 8)
    assert backbone.training
    assert backbone(torch.zeros(2, 3, 16, 16)).shape == (2, 8)


def test_it_is_built_anew_with_its_options(module: str) -> None:
    backbone = build_backbone(f"{module}:Own", image_size=16, options={"width": 6})
    again = build_backbone(backbone.name, image_size=16, options=backbone.options)
    assert again.stage_channels == (6, 8)
    again.load_state_dict(backbone.state_dict())


def test_weights_are_those_of_its_state_dict(module: str, tmp_path: Path) -> None:
    backbone = build_backbone(f"{module}:Own", image_size=16)
    save_file(backbone.state_dict(), tmp_path / "a.safetensors")
    again = build_backbone(f"{module}:Own", image_size=16, weights=tmp_path / "a.safetensors")
    for one, other in zip(backbone.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"stages.0.weight of shape \(4, 3, 3, 3\) in b.safetensors; got nothing"):
        build_backbone(f"{module}:Own", image_size=16, weights=tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Owm", "a subclass of rebalance.backbones.Backbone; got .*Owm.*did you mean 'Own'"),
        ("function", "a subclass of .*valid: Broken, Own, SmallCNN, WithoutSize"),
        ("not_a_backbone", "a subclass of"),
        ("Backbone", "a subclass of"),
        ("", "a subclass of"),
    ],
)
def test_only_a_backbone_is_called(module: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_backbone(f"{module}:{name}")
    import importlib

    assert importlib.import_module(module).called == []


@pytest.mark.parametrize("name", ["no_such_module_here:Own", ":Own", ".relative:Own", "json.nothing:Own"])
def test_modules_that_cannot_be_imported_are_named(name: str) -> None:
    with pytest.raises(InputError, match=r"got '.*Own': \w+Error: .*PYTHONPATH=\."):
        check_backbone(name)


@pytest.mark.parametrize("code", ["class Own(:", "nothing_of_this_name"])
def test_modules_that_fail_are_told_with_their_error(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = f"broken_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=rf"got '{name}:Own': (SyntaxError|NameError): .*mend it"):
        check_backbone(f"{name}:Own")


def test_promises_that_are_not_kept_are_told(module: str) -> None:
    with pytest.raises(InputError, match=r"got maps \[4, 8\] and features 8; promised were \[4, 9\] and 9"):
        build_backbone(f"{module}:Broken", image_size=16)
    with pytest.raises(InputError, match=r"WithoutSize\(image_size=16\) to turn images .*got TypeError"):
        build_backbone(f"{module}:WithoutSize", image_size=16)
    with pytest.raises(InputError, match="a torchvision backbone for a stem"):
        check_backbone(f"{module}:Own", stem="small")
