"""What the network is trained on, encoded once: latent posteriors of clips and embeddings of captions, on
disk.

The VAE works frame by frame, so a training window is a slice of its clip's cache, and `mean + std * eps`
drawn at every step is the distribution that encoding at every step would give. Shapes: f frames, c latent
channels, h w latent cells, n tokens, d text width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from torch import Tensor

from models.base import Base, encode_frames, encode_prompt, encoder_digests
from training.cache import cache_path, fill_cache, is_cached
from training.clips import Clip
from training.windows import Window
from utils.files import remove_stale
from utils.tensor_files import read_rows, read_tensors
from utils.video import iter_frames

READER = 2   # raise when a file that is not plain is read into other pixels than before


@dataclass(frozen=True)
class Inputs:
    """Where the encoded clips and captions lie."""

    latent_paths: dict[str, Path]   # by clip path, since two clips of one content may be of different frames
    prompt_paths: dict[str, Path]   # by caption


def encode_inputs(base: Base, clips: list[Clip], cache_dir: Path,
                  progress: Callable[[Iterable], Iterable] = iter) -> Inputs:
    """Encode every clip and caption that the cache does not hold yet. `progress` wraps the list of what is
    left."""
    remove_stale(cache_dir)
    jobs, pipeline, made_by = {}, base.pipeline, encoder_digests(base)
    latent_paths, prompt_paths = {}, {}
    for clip in clips:
        made_from = {"kind": "latents", "by": made_by["latents"], "clip": clip.digest, "size": clip.size,
                     "frames": clip.frames, **({} if clip.is_read_as_ever else {"reader": READER})}
        latent_paths[str(clip.path)] = path = cache_path(cache_dir, made_from)
        jobs[path] = made_from, lambda clip=clip: encode_clip(pipeline, clip)
    for caption in dict.fromkeys(caption for clip in clips for caption in clip.captions):
        made_from = {"kind": "prompt", "by": made_by["prompt"], "prompt": caption}
        prompt_paths[caption] = path = cache_path(cache_dir, made_from)
        jobs[path] = made_from, lambda caption=caption: {"prompt_embeds": encode_prompt(pipeline, caption)}
    for path in progress([path for path in jobs if not is_cached(path)]):
        fill_cache(path, *jobs[path])
    return Inputs(latent_paths, prompt_paths)


def encode_clip(pipeline: DiffusionPipeline, clip: Clip) -> dict[str, Tensor]:
    """Return mean and std (f c h w) of every trained frame of a clip."""
    parts = [encode_frames(pipeline.vae, frames) for frames in iter_frames(clip.path, clip.frames, clip.size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def sample_latents(inputs: Inputs, window: Window) -> Tensor:
    """Draw the latents (c f h w) of a window from their posterior; only the window's frames are read from
    disk."""
    path, stop = inputs.latent_paths[str(window.clip.path)], window.start + window.clip.window
    posterior = read_rows(path, window.start, stop)
    return latents_from(posterior, window.generator)


def latents_from(posterior: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Draw latents (c f h w) from mean and std (f c h w)."""
    eps = torch.randn(posterior["mean"].shape, generator=generator)
    return rearrange(posterior["mean"] + posterior["std"] * eps, "f c h w -> c f h w")


def prompt_embeds(inputs: Inputs, window: Window) -> Tensor:
    """Return the embedding (n d) of a window's caption."""
    return read_tensors(inputs.prompt_paths[window.caption])["prompt_embeds"]
