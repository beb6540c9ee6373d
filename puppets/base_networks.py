"""The networks of the bundled base: ZeroScope's classes, only smaller. puppets/pretrain_base.py trains them.

Rendering and training need no code from here: a trained base is a diffusers folder like any other.

Shapes: b batch, f frames, c channels, h w height and width (pixels or latent cells), n tokens, d text width.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from einops import rearrange
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from puppets.tokenizer import MAX_TOKENS
from puppets.world import FRAME_SIZE

LATENT_CHANNELS = 10   # with 6 the autoencoder reached 27 dB
TEXT_WIDTH = 192
# Most noise in sampled latents, whose deviation is 1. With more, the UNet learns to draw the noise.
MOST_NOISE = 0.05


# ------------------------------------------------------------------------------------------- autoencoder

def build_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, sample_size=FRAME_SIZE,
        norm_num_groups=8, block_out_channels=(32, 64, 96, 128), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )


class FrameCoder(nn.Module):
    """Frames -> noisy latents -> frames in one forward pass, as data-parallel training needs it.

    The decoder gets latents with noise, as the UNet does. So the encoder has to let small moving parts, such
    as arms, stand out from noise. Trained without noise, it shows arms by the smallest differences between
    latents, and the UNet can draw arms in its last steps only.
    """

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, pixels: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames (b c h w) that are decoded from latents with noise, and a loss.

        The unit of `noise` is the deviation of each latent channel, so larger latents are no way out. The
        loss pulls each channel to mean 0 and deviation 1, and the posterior's deviation to MOST_NOISE.
        """
        posterior = self.vae.encode(pixels).latent_dist                                          # (b c h w)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        center, spread = mean.mean(dim=(0, 2, 3), keepdim=True), mean.std(dim=(0, 2, 3), keepdim=True)
        decoded = self.vae.decode(mean + spread * noise).sample.float()                          # (b c h w)
        moments_loss = center.square().mean() + (spread - 1).square().mean()
        return decoded, moments_loss + 0.01 * (logvar - 2 * math.log(MOST_NOISE)).square().mean()


def autoencoder_loss(decoded: torch.Tensor, pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the absolute error, the squared error and the absolute error of edges, weighted and summed.

    Edges are the differences of neighbouring pixels, across and down. `weights` (b 1 h w), with mean 1, say
    how much each pixel counts in the first two.
    """
    edges = sum((decoded.diff(dim=dim) - pixels.diff(dim=dim)).abs().mean() for dim in (2, 3))
    error = decoded - pixels
    return (weights * (error.abs() + 4 * error.square())).mean() + 0.5 * edges


def to_vae_pixels(frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return uint8 frames (b h w c) as float pixels (b c h w) in [-1, 1], as the autoencoder takes them."""
    pixels = rearrange(torch.as_tensor(frames), "b h w c -> b c h w").float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation of the posterior, each (b c h w), on the CPU."""
    posteriors = [vae.encode(part.to(vae.device)).latent_dist for part in pixels.split(64)]
    return (torch.cat([posterior.mean.float().cpu() for posterior in posteriors]),
            torch.cat([posterior.std.float().cpu() for posterior in posteriors]))


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, pixels: torch.Tensor) -> list[float]:
    """Rescale `vae`: sampled latents of `pixels` get mean 0 and deviation 1 in every channel.
    Return the share of noise that each channel had before.

    At most MOST_NOISE of the deviation is noise of the posterior. A channel without information is all noise,
    and would become the loudest if it were scaled by the deviation of its means.
    The scaling is folded into the 1x1 convolutions next to the latents, so `scaling_factor` is 1.
    """
    means, stds = (part.double().to(vae.device) for part in encode_pixels(vae, pixels))         # (b c h w)
    center, noise = means.mean(dim=(0, 2, 3)), noise_shares(means, stds)                         # (c)
    spread = deviations(means, stds)
    noise_spread = spread * (noise / MOST_NOISE).clamp(min=1)
    to_moments, from_latents = vae.quant_conv, vae.post_quant_conv
    scale = torch.cat([spread, torch.ones_like(spread)])                    # means are divided ...
    shift = torch.cat([-center / spread, -2 * noise_spread.log()])          # ... log variances are shifted
    to_moments.weight.copy_(to_moments.weight.double() / scale[:, None, None, None])
    to_moments.bias.copy_(to_moments.bias.double() / scale + shift)
    weight = from_latents.weight.double()                                                        # (c c 1 1)
    from_latents.bias.copy_(from_latents.bias.double() + weight[:, :, 0, 0] @ center)
    from_latents.weight.copy_(weight * spread[None, :, None, None])
    vae.register_to_config(scaling_factor=1.0)
    return noise.tolist()


def deviations(means: torch.Tensor, stds: torch.Tensor) -> torch.Tensor:
    """Return the deviation (c) of sampled latents, from mean and deviation (b c h w) of the posterior."""
    return (means.var(dim=(0, 2, 3)) + stds.square().mean(dim=(0, 2, 3))).sqrt()


def noise_shares(means: torch.Tensor, stds: torch.Tensor) -> torch.Tensor:
    """Return the share (c) of the deviation of sampled latents that is noise of the posterior."""
    return stds.square().mean(dim=(0, 2, 3)).sqrt() / deviations(means, stds)


# --------------------------------------------------------------------------------------------------- text

def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH, num_hidden_layers=3, num_attention_heads=6,
        max_position_embeddings=MAX_TOKENS, hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))


def say_single_precision(config_path: Path) -> None:
    """Let transformers load a text encoder in float32, as diffusers loads the other networks.

    transformers loads a network in the type its config names. A text encoder that was saved in half precision
    names half precision.
    """
    rewrite_config(config_path, lambda config: config | {"dtype": "float32"})


def forget_origin(config_path: Path) -> None:
    """Drop the folder that a network was loaded from, which diffusers writes into its config."""
    rewrite_config(config_path, lambda config: {key: value for key, value in config.items()
                                                if key != "_name_or_path"})


def rewrite_config(path: Path, change: Callable[[dict], dict]) -> None:
    """Change the config of an exported network, in the layout in which diffusers writes configs."""
    config = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class CaptionReader(nn.Module):
    """The text encoder, and for each label a linear layer that reads it from a token.

    Only the encoder is kept after training.
    """

    def __init__(self, text_encoder: CLIPTextModel, label_counts: tuple[int, ...]):
        super().__init__()
        self.text_encoder = text_encoder
        self.readers = nn.ModuleList(nn.Linear(TEXT_WIDTH, count) for count in label_counts)

    def forward(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        tokens = self.text_encoder(input_ids).last_hidden_state                                  # (b n d)
        return [reader(tokens) for reader in self.readers]                                      # each (b n k)


# -------------------------------------------------------------------------------------------------- video

def build_unet() -> UNet3DConditionModel:
    """Return the untrained UNet."""
    return without_dropout(UNet3DConditionModel(
        sample_size=FRAME_SIZE // 8, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 144, 144), layers_per_block=1, attention_head_dim=32, norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
    ))


def without_dropout(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    """Switch off the dropout of the temporal convolutions. New clips never end, so nothing is memorized."""
    for module in unet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return unet


def build_scheduler() -> DDIMScheduler:
    """Return a scheduler with ZeroScope's betas, rescaled to end in pure noise; it predicts v.

    Without the rescaling the base cannot render dark frames, such as a night.
    Source of the rescaling: Lin et al. 2023, arXiv 2305.08891.
    """
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
    )
