"""Images per second of Stable Diffusion, beside a plain loop over diffusers' pipeline and the arithmetic rate.

    python benchmarks/stable_diffusion.py --device cuda --json stable_diffusion.json
    OMP_NUM_THREADS=1 python benchmarks/stable_diffusion.py --small

The architecture is that of Stable Diffusion 1.5 with random weights, 512 px, 20 steps with guidance; `--small` is the
same at a fortieth of the channels, for a CPU. The plain loop calls the pipeline once an image with its prompt, as
scripts do, in the same precision. The arithmetic of an image is counted by torch; the rate is that of a large matrix
product on the same device, in bf16 and in the precision that was used.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from generators.base import Job
from generators.latent_sampling import Sampling, make_scheduler
from generators.prompts import make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_jobs import text_jobs
from generators.stable_diffusion_settings import DTYPES, ImageSettings, resolve_settings

TOKENIZER = Path(__file__).parents[1] / "tests" / "assets" / "tiny_sd" / "tokenizer"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def unet_config(small: bool) -> dict[str, Any]:
    channels, states = ((8, 16, 32, 32), 64) if small else ((320, 640, 1280, 1280), 768)
    return {
        "sample_size": 64,
        "block_out_channels": channels,
        "cross_attention_dim": states,
        "attention_head_dim": 8,
        "norm_num_groups": 8 if small else 32,
    }


def vae_config(small: bool) -> dict[str, Any]:
    return {
        "sample_size": 512,
        "block_out_channels": (8, 16, 32, 32) if small else (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "norm_num_groups": 8 if small else 32,
        "scaling_factor": 0.18215,
    }


def write_checkpoint(folder: Path, small: bool) -> None:
    """Random weights in diffusers' layout."""
    torch.manual_seed(0)
    UNet2DConditionModel(**unet_config(small)).half().save_pretrained(folder / "unet")
    AutoencoderKL(**vae_config(small)).half().save_pretrained(folder / "vae")
    width = unet_config(small)["cross_attention_dim"]
    text = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": max(1, width // 64)}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, num_hidden_layers=12, **text, **ends))
    text_encoder.half().save_pretrained(folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
    index: dict[str, Any] = {name: ["diffusers", kind.__name__] for name, kind in kinds.items()}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **index}))


def teraflop(small: bool, size: int, steps: int) -> float:
    """Arithmetic of an image, 10¹² operations: the U-Net twice a step, the decoder once; nothing is computed."""
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**unet_config(small)), AutoencoderKL(**vae_config(small))
        x, t = torch.empty(2, 4, size // 8, size // 8), torch.zeros(2)
        states = torch.empty(2, 77, unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as step, torch.no_grad():
            unet(x, t, encoder_hidden_states=states)
        with FlopCounterMode(display=False) as decoding, torch.no_grad():
            vae.decode(x[:1])
    return (steps * step.get_total_flops() + decoding.get_total_flops()) / 1e12


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """10¹² operations per second of a large product, at the fastest of ten."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    times = [seconds(lambda: a @ b, device) for _ in range(12)]
    return 2 * n**3 / min(times[2:]) / 1e12


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def time_ours(folder: Path, jobs: list[Job], settings: ImageSettings, device: torch.device, batches: int) -> float:
    """Seconds an image, of the fastest batch."""
    generator = StableDiffusion(open_checkpoint(folder), settings, device=device)
    batch = settings.batch_size or 1
    generator.embed({text for job in jobs for text in (job.settings["prompt"], job.settings["negative"])})
    generator.generate(jobs[:batch])
    parts = [jobs[i * batch : (i + 1) * batch] for i in range(batches)]
    return min(seconds(lambda part=part: generator.generate(part), device) for part in parts) / batch


def time_plain(folder: Path, jobs: list[Job], size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of the fastest image."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, local_files_only=True, safety_checker=None, requires_safety_checker=False
    ).to(device)
    pipe.scheduler = make_scheduler("dpmsolver++", pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def make(job: Job) -> None:
        pipe(
            job.settings["prompt"],
            height=size,
            width=size,
            num_inference_steps=job.settings["steps"],
            guidance_scale=job.settings["guidance"],
            generator=torch.Generator().manual_seed(job.seed),
        )

    make(jobs[0])
    return min(seconds(lambda job=job: make(job), device) for job in jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="auto: bfloat16 on CUDA, float32 elsewhere")
    parser.add_argument("--small", action="store_true", help="a fortieth of the channels")
    parser.add_argument("--size", type=int, help="px; 512, with --small 64")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, help="of ours; by default the generator's own")
    parser.add_argument("--batches", type=int, default=4, help="timed, of ours")
    parser.add_argument("--plain-images", type=int, default=8, help="timed, of the plain loop")
    parser.add_argument("--compile", action="store_true", help="ours; the plain loop is never compiled")
    options = parser.parse_args()
    device, size = torch.device(options.device), options.size or (64 if options.small else 512)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, options.small)
        asked = ImageSettings(size=size, batch_size=options.batch_size, dtype=options.dtype, compile=options.compile)
        settings = resolve_settings(asked, open_checkpoint(folder), device)
        dtype = DTYPES[settings.dtype]
        each = -(-max(options.batches * (settings.batch_size or 1), options.plain_images) // len(CLASSES))
        sampling, prompts = Sampling(options.steps, 2.0), make_prompts(CLASSES)
        plan = text_jobs("", CLASSES, [each] * len(CLASSES), prompts, sampling, reserve=0, seed=0)
        jobs = [job for own in zip(*plan, strict=True) for job in own]
        ours = 1 / time_ours(folder, jobs, settings, device, options.batches)
        theirs = 1 / time_plain(folder, jobs[: options.plain_images], size, dtype, device)

    work = teraflop(options.small, size, options.steps)
    rates = {name: matmul_rate(device, DTYPES[name]) for name in dict.fromkeys(["bfloat16", settings.dtype])}
    setting = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "architecture": "a fortieth of Stable Diffusion 1.5" if options.small else "Stable Diffusion 1.5",
        "size": size,
        "steps": options.steps,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "compile": options.compile,
    }
    figures = {
        "ours_images_per_second": ours,
        "plain_images_per_second": theirs,
        "ratio": ours / theirs,
        "teraflop_per_image": work,
    }
    for name, rate in rates.items():
        figures |= {f"{name}_matmul_teraflop_per_second": rate, f"share_of_{name}_matmul": ours * work / rate}
    for key, value in [*setting.items(), *figures.items()]:
        print(f"{key:<36}{value:.4g}" if isinstance(value, float) else f"{key:<36}{value}")
    if options.json:
        options.json.write_text(json.dumps({"setting": setting, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
