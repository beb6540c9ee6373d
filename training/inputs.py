"""The encoded clips and captions of a run: computed once, kept in a folder, read back for every example.

The VAE encodes frame by frame, so a training window is a slice of its clip's cached posteriors. `mean + std *
eps`, drawn anew at every step, has the distribution that encoding at every step would give.

Each file of the cache is named by a hash of everything that made it. A changed clip, size, rate or encoder
has another hash, so a stale file is never found. Files are written whole, and a damaged one is made again.
Shapes: f frames, c latent channels, h w latent cells, n tokens, d text width.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from torch import Tensor

from models.base import Base, encode_frames, encode_prompt, encoder_digests
from training.clips import Clip
from training.windows import Window
from utils.errors import UserError
from utils.files import digest_of, remove_stale
from utils.tensor_files import read_metadata, read_rows, read_tensors, write_tensors
from utils.video import iter_frames

VERSION = 1   # raise it when the meaning of the cached tensors changes
READER = 4    # raise it when a file that is not plain is read into other pixels than before
CAPTIONS_IN_MEMORY = 256   # embeddings, of 315 kB each with ZeroScope: 81 MB


@dataclass(frozen=True)
class Inputs:
    """How a training example gets its tensors."""

    latents: Callable[[Window], Tensor]         # (c f h w), drawn with the window's generator
    prompt_embeds: Callable[[Window], Tensor]   # (n d)
    made_by: dict[str, str] | None = None       # hashes of the encoders, None of made-up tensors


def encode_inputs(base: Base, clips: list[Clip], cache_dir: Path,
                  progress: Callable[[Iterable], Iterable] = iter, without_caption: bool = False) -> Inputs:
    """Encode every clip and caption that the cache does not hold yet. `progress` wraps the list of files to
    make. `without_caption`: clips are trained on with the empty caption too."""
    remove_stale(cache_dir)
    jobs, pipeline, made_by = {}, base.pipeline, encoder_digests(base)
    # by path: two clips of the same content may be trained on at different frames
    latent_paths, prompt_paths = {}, {}
    for clip, shift in [(clip, shift) for clip in clips for shift in clip.shifts]:
        made_from = {"kind": "latents", "by": made_by["latents"], "clip": clip.digest, "size": clip.size,
                     "frames": clip.frames, **({} if clip.is_read_as_ever else {"reader": READER}),
                     **({"shift": shift} if shift else {})}
        latent_paths[clip, shift] = path = cache_path(cache_dir, made_from)
        jobs[path] = made_from, partial(encode_clip, pipeline, clip, shift)
    captions = dict.fromkeys(caption for clip in clips for caption in clip.captions)
    for caption in [*captions, *[""] * without_caption]:
        made_from = {"kind": "prompt", "by": made_by["prompt"], "prompt": caption}
        prompt_paths[caption] = path = cache_path(cache_dir, made_from)
        jobs[path] = made_from, lambda caption=caption: {"prompt_embeds": encode_prompt(pipeline, caption)}
    for path in progress([path for path in jobs if not is_cached(path)]):
        fill_cache(path, *jobs[path])
    return Inputs(partial(sample_latents, latent_paths),
                  lambda window: read_prompt_embeds(prompt_paths[window.caption]), made_by)


def encode_clip(pipeline: DiffusionPipeline, clip: Clip, shift: float) -> dict[str, Tensor]:
    """Return mean and std (f c h w) of every trained frame of a clip at a shift, one of `clip.shifts`."""
    pieces = iter_frames(clip.path, clip.frames, clip.size, is_plain=clip.info.is_plain, shift=shift)
    parts = [encode_frames(pipeline.vae, frames) for frames in pieces]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def sample_latents(latent_paths: Mapping[tuple[Clip, float], Path], window: Window) -> Tensor:
    """Draw the latents (c f h w) of a window. Only the window's frames are read from the cached file."""
    path = latent_paths[window.clip, window.shift]
    posterior = read_rows(path, window.start, window.start + window.clip.window)
    return latents_from(posterior, window.generator)


def latents_from(posterior: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Draw latents (c f h w) from mean and std (f c h w)."""
    eps = torch.randn(posterior["mean"].shape, generator=generator)
    return rearrange(posterior["mean"] + posterior["std"] * eps, "f c h w -> c f h w")


@lru_cache(CAPTIONS_IN_MEMORY)
def read_prompt_embeds(path: Path) -> Tensor:
    """Return a cached embedding (n d). The file is read and verified once, as long as memory holds it."""
    return read_tensors(path)["prompt_embeds"]


def cache_path(folder: Path, made_from: dict[str, Any]) -> Path:
    """Return the path in `folder` of the tensors made from `made_from`, which is plain JSON material."""
    return folder / f"{digest_of({'version': VERSION, **made_from})}.safetensors"


def is_cached(path: Path) -> bool:
    """Say whether `path` holds, to the last bit, the tensors that belong there."""
    try:
        if not path.exists() or not read_tensors(path):
            return False
        made_from = json.loads(read_metadata(path).get("made_from", "null"))
    except (UserError, ValueError):
        return False
    # another entry's file under this name is as wrong as a damaged one
    return isinstance(made_from, dict) and cache_path(path.parent, made_from) == path


def fill_cache(path: Path, made_from: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> Path:
    """Write the tensors that `make` returns to `path`, unless the file is there already. Return `path`."""
    if not is_cached(path):
        write_tensors(path, make(), {"made_from": json.dumps(made_from)})
    return path
