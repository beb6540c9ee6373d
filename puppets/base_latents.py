"""The latents that the bundled base is trained on: encoded once, kept in shards on disk, drawn in batches.

A shard is a dict: mean and std of the posterior, float16 (n c f h w), and scenes, a list of n. It depends
only on its index and on the autoencoder, so a missing file is made again.

Shapes: n clips, b of a batch, f frames, c channels, h w height and width (pixels or latent cells).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Generator, Tensor

from puppets.base_networks import encode_pixels, to_vae_pixels
from puppets.training_run import load_saved, save_atomically

CLIPS_AT_ONCE, FRAMES_AT_ONCE = 16, 64   # how much goes through the autoencoder in one call


def load_shards(accelerator, folder: Path, indices: range, make_shard: Callable[[int], dict]) -> list[dict]:
    """Return the shards of `indices`. The processes share the work of making missing shards."""
    paths = [folder / f"{index:05d}.pt" for index in indices]
    for index, path in zip(indices, paths):
        if not path.exists() and index % accelerator.num_processes == accelerator.process_index:
            folder.mkdir(exist_ok=True)
            save_atomically(make_shard(index), path)
    accelerator.wait_for_everyone()
    return [load_saved(path) for path in paths]


def encode_clips(vae: AutoencoderKL, frames: np.ndarray) -> dict[str, Tensor]:
    """Return mean and std of the posterior, float16 (n c f h w), of uint8 frames (n f h w c)."""
    means, stds, num_frames = [], [], frames.shape[1]
    for part in np.array_split(frames, max(1, len(frames) // CLIPS_AT_ONCE)):
        mean, std = encode_pixels(vae, to_vae_pixels(rearrange(part, "n f h w c -> (n f) h w c")))
        means.append(rearrange(mean, "(n f) c h w -> n c f h w", f=num_frames).half())
        stds.append(rearrange(std, "(n f) c h w -> n c f h w", f=num_frames).half())
    return {"mean": torch.cat(means), "std": torch.cat(stds)}


def draw_batch(kinds: list[list[dict]], num: int, rng: np.random.Generator,
               write_caption: Callable[[list, np.random.Generator], str]) -> tuple[Tensor, list[str]]:
    """Return latents (b c f h w) and captions of `num` clips.

    Each kind of shards is equally likely. One caption in ten is empty.
    """
    latents, captions = [], []
    for _ in range(num):
        shards = kinds[rng.integers(len(kinds))]
        shard = shards[rng.integers(len(shards))]
        i = int(rng.integers(len(shard["scenes"])))
        mean, std = shard["mean"][i].float(), shard["std"][i].float()                            # (c f h w)
        latents.append(mean + std * torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32)))
        caption = write_caption(shard["scenes"][i], rng)
        captions.append("" if rng.random() < 0.1 else caption)
    return torch.stack(latents), captions


def spread_timesteps(num: int, num_train_timesteps: int, generator: Generator) -> Tensor:
    """Return one timestep from each of `num` equal parts of the range, so a batch has all levels of noise."""
    return ((torch.rand(num, generator=generator) + torch.arange(num)) / num * num_train_timesteps).long()


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, frames: np.ndarray) -> float:
    """Return the mean PSNR in dB of uint8 frames (n h w c) that went through the autoencoder."""
    psnrs = []
    for pixels in to_vae_pixels(frames).split(FRAMES_AT_ONCE):                                   # (n c h w)
        latents, _ = encode_pixels(vae, pixels)
        decoded = vae.decode(latents.to(vae.device)).sample.float().cpu().clamp(-1, 1)
        psnrs.append(-10 * (((decoded - pixels) ** 2).mean(dim=(1, 2, 3)) / 4).log10())
    return torch.cat(psnrs).mean().item()
