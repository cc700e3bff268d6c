"""`export`: one file that computes what the network does, and says what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from cli import main
from pipelines import ExportConfig, RetrainConfig, export, load_model, retrain
from pipelines.exported_files import FORMATS
from pipelines.model_files import ModelDescription, TrainedClassifier, build_classifier, save_model
from pipelines.portable_program import PortableClassifier, trace
from rebalance.data.digits import read_digits
from rebalance.errors import InputError, RunError

PIXELS = read_digits().test.images[:6]
VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}


def of_images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)


def probabilities(file: Path, pixels: np.ndarray) -> np.ndarray:
    found: Tensor = torch.export.load(file).module()(of_images(pixels))
    return found.numpy()  # has no gradient


def model_folder(folder: Path, backbone: str, size: int, **options: Any) -> Path:
    """A network with random weights whose batch norms have seen data."""
    description = ModelDescription(
        backbone=backbone,
        stem="auto",
        head="linear",
        scale=1.0,
        image_size=size,
        mean=(0.5, 0.25, 0.1),
        std=(0.2, 0.3, 0.4),
        classes=("two words", "猫", "c"),
        train_counts=(500, 50, 5),
        backbone_options=options,
    )
    torch.manual_seed(0)
    classifier = build_classifier(description)
    for _ in range(3):
        classifier(torch.randn(4, 3, size, size))
    save_model(folder, classifier, description)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model", "small_cnn", 8)


# The same outputs


@pytest.mark.parametrize("method", ["ldam", "sphereface", "paco", "reslt", "autoencoder"])
def test_a_trained_method_computes_the_same(
    method: str, train_first_stage: Callable[..., Path], tmp_path: Path
) -> None:
    own = {"objective": {"option": ("encoder=small_cnn",)}} if method == "autoencoder" else {}
    run = train_first_stage(tmp_path, method, 3, **own)
    made = export(ExportConfig(run=run))
    assert made.file == run / "classifier.pt2"
    assert made.file.stat().st_size == made.n_bytes
    assert made.largest_difference < 1e-5
    np.testing.assert_allclose(probabilities(made.file, PIXELS), load_model(run).predict_proba(PIXELS), atol=1e-5)


@pytest.mark.parametrize("method", ["crt", "lws", "ncm", "logit_adjustment"])
def test_a_second_stage_computes_the_same(
    method: str, plain_stage: Path, retrain_config: Callable[..., RetrainConfig], tmp_path: Path
) -> None:
    run = retrain(retrain_config(plain_stage, method, tmp_path)).folder
    expected = load_model(run).predict_proba(PIXELS)
    first = load_model(plain_stage).predict_proba(PIXELS)
    made = export(ExportConfig(run=run, out=tmp_path / "second.pt2"))
    np.testing.assert_allclose(probabilities(made.file, PIXELS), expected, atol=1e-5)
    assert np.abs(expected - first).max() > 1e-3


@pytest.mark.parametrize(
    ("backbone", "size", "options"),
    [
        ("resnet20", 16, {}),
        ("unet", 16, {}),
        ("resnet18", 32, {}),
        ("transformers", 16, {"config": transformers.ViTConfig(**VIT, image_size=16).to_dict()}),
        ("transformers", 32, {"config": transformers.CLIPVisionConfig(**VIT, image_size=32).to_dict()}),
        (
            "transformers",
            32,
            {"config": transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]).to_dict()},
        ),
    ],
)
def test_a_backbone_computes_the_same_for_one_image_and_for_many(
    backbone: str, size: int, options: dict[str, Any], tmp_path: Path
) -> None:
    made = export(ExportConfig(run=model_folder(tmp_path / "model", backbone, size, **options)))
    pixels = np.random.default_rng(0).integers(0, 256, (7, size, size, 3), dtype=np.uint8)
    expected = load_model(tmp_path / "model").predict_proba(pixels)
    for n in (1, 2, 7):
        np.testing.assert_allclose(probabilities(made.file, pixels[:n]), expected[:n], atol=1e-5)


def test_logits_are_those_of_the_classifier(folder: Path, tmp_path: Path) -> None:
    made = export(ExportConfig(run=folder, outputs="logits", out=tmp_path / "new" / "logits.pt2"))
    model = load_model(folder)
    with torch.no_grad():
        expected = model.classifier(model.preprocess(PIXELS))
        torch.testing.assert_close(torch.export.load(made.file).module()(of_images(PIXELS)), expected)


# The file


def test_the_file_explains_itself_where_nothing_but_torch_is(folder: Path) -> None:
    made = export(ExportConfig(run=folder))
    code = f"""
import sys
for name in ("cli", "generators", "pipelines", "rebalance", "torchvision", "transformers"):
    sys.modules[name] = None
import torch
extra = {{"description.json": ""}}
classifier = torch.export.load({str(made.file)!r}, extra_files=extra).module()
assert classifier(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)).shape == (3, 3)
print(extra["description.json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["classes"] == ["two words", "猫", "c"]
    assert about["train_counts"] == [500, 50, 5]
    assert about["image_size"] == 8
    assert about["input"] == "uint8 RGB images (batch, 3, 8, 8), 0 to 255"
    assert about["output"] == "probabilities (batch, 3), in the order of classes"
    assert about["made_by"].startswith("longtail-rebalance 0.")


def test_images_of_another_size_are_refused_in_the_words_of_the_page(folder: Path, tmp_path: Path) -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "trained-model.md").read_text().split())
    pixels = np.zeros((1, 9, 9, 3), dtype=np.uint8)
    with pytest.raises(AssertionError, match="Guard failed"):
        probabilities(export(ExportConfig(run=folder)).file, pixels)
    assert '"Guard failed"' in page
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    made = export(ExportConfig(run=folder, out=tmp_path / "classifier.onnx", format="onnx"))
    with pytest.raises(Exception, match="invalid dimensions"):
        runtime.InferenceSession(made.file).run(None, {"images": of_images(pixels).numpy()})
    assert '"invalid dimensions"' in page


def test_the_file_does_not_name_folders_of_the_machine_that_wrote_it(folder: Path) -> None:
    content = export(ExportConfig(run=folder)).file.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_the_program_moves_to_another_device(tmp_path: Path) -> None:
    options = {"config": transformers.ViTConfig(**VIT, image_size=16).to_dict()}
    made = export(ExportConfig(run=model_folder(tmp_path / "model", "transformers", 16, **options)))
    moved = move_to_device_pass(torch.export.load(made.file), "meta").module()
    assert moved(torch.zeros(5, 3, 16, 16, dtype=torch.uint8, device="meta")).shape == (5, 3)


def test_onnx_computes_the_same_and_explains_itself(plain_stage: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    made = export(ExportConfig(run=plain_stage, out=tmp_path / "classifier.onnx"))
    assert made.format == "onnx"
    assert made.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(made.file)
    shapes = [(value.name, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [("images", ["batch", 3, 8, 8]), ("probabilities", ["batch", 10])]
    expected = load_model(plain_stage).predict_proba(PIXELS)
    for n in (1, 6):
        (found,) = session.run(None, {"images": of_images(PIXELS[:n]).numpy()})
        np.testing.assert_allclose(found, expected[:n], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(load_model(plain_stage).classes)
    assert about["input"] == "uint8 RGB images (batch, 3, 8, 8), 0 to 255"
    assert str(Path(__file__).parents[2]).encode() not in made.file.read_bytes()


# Refused


def test_a_file_that_computes_something_else_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(content: bytes) -> Callable[[Tensor], Tensor]:
        program = FORMATS["pt2"].load(content)
        return lambda images: program(images).roll(1, dims=1)

    monkeypatch.setattr("pipelines.exporting.FORMATS", {"pt2": replace(FORMATS["pt2"], load=load)})
    out = tmp_path / "classifier.pt2"
    out.write_text("an earlier one")
    with pytest.raises(RunError, match=r"differs from the network by 0\.\d+, more than 0.001: nothing was written"):
        export(ExportConfig(run=folder, out=out))
    assert out.read_text() == "an earlier one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier.pt2", "model"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_differ(
    wrong: float, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(content: bytes) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.full((len(images), 3), wrong)

    monkeypatch.setattr("pipelines.exporting.FORMATS", {"pt2": replace(FORMATS["pt2"], load=load)})
    with pytest.raises(RunError, match="differs from the network"):
        export(ExportConfig(run=folder))
    assert not (folder / "classifier.pt2").exists()


def test_a_network_that_cannot_be_exported_is_one_clear_error(folder: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3)) if float(images.sum()) > 0 else images.amax(dim=(2, 3))

    model = load_model(folder)
    undecided = TrainedClassifier(Undecided(), model.description)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="torch cannot export this network: "):
        trace(PortableClassifier(undecided, "logits").eval(), 8)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--out", "model.pth"], "expected --out FILE.pt2 or FILE.onnx\n  got model.pth"),
        (["--out", "model.pt2", "--format", "onnx"], "expected --out FILE.onnx\n  got model.pt2"),
        (["--out", "folder.pt2"], "expected --out FILE.pt2 or FILE.onnx\n  got folder.pt2"),
    ],
)
def test_a_name_that_does_not_go_with_the_format_is_refused_first(
    words: Sequence[str], error: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "folder.pt2").mkdir()
    assert main(["export", "nowhere", *words]) == 2
    assert error in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["folder.pt2"]


def test_a_place_where_no_file_can_be_written_is_refused_before_the_network_is_read(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(InputError, match=r"a folder to write a\.pt2 into; got .*file; choose another --out"):
        export(ExportConfig(run=here / "nowhere", out=Path("file/a.pt2")))


def test_missing_packages_are_named_with_what_installs_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.exported_files.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"got no onnxscript; pip install onnxscript; or take --format pt2"):
        export(ExportConfig(run=folder, format="onnx"))
    assert not (folder / "classifier.onnx").exists()


def test_weights_that_no_onnx_file_holds_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.exported_files._ONNX_BYTES", 1000)
    program = trace(PortableClassifier(load_model(folder), "logits").eval(), 8)
    with pytest.raises(InputError, match="weights of less than 2 GB for ONNX"):
        FORMATS["onnx"].write(program, "logits", {})


def test_the_command_says_what_it_wrote_and_how_near_it_is(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder), "--out", "classifier.pt2"]) == 0
    shown = capsys.readouterr().err
    assert "classifier.pt2, 0." in shown
    assert "uint8 RGB images (batch, 3, 8, 8) → probabilities" in shown
    assert "loaded again, 8 random images: at most " in shown
