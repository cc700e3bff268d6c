"""Models of timm by name, with weights of a local file; nothing is downloaded and nothing unpickled."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor

from rebalance.errors import InputError

PREFIX = "timm/"
"""How the names of these backbones begin."""


def check_timm(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        InputError: timm is not installed, or has no such model.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(f"the package timm for {name!r}", "none", "pip install timm") from error
    model = name.removeprefix(PREFIX)
    tagged: list[str] = []
    if timm.is_model(model):
        try:
            timm.get_pretrained_cfg(model)
            return
        except RuntimeError:  # a tag that this model does not have
            tagged = timm.list_pretrained(f"{model.split('.')[0]}.*")
    close = tagged or difflib.get_close_matches(model, timm.list_models(), n=3)
    advice = f"did you mean {', '.join(PREFIX + known for known in close)}?" if close else "see timm.list_models()"
    raise InputError("a model of timm", repr(name), advice)


def timm_net(name: str, image_size: int, weights: Path | None) -> Any:
    """The model without its classifier.

    Args:
        name: One that `check_timm` lets pass.
        image_size: Height and width of the images, px, for models that are made for one size.
        weights: A local weights file in timm's layout; positions are interpolated where the model can.

    Raises:
        InputError: A size that the model cannot be made for; no such file, or weights of another model.
    """
    import timm

    model = name.removeprefix(PREFIX)
    about = timm.get_pretrained_cfg(model)
    sized = {"img_size": image_size} if about is not None and about.fixed_input_size else {}
    if weights is None:
        try:
            return _make(model, num_classes=0, **sized)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise InputError(
                f"a size that {name} can be made for", f"{image_size} px: {error}", "try another --image-size"
            ) from error
    state = _read(weights)
    n_classes = _n_classes(state, about.classifier if about is not None else None)
    # with as many classes as the file has, timm lets no weight be missing
    overlay = {"state_dict": state, "num_classes": n_classes, "label_offset": 0, "custom_load": False}
    try:
        net = _make(model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=n_classes, **sized)
    except Exception as error:  # its converters fail in many ways on the files of other models
        said = " ".join(str(error).split())
        raise InputError(
            f"weights of {name} in {weights.name}",
            f"{type(error).__name__}: {said[:300]}{'…' * (len(said) > 300)}",
            "name the model that they are from",
        ) from error
    net.pretrained_cfg.pop("state_dict")  # which would hold the file in memory
    net.reset_classifier(0)
    return net


def _make(model: str, **settings: Any) -> Any:
    import timm

    return timm.create_model(model, **settings)


def _read(path: Path) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    if not path.is_file():
        raise InputError("a weights file", f"no file at {path}", "give the path of a .safetensors or .pth file")
    try:
        state: dict[str, Tensor] = load_state_dict(str(path), weights_only=True)
    except Exception as error:
        raise InputError("a readable weights file", f"{path}: {error}", "save it as .safetensors") from error
    return state


def _n_classes(state: dict[str, Tensor], classifier: str | tuple[str, ...] | None) -> int:
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    return next((len(state[f"{name}.weight"]) for name in names if f"{name}.weight" in state), 0)
