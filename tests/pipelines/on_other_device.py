"""Trains, re-trains, synthesizes and predicts, on the CPU or on a device beside it.

    python on_other_device.py cpu|other FOLDER BUILD

The runs go to FOLDER; the device is built in BUILD.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils import cpp_extension

from pipelines import (
    BudgetConfig,
    DataConfig,
    EvaluateConfig,
    FilterConfig,
    GeneratorConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    PredictConfig,
    RetrainConfig,
    SynthesizeConfig,
    TrainConfig,
    evaluate,
    predict,
    retrain,
    session,
    synthesize,
    train,
)
from rebalance.data.digits import read_digits

SOURCE = Path(__file__).parents[1] / "assets" / "other_device" / "device.cpp"
OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in ("ce", "balanced_mixup", "mixup_drw", "sphereface", "supcon", "reslt")},
    "ldam_drw": {"method": "ldam_drw", "option": ("defer_until=0.5",)},
    "rsg": {"method": "rsg", "option": ("start=0.5",)},
    "paco": {"method": "paco", "option": ("queue=200", "projection=8")},
    "bcl": {"method": "bcl", "option": ("projection=8", "hidden=16")},
    "autoencoder": {"method": "autoencoder", "option": ("stage=separate", "pretraining=0.5")},
    "cmo": {"method": "balanced_softmax", "mix": "cmo:1:1:0.5"},
}
OPTIMIZATIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in OBJECTIVES},
    "sam": {"sam": 0.1},
    "averaged": {"model_ema": 0.9},
    "bf16": {"amp": "bf16"},
}


def add_device(build: Path) -> None:
    """Build the device, and let sessions take it."""
    cpp_extension.load("other_device", [str(SOURCE)], extra_cflags=["-O1", "-w"], build_directory=str(build))
    torch.utils.rename_privateuse1_backend("other")
    module: Any = ModuleType("torch.other")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.manual_seed_all = module.set_device = module.synchronize = lambda *_: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module._is_in_bad_fork = lambda: False
    torch._register_device_module("other", module)
    torch.utils.generate_methods_for_privateuse1_backend()
    session._check_device = lambda device: None
    session.Accelerator = lambda **settings: Accelerator(**{**settings, "cpu": False})  # type: ignore[assignment]


def main(name: str, folder: Path, build: Path) -> None:
    """Everything that uses a device, once."""
    device = "cpu"
    if name == "other":
        add_device(build)
        device = "other:0"
    data = DataConfig(data="digits")
    place = PlaceConfig(device=device, report_to="none", output=folder)
    for experiment, settings in OPTIMIZATIONS.items():
        train(
            TrainConfig(
                data=data,
                objective=ObjectiveConfig(**OBJECTIVES.get(experiment, {"method": "balanced_softmax"})),
                optimization=OptimizationConfig(**{"updates": 12, "amp": "no", "clip_grad": 1.0, **settings}),
                place=PlaceConfig(device=device, report_to="none", output=folder, experiment=experiment),
            )
        )
    (folder / "device.txt").write_text(str(session.start_session(device).device))
    short = OptimizationConfig(updates=4, warmup_epochs=0.0, amp="no")
    for method in ("crt", "tau_norm", "ncm"):
        retrain(RetrainConfig(run=folder / "train" / "ce", method=method, optimization=short, place=place))
    generator = GeneratorConfig(generator_updates=20, generator_channels=(8, 16), steps=3, head_to_tail=(0.5, 1.0))
    out = folder / "synthetic"
    synthesize(
        SynthesizeConfig(
            data=data,
            out=out,
            generator=generator,
            budget=BudgetConfig(max_images=20),
            filter=FilterConfig(features=folder / "train" / "ce"),
            device=device,
            amp="no",
        )
    )
    train(TrainConfig(data=data, synthetic=out, optimization=short, place=place))
    evaluate(EvaluateConfig(run=folder / "train" / "ce", device=device))
    for i, image in enumerate(read_digits().train.images[:5]):
        Image.fromarray(image).save(folder / f"{i}.png")
    images = tuple(folder / f"{i}.png" for i in range(5))
    predict(PredictConfig(run=folder / "train" / "bf16", images=images, out=folder / "predicted.csv", device=device))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
