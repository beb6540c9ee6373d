"""Text-to-video bases with random weights, and clips of noise, for measuring time and memory.

A step costs the same whatever the network has learned and whatever the clips show. The classes are
ZeroScope's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, TextToVideoSDPipeline, UNet3DConditionModel
from diffusers.utils import logging
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from puppets.base_networks import build_scheduler
from utils.commands import ROOT

BUNDLED = ROOT / "models" / "puppet-theatre"   # its tokenizer fits any size


@dataclass(frozen=True)
class Size:
    """The numbers in which bases of one architecture differ."""

    unet_widths: tuple[int, ...]   # channels of each level, fine to coarse
    unet_layers: int               # residual blocks per level
    head_width: int                # channels of an attention head
    num_groups: int                # of the group norms
    text_width: int                # of the text encoder's embeddings
    text_layers: int
    num_tokens: int                # of a prompt
    vae_widths: tuple[int, ...]
    vae_layers: int
    latent_channels: int = 4


SIZES = {
    "tiny": Size((16, 32), 1, 8, 8, 32, 1, 77, (8,) * 4, 1),
    # 5 M parameters, and encoders as small as the bundled base's
    "small": Size((32, 64, 96), 1, 32, 16, 192, 3, 77, (16, 40, 96, 160), 1),
    # 1,411 M parameters, and encoders of the size of ZeroScope's
    "zeroscope": Size((320, 640, 1280, 1280), 2, 64, 32, 1024, 23, 77, (128, 256, 512, 512), 2),
}


def write_random_base(folder: Path, size: Size) -> Path:
    """Write the diffusers folder of a base of `size`, and return `folder`."""
    logging.set_verbosity_error()   # the warning that the pipeline's class is deprecated helps no user
    logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED / "tokenizer", model_max_length=size.num_tokens)
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=size.text_width, intermediate_size=4 * size.text_width,
        num_hidden_layers=size.text_layers, num_attention_heads=size.text_width // 16,
        max_position_embeddings=size.num_tokens, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    vae = AutoencoderKL(
        block_out_channels=size.vae_widths, layers_per_block=size.vae_layers, norm_num_groups=8,
        latent_channels=size.latent_channels, down_block_types=("DownEncoderBlock2D",) * len(size.vae_widths),
        up_block_types=("UpDecoderBlock2D",) * len(size.vae_widths))
    num_attending = len(size.unet_widths) - 1
    unet = UNet3DConditionModel(
        sample_size=32, in_channels=size.latent_channels, out_channels=size.latent_channels,
        block_out_channels=size.unet_widths, layers_per_block=size.unet_layers,
        attention_head_dim=size.head_width, norm_num_groups=size.num_groups,
        cross_attention_dim=size.text_width,
        down_block_types=("CrossAttnDownBlock3D",) * num_attending + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * num_attending)
    TextToVideoSDPipeline(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
                          scheduler=build_scheduler()).save_pretrained(folder)
    return folder


def write_random_clip(path: Path, num_frames: int, pixels: int) -> None:
    """Write coarse noise of `pixels` x `pixels` that moves to the right, and a caption beside it.

    `path` ends in .apng: Pillow alone writes and reads it, so a machine without ffmpeg can be measured too.
    """
    coarse = np.random.default_rng(0).integers(0, 255, (pixels // 8, pixels // 8, 3), np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))                                 # (h w c)
    first, *others = (Image.fromarray(np.roll(picture, 2 * index, axis=1)) for index in range(num_frames))
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, "PNG", save_all=True, append_images=others, duration=125)
    path.with_suffix(".txt").write_text("a man doing the V* dance", encoding="utf-8")
