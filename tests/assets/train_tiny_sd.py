"""Train the tiny Stable Diffusion checkpoint of the tests, on the digits that scikit-learn brings.

    OMP_NUM_THREADS=2 python tests/assets/train_tiny_sd.py [FOLDER]

All parts of a real checkpoint, small: a VAE that halves 16 px images, CLIP's text encoder with its own byte-pair
vocabulary, a U-Net with cross-attention, a noise schedule, a safety checker. The VAE also sees inverted and coloured
digits, so that an adapter can learn them; the U-Net sees the digits as they are. About ten minutes on two cores.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from generators.prompts import TEMPLATES, make_prompts
from rebalance.averaging import MovingAverage
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits

SIZE = 16
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHER_WORDS = "an inverted coloured red green blue yellow white black handwritten digit number drawing"
TOKENIZER_LENGTH = 77
VAE_UPDATES, UNET_UPDATES, BATCH = 3000, 2000, 64


def digits() -> tuple[Tensor, Tensor]:
    """Training digits (1100, 3, 16, 16) in [-1, 1], and their labels."""
    table = read_digits().train
    pixels = torch.stack([torch.from_numpy(decode(image, SIZE).copy()) for image in table.images])
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(table.targets)


def restyle(images: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the images as they are, a third inverted, a third with other colours for ink and for ground."""
    n = len(images)
    ground, ink = (torch.rand((n, 3, 1, 1), generator=generator) * 2 - 1 for _ in range(2))
    which = torch.randint(3, (n, 1, 1, 1), generator=generator)
    coloured = ground + (ink - ground) * (images / 2 + 0.5)
    return torch.where(which == 0, images, torch.where(which == 1, -images, coloured))


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a token for each word of the prompts, and single letters for the rest."""
    words = sorted({word for text in [*TEMPLATES, *NAMES, OTHER_WORDS] for word in re.findall("[a-z]+", text)})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=5000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENIZER_LENGTH)
    for word in words:
        assert len(tokenizer(word).input_ids) == 3, word
    return tokenizer


def train_vae(images: Tensor) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=VAE_UPDATES, pct_start=0.1)
    for update in range(VAE_UPDATES):
        generator = torch.Generator().manual_seed(update)
        batch = restyle(images[torch.randint(len(images), (32,), generator=generator)], generator)
        latent = vae.encode(batch).latent_dist
        loss = F.l1_loss(vae.decode(latent.sample(generator)).sample, batch) + 1e-4 * latent.kl().mean() / 64
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % 250 == 0:
            print(f"VAE {update}: {loss.item():.4f}", flush=True)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / float(vae.encode(images).latent_dist.mean.std()), 4))
    return vae


def train_unet(
    images: Tensor, labels: Tensor, vae: AutoencoderKL, tokenizer: CLIPTokenizer, noise_schedule: DDIMScheduler
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=32,
    )
    print(f"U-Net {sum(p.numel() for p in unet.parameters()):,} parameters")
    texts = [
        [*make_prompts(NAMES, templates=(*TEMPLATES, "{name}")).texts[i], *make_prompts([str(i)]).texts[0], str(i)]
        for i in range(10)
    ]
    flat = [*(text for own in texts for text in own), ""]
    ids = tokenizer(flat, padding="max_length", return_tensors="pt").input_ids
    per_class = len(texts[0])
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = MovingAverage(both, 0.998)
    optimizer = torch.optim.AdamW(both.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=UNET_UPDATES, pct_start=0.05)
    moments = vae.encode(images).latent_dist
    start = time.time()
    for update in range(UNET_UPDATES):
        generator = torch.Generator().manual_seed(update)
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        latents = moments.mean[rows] + moments.std[rows] * torch.randn((BATCH, 4, 8, 8), generator=generator)
        latents = latents * vae.config.scaling_factor
        chosen = labels[rows] * per_class + torch.randint(per_class, (BATCH,), generator=generator)
        chosen[torch.rand(BATCH, generator=generator) < 0.1] = len(flat) - 1
        used, place = chosen.unique(return_inverse=True)
        states = text_encoder(ids[used]).last_hidden_state[place]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (BATCH,), generator=generator)
        noisy = noise_schedule.add_noise(latents, noise, timesteps)
        target = noise_schedule.get_velocity(latents, noise, timesteps)
        loss = F.mse_loss(unet(noisy, timesteps, encoder_hidden_states=states).sample, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update(both, update)
        if update % 250 == 0:
            print(f"U-Net {update}: {loss.item():.4f}, {time.time() - start:.0f} s", flush=True)
    return average.average["unet"], average.average["text_encoder"]


def make_safety_checker() -> StableDiffusionSafetyChecker:
    """An untrained one that objects to nothing: no cosine is above its thresholds."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    text = CLIPTextConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return StableDiffusionSafetyChecker(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    )


def main(folder: Path) -> None:
    images, labels = digits()
    tokenizer = make_tokenizer()
    noise_schedule = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    vae = train_vae(images)
    unet, text_encoder = train_unet(images, labels, vae, tokenizer, noise_schedule)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=make_tokenizer(),
        unet=unet.half(),
        scheduler=noise_schedule,
        safety_checker=make_safety_checker().half(),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    print(f"{folder}: {weights / 1e6:.2f} MB of weights")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("tiny_sd"))
