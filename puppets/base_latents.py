"""Small measures and draws on latents, for making the bundled base.

Shapes: n clips, b of a batch, f frames, c channels, h w height and width (pixels or latent cells).
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor

from puppets.base_networks import encode_pixels, to_vae_pixels

FRAMES_AT_ONCE = 64   # through the autoencoder


def spread_timesteps(num: int, num_train_timesteps: int, device: torch.device,
                     generator: Generator | None = None, between: tuple[float, float] = (0, 1)) -> Tensor:
    """Return a timestep from each of `num` equal parts of a range: every batch sees all its levels of noise.

    The range is `between` two shares of `num_train_timesteps`: by default all of them.
    """
    parts = torch.arange(num, device=device)
    places = (torch.rand(num, device=device, generator=generator) + parts) / num
    return ((between[0] + (between[1] - between[0]) * places) * num_train_timesteps).long()


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, frames: np.ndarray) -> float:
    """Return the mean PSNR in dB of uint8 frames (n h w c) that went through the autoencoder."""
    psnrs = []
    for pixels in to_vae_pixels(frames).split(FRAMES_AT_ONCE):                                   # (n c h w)
        latents, _ = encode_pixels(vae, pixels)
        decoded = vae.decode(latents.to(vae.device)).sample.float().cpu().clamp(-1, 1)
        psnrs.append(-10 * (((decoded - pixels) ** 2).mean(dim=(1, 2, 3)) / 4).log10())
    return torch.cat(psnrs).mean().item()
