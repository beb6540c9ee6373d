"""Makes drawn frames look worse, like rendered ones, so that a recognizer trained on them can judge videos.

A small diffusion model softens edges, mixes neighbouring frames, flickers and shifts colours. Its autoencoder
and H.264 soften more. Where the model errs in its latents, limbs are smeared or partly missing. None of
these faults changes what a clip shows.

Shapes: n clips, f frames, c colours, h w pixels. Values from 0 to 1.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Generator, Tensor

BLOCK = 8   # pixels of the squares that compression works on


def degrade(frames: Tensor, generator: Generator, share: float = 1.0) -> Tensor:
    """Return `frames` (n f c h w) shifted, softened, recoloured and noisy. A clip is changed as a whole.

    At a `share` of 0 all clips stay as they are, at 1 nearly all change.
    """
    frames = some_of(frames, share, move, generator)
    frames = some_of(frames, 0.5 * share, bleed_in_time, generator)
    frames = some_of(frames, 0.5 * share, blur, generator)
    frames = some_of(frames, 0.35 * share, coarsen, generator)
    frames = some_of(frames, 0.25 * share, compress, generator)
    frames = some_of(frames, share, recolour, generator)
    frames = some_of(frames, 0.3 * share, add_grain, generator)
    frames = some_of(frames, 0.4 * share, flicker, generator)
    return frames.clamp(0, 1)


@torch.no_grad()
def spoil_latents(frames: Tensor, generator: Generator, vae: AutoencoderKL, most_noise: float = 0.5,
                  most_average: float = 0.4) -> Tensor:
    """Put errors into the latents of frames (n f c h w), and return the frames that `vae` decodes from them.

    The errors are like the errors of a small diffusion model, which predicts averages where it is unsure.
    Each clip's latents are moved towards their average over the clip, by a random share of up to
    `most_average`. Then noise is added, with a random standard deviation of up to `most_noise`.
    """
    num = len(frames)
    latents = vae.encode(rearrange(frames, "n f c h w -> (n f) c h w") * 2 - 1).latent_dist.mean.float()
    latents = rearrange(latents, "(n f) c h w -> n f c h w", n=num)
    share, noise = (uniform(0, most, num, generator)[:, None, None, None, None]
                    for most in (most_average, most_noise))
    latents = torch.lerp(latents, latents.mean(dim=1, keepdim=True), share)
    latents = latents + noise * torch.randn(latents.shape, generator=generator)
    decoded = vae.decode(rearrange(latents, "n f c h w -> (n f) c h w")).sample.float()
    return (rearrange(decoded, "(n f) c h w -> n f c h w", n=num) / 2 + 0.5).clamp(0, 1)


def some_of(frames: Tensor, share: float, change, generator: Generator) -> Tensor:
    """Return the clips with `change` applied to a random share of them."""
    chosen = uniform(0, 1, len(frames), generator) < share
    if not chosen.any():
        return frames
    frames = frames.clone()
    frames[chosen] = change(frames[chosen], generator)
    return frames


def move(frames: Tensor, generator: Generator, most_shift: float = 0.08, most_zoom: float = 0.06) -> Tensor:
    """Shift (in half widths) and zoom clips a little; the border is repeated.

    Clips are never mirrored, because left and right differ in a motion.
    """
    num, num_frames = frames.shape[:2]
    zoom = 1 + uniform(-most_zoom, most_zoom, num, generator)                                  # (n)
    theta = torch.zeros(num, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = uniform(-most_shift, most_shift, 2 * num, generator).view(num, 2)
    flat = rearrange(frames, "n f c h w -> n (f c) h w")
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)                         # (n h w 2)
    moved = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return rearrange(moved, "n (f c) h w -> n f c h w", f=num_frames)


def bleed_in_time(frames: Tensor, generator: Generator, most: float = 0.2) -> Tensor:
    """Mix each frame with its neighbours."""
    if frames.shape[1] == 1:
        return frames
    share = uniform(0, most, len(frames), generator)[:, None, None, None, None]
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    after = torch.cat([frames[:, 1:], frames[:, -1:]], dim=1)
    return (1 - share) * frames + share * (before + after) / 2


def blur(frames: Tensor, generator: Generator, radius: int = 3) -> Tensor:
    """Convolve with a Gaussian of 0.4 to 1.3 pixels."""
    num, num_frames = frames.shape[:2]
    sigma = uniform(0.4, 1.3, num, generator)[:, None]
    kernel = torch.exp(-torch.arange(-radius, radius + 1) ** 2 / (2 * sigma ** 2))             # (n k)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    flat = rearrange(frames, "n f c h w -> (f c) n h w")
    flat = F.pad(flat, (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel[:, None, None], groups=num), kernel[:, None, :, None], groups=num)
    return rearrange(flat, "(f c) n h w -> n f c h w", f=num_frames)


def coarsen(frames: Tensor, generator: Generator) -> Tensor:
    """Remove detail finer than 1.3 to 2.2 pixels, as an autoencoder does, by scaling down and up again."""
    size = frames.shape[-1]
    small = int(size / uniform(1.3, 2.2, 1, generator).item())
    flat = rearrange(frames, "n f c h w -> (n f) c h w")
    flat = F.interpolate(flat, small, mode="bilinear", antialias=True)
    flat = F.interpolate(flat, size, mode="bicubic")
    return rearrange(flat, "(n f) c h w -> n f c h w", n=len(frames))


def compress(frames: Tensor, generator: Generator) -> Tensor:
    """Round the cosine transform of every block of 8x8 pixels, high frequencies more coarsely."""
    cosines = torch.cos(math.pi / BLOCK * torch.outer(torch.arange(BLOCK), torch.arange(BLOCK) + 0.5))
    cosines = cosines * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)                                                                 # orthogonal
    order = torch.arange(BLOCK)
    step = uniform(0.03, 0.12, 1, generator) * (1 + order[:, None] + order) / 2                # (8 8)
    blocks = rearrange(frames, "n f c (i a) (j b) -> n f c i j a b", a=BLOCK, b=BLOCK)
    blocks = torch.round(cosines @ blocks @ cosines.T / step) * step
    return rearrange(cosines.T @ blocks @ cosines, "n f c i j a b -> n f c (i a) (j b)")


def recolour(frames: Tensor, generator: Generator) -> Tensor:
    """Change brightness, contrast and the balance of colours."""
    def draw(low: float, high: float, num_colours: int) -> Tensor:
        return uniform(low, high, len(frames) * num_colours, generator).view(-1, 1, num_colours, 1, 1)

    middle = frames.mean(dim=(1, 2, 3, 4), keepdim=True)
    contrast = draw(0.85, 1.12, 1) * draw(0.94, 1.06, 3)
    return (frames - middle) * contrast + middle + draw(-0.06, 0.06, 1) + draw(-0.03, 0.03, 3)


def add_grain(frames: Tensor, generator: Generator) -> Tensor:
    """Add fine noise, drawn anew for every frame."""
    strength = uniform(0, 0.03, len(frames), generator)[:, None, None, None, None]
    return frames + strength * torch.randn(frames.shape, generator=generator)


def flicker(frames: Tensor, generator: Generator) -> Tensor:
    """Add noise in patches as large as a latent cell, drawn anew for every frame."""
    num, num_frames, colours, height, width = frames.shape
    strength = uniform(0, 0.03, num, generator)[:, None, None, None]
    cells = torch.randn(num, num_frames * colours, height // BLOCK, width // BLOCK, generator=generator)
    patches = F.interpolate(strength * cells, (height, width), mode="bilinear")
    return frames + rearrange(patches, "n (f c) h w -> n f c h w", f=num_frames)


def uniform(low: float, high: float, num: int, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=generator)


def to_frames(pixels: Tensor) -> np.ndarray:
    """Return float pixels (n f c h w) in [0, 1] as uint8 frames (n f h w c)."""
    return rearrange((pixels.clamp(0, 1) * 255).round().to(torch.uint8), "n f c h w -> n f h w c").numpy()


def to_unit_pixels(frames: Tensor) -> Tensor:
    """Return uint8 frames (n f h w c) as float pixels (n f c h w) in [0, 1]."""
    return rearrange(frames, "n f h w c -> n f c h w").float() / 255
