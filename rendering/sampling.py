"""Rendering prompts: the one way from text to video files, for samples during training and for generation
alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from filelock import FileLock

from models.base import decode_latents, unseen_words
from rendering.gallery import forget_scores, write_gallery
from utils.captions import add_captions
from utils.errors import UserError
from utils.files import remove_stale
from utils.prompts import Prompt, file_name
from utils.video import SAME_PICTURE, frame_changes, read_metadata, write_video

# where weights lie may change: which ones they are, their fingerprints tell; the prompt says what V* became
UNCOMPARED = ("base", "motion", "placeholder_token")
FLAT = 2   # of 255: what rounding leaves of a single colour
COMPUTE_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Rendering:
    """What a video depends on besides the network, its prompt and its seed."""

    width: int                 # pixels
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float      # 1 and below: without guidance
    negative_prompt: str = ""


@torch.no_grad()
def render(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering) -> np.ndarray:
    """Return a uint8 video (f h w c) for each prompt: (b f h w c).

    Each video has a generator of its own, seeded by its prompt's seed, on the CPU: its noise is the same on
    every device and whatever else is in the batch. Each is decoded by itself, too.
    """
    generators = [torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts]
    latents = pipeline(
        prompt=[prompt.text for prompt in prompts],
        negative_prompt=[how.negative_prompt] * len(prompts),
        height=how.height, width=how.width, num_frames=how.num_frames,
        num_inference_steps=how.num_inference_steps, guidance_scale=how.guidance_scale,
        generator=generators, output_type="latent",
    ).frames                                                                     # (b c f h w)
    return np.stack([decode_latents(pipeline.vae, video) for video in latents])  # (b f h w c)


def render_to_folder(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering, folder: Path,
                     fps: float, batch_size: int, made_with: dict[str, Any], overwrite: bool = False,
                     progress: Callable[[list], Iterable] = iter) -> list[str]:
    """Render each prompt to `folder`/{prompt}_seed{seed}.mp4, in batches; return remarks for the user.

    A batch is written by a thread while the next one is rendered.
    Videos that are there already and were made in the same way are kept, so an interrupted list continues.
    The folder is then a data folder too (its captions in text.json) and has the gallery in it. `made_with`:
    base and motion weights, written into each file beside prompt, seed and `how`.
    Raises UserError if a video made in another way stands where one is to be written, unless `overwrite`.
    """
    facts = {prompt: {"prompt": prompt.text, "seed": prompt.seed, **asdict(how), "fps": fps, **made_with}
             for prompt in prompts}
    there = {prompt: read_metadata(folder / file_name(prompt)) for prompt in prompts
             if (folder / file_name(prompt)).exists()}
    kept = [prompt for prompt in there if _is_same(there[prompt], facts[prompt])]
    others = [prompt for prompt in there if prompt not in kept]
    if others and not overwrite:
        first = others[0]
        raise UserError(f"{folder / file_name(first)}: is there already and was made in another way "
                        f"({_difference(there[first], facts[first])}), as {len(others)} of {len(prompts)}. "
                        f"Choose another output folder.")
    missing = [prompt for prompt in prompts if prompt not in kept]
    remarks = [f"{len(kept)} of {len(prompts)} videos are there already"] if kept else []
    remarks += [f"{file_name(prompt)}: the prompt is too long for the text encoder, not seen: \"{unseen}\""
                for prompt in missing if (unseen := unseen_words(pipeline, prompt.text))]
    remove_stale(folder)
    index_folder(folder, kept, replaced=others)
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    writing = None
    with ThreadPoolExecutor(1) as writer:   # leaving it, by Ctrl-C too, waits for what is being written
        for batch in progress(batches) if batches else ():
            videos = render(pipeline, batch, how)
            remarks += writing.result() if writing else []   # at most one batch waits
            writing = writer.submit(write_videos, folder, batch, videos, fps, facts)
        remarks += writing.result() if writing else []
    return remarks


def write_videos(folder: Path, prompts: list[Prompt], videos: np.ndarray, fps: float,
                 facts: Mapping[Prompt, dict[str, Any]]) -> list[str]:
    """Write rendered videos (b f h w c) with what is said of each in `facts`, and add them to the folder;
    return remarks for the user."""
    remarks = []
    for prompt, frames in zip(prompts, videos):
        remarks += [f"{file_name(prompt)}: {fault}" for fault in faults(frames)]
        write_video(folder / file_name(prompt), frames, fps, facts[prompt])
    index_folder(folder, prompts)
    return remarks


def index_folder(folder: Path, prompts: list[Prompt], replaced: Sequence[Prompt] = ()) -> None:
    """Add the captions of `prompts` to the folder, and write its gallery; processes take turns.

    The scores of videos that are about to be `replaced` are forgotten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".index.lock"):
        forget_scores(folder, map(file_name, replaced))
        add_captions(folder, {file_name(prompt): prompt.text for prompt in prompts})
        write_gallery(folder)


def faults(frames: np.ndarray) -> list[str]:
    """Return what is plainly wrong with a rendered video (f h w c): frames of a single colour, or no
    motion."""
    num_flat = sum(bool(np.ptp(frame, axis=(0, 1)).max() <= FLAT) for frame in frames)
    if num_flat:
        what = "is one flat colour" if num_flat == len(frames) else \
            f"has {num_flat} of {len(frames)} frames in one flat colour"
        return [f"{what}. In fp16, numbers can overflow: try precision bf16 or no."]
    changes = frame_changes(frames)
    if changes and max(changes) < SAME_PICTURE:
        return ["does not move: all frames show the same picture."]
    return []


def _is_same(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return not _different_keys(there, wanted)


def _difference(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    if not there:
        return "not by this program"
    keys = _different_keys(there, wanted)[:3]
    return ", ".join(f"{key} {there.get(key)}, not {wanted.get(key)}" for key in keys)


def _different_keys(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    keys = [*wanted, *(key for key in there if key not in wanted)]
    return [key for key in keys if key not in UNCOMPARED and there.get(key) != wanted.get(key)]
