"""LoRA adapters of Stable Diffusion on disk: saved with what reloading needs, and never loaded without effect.

A folder holds `pytorch_lora_weights.safetensors` in diffusers' format with the adapter's configuration in its metadata
(without it the scale alpha / r is lost), `tokens.safetensors` where tokens were learnt, and `adapter.json`. Hu et al.,
LoRA, 2022; Gal et al., An Image is Worth One Word (textual inversion), 2023.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from generators.prompt_embeddings import LearntTokens
from generators.stable_diffusion_checkpoint import Checkpoint
from rebalance.errors import InputError, RunError
from rebalance.files import read_json, sha256, write_bytes, write_json, write_tensors

WEIGHTS, TOKENS, FACTS = "pytorch_lora_weights.safetensors", "tokens.safetensors", "adapter.json"
TRAINED = "trained"
"""Name of the adapter that is being trained, within its U-Net."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that was put on a U-Net, under its fingerprint as name and switched off.

    Args:
        fingerprint: Hash of its files.
        tokens: Its own tokens, if it has some.
    """

    fingerprint: str
    tokens: LearntTokens | None


def adapter_file(path: Path) -> Path:
    """The weights of an adapter: the file itself, or that of a folder.

    Raises:
        InputError: There are none.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise InputError(f"an adapter folder with {WEIGHTS}, or a safetensors file", str(path), "check the path")
    return file


def load_adapter(path: Path, unet: Any, checkpoint: Checkpoint) -> Adapter:
    """Put an adapter on a U-Net.

    Args:
        path: A folder that `save_adapter` wrote, or any LoRA of the U-Net in a safetensors file.
        unet: Of the checkpoint; the adapter takes its precision and device.
        checkpoint: What the adapter belongs to.

    Raises:
        InputError: No adapter, one for text encoders too, or one whose layers the U-Net does not have: the libraries
            would go on without it.
    """
    file = adapter_file(path)
    folder, name = file.parent, file.name
    kind: Any = StableDiffusionXLPipeline if checkpoint.xl else StableDiffusionPipeline
    try:
        state, alphas, metadata = kind.lora_state_dict(
            str(folder),
            weight_name=name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
            unet_config=unet.config,
        )
    except Exception as error:
        raise InputError("a whole LoRA file", f"{file}: {error}", "fetch or train the adapter again") from error
    others = sorted(key for key in state if not key.startswith("unet."))
    if others or not state:
        raise InputError(
            "a LoRA of the U-Net alone",
            f"{others[0] if others else 'nothing'} in {file}",
            "use one without other parts",
        )
    # diffusers judges the names of all tensors by the first one's, and drops those that are named in another way.
    state = convert_unet_state_dict_to_peft(state)
    tokens = read_tokens(folder) if path.is_dir() else None
    digest = hashlib.sha256(bytes.fromhex(sha256(file)))
    if tokens is not None:
        digest.update(bytes.fromhex(sha256(folder / TOKENS)))
    adapter = Adapter(digest.hexdigest(), tokens)
    _put_on(unet, kind, state, alphas, metadata, adapter.fingerprint, file)
    return adapter


def save_adapter(
    folder: Path,
    unet: Any,
    config: LoraConfig,
    checkpoint: Checkpoint,
    tokens: LearntTokens | None,
    facts: dict[str, Any],
) -> None:
    """Write the adapter `TRAINED` of `unet` to a folder, and make sure that it comes back as it was.

    Args:
        folder: Its place; the weights are written last, so that a folder with weights is whole.
        unet: Has the adapter.
        config: Of the adapter.
        checkpoint: What it was trained on.
        tokens: Learnt with it.
        facts: What else `adapter.json` should say.

    Raises:
        RunError: The U-Net predicts something else with the reloaded adapter, or the same as without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind: Any = StableDiffusionXLPipeline if checkpoint.xl else StableDiffusionPipeline
    building = folder / ".building"
    shutil.rmtree(building, ignore_errors=True)
    layers = get_peft_model_state_dict(unet, adapter_name=TRAINED)
    kind.save_lora_weights(
        building,
        unet_lora_layers={name: tensor.detach().cpu().contiguous() for name, tensor in layers.items()},
        unet_lora_adapter_metadata=_ordered(config.to_dict()),  # type: ignore[no-untyped-call]
        weight_name=WEIGHTS,
    )
    _order_metadata(building / WEIGHTS)
    names = () if tokens is None else tokens.names
    if tokens is not None:
        write_tensors(building / TOKENS, tokens.vectors)
    write_json(building / FACTS, {**facts, "base": checkpoint.weights_hash, "tokens": list(names)})
    _check_comes_back(building, unet, checkpoint)
    for name in (FACTS, TOKENS, WEIGHTS):
        if (building / name).exists():
            (building / name).replace(folder / name)
    building.rmdir()


def read_tokens(folder: Path) -> LearntTokens | None:
    """The tokens of an adapter folder, if it has some.

    Raises:
        InputError: Damaged files, or another number of vectors than of names.
    """
    if not (folder / TOKENS).is_file():
        return None
    names = tuple(read_json(folder / FACTS)["tokens"])
    try:
        vectors = load_file(folder / TOKENS)
    except Exception as error:
        raise InputError("whole token files", f"{folder / TOKENS}: {error}", "train the adapter again") from error
    if any(len(part) != len(names) for part in vectors.values()):
        raise InputError(f"{len(names)} tokens", f"another number in {folder / TOKENS}", "train the adapter again")
    return LearntTokens(names, vectors)


def _ordered(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with lists for sets, whose order, and with it the file's hash, differs from process to process."""
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


def _order_metadata(file: Path) -> None:
    """Sort the metadata in a safetensors file's header; the library writes them in another order in each process."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(file, len(text).to_bytes(8, "little") + text + content[end:])


def _put_on(unet: Any, kind: Any, state: dict[str, Tensor], alphas: Any, metadata: Any, name: str, file: Path) -> None:
    """Load a state dict as an adapter, then count what arrived: unknown layers are dropped with a log line only."""
    expected = sum(1 for key in state if not key.endswith("alpha"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a second adapter on one model
            kind.load_lora_into_unet(state, alphas, unet, adapter_name=name, metadata=metadata)
        arrived = get_peft_model_state_dict(unet, adapter_name=name)
    except Exception as error:
        raise InputError("a LoRA that fits the U-Net", f"{file}: {error}", "use one of this architecture") from error
    if len(arrived) != expected:
        raise InputError(
            f"a LoRA whose {expected} tensors all have a layer in the U-Net",
            f"{len(arrived)} that have, from {file}",
            "use one that was trained for this architecture",
        )
    if not any(bool(tensor.any()) for key, tensor in arrived.items() if "lora_B" in key):
        raise InputError("a LoRA with an effect", f"zeros in {file}", "train the adapter for more updates")
    for key, parameter in unet.named_parameters():
        if f".{name}." in key:
            parameter.data = parameter.data.to(unet.device, unet.dtype)
            parameter.requires_grad_(False)
    unet.disable_lora()


@torch.no_grad()
def _check_comes_back(folder: Path, unet: Any, checkpoint: Checkpoint) -> None:
    unet.eval()
    unet.enable_lora()
    unet.set_adapters([TRAINED], [1.0])
    trained = _probe(unet)
    unet.disable_lora()
    if torch.equal(trained, _probe(unet)):
        raise RunError("the adapter changes nothing; train it for more updates or at a higher learning rate")
    reloaded = load_adapter(folder, unet, checkpoint)
    unet.enable_lora()
    unet.set_adapters([reloaded.fingerprint], [1.0])
    again = _probe(unet)
    unet.set_adapters([TRAINED], [1.0])
    unet.delete_adapters([reloaded.fingerprint])
    # In another precision than the training's the weights are rounded.
    if not torch.allclose(trained, again, rtol=0, atol=1e-6 if unet.dtype == torch.float32 else 0.05):
        raise RunError(f"the adapter in {folder} predicts something else once it is reloaded")


def _probe(unet: Any) -> Tensor:
    """What the U-Net predicts for fixed noise."""
    stream, config = torch.Generator().manual_seed(0), unet.config
    side = min(config.sample_size, 16)
    x = torch.randn((1, config.in_channels, side, side), generator=stream)
    states = torch.randn((1, 77, config.cross_attention_dim), generator=stream)
    place = {"device": unet.device, "dtype": unet.dtype}
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros((1, pooled), **place), "time_ids": torch.zeros((1, 6), **place)}
    t = torch.tensor([500], device=unet.device)
    predicted: Tensor = unet(x.to(**place), t, encoder_hidden_states=states.to(**place), added_cond_kwargs=added).sample
    return predicted.float().cpu()
