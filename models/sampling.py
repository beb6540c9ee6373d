"""Rendering prompts: the one way from text to video files, for samples during training and for generation
alike."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from models.base import unseen_words
from utils.captions import add_captions
from utils.gallery import write_gallery
from utils.prompts import Prompt, file_name
from utils.video import read_metadata, write_video

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
    every device and whatever else is in the batch.
    """
    generators = [torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts]
    video = pipeline(
        prompt=[prompt.text for prompt in prompts],
        negative_prompt=[how.negative_prompt] * len(prompts),
        height=how.height, width=how.width, num_frames=how.num_frames,
        num_inference_steps=how.num_inference_steps, guidance_scale=how.guidance_scale,
        generator=generators, output_type="np",
    ).frames                                                    # (b f h w c) in 0..1
    return (np.asarray(video) * 255).round().astype(np.uint8)   # (b f h w c)


def render_to_folder(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering, folder: Path, fps: float,
                     batch_size: int, made_with: dict[str, Any],
                     progress: Callable[[Iterable], Iterable] = iter) -> list[str]:
    """Render each prompt to `folder`/{prompt}_seed{seed}.mp4, in batches; return remarks for the user.

    Videos that are there already and were made in the same way are kept, so an interrupted list continues.
    The folder is then a data folder too (its captions in text.json) and has the gallery in it.
    `made_with`: base and motion weights, written into each file beside prompt, seed and `how`.
    """
    made = {prompt: _is_made(folder / file_name(prompt), _metadata(prompt, how, fps, made_with)) for prompt in prompts}
    missing = [prompt for prompt in prompts if not made[prompt]]
    remarks = [f"{file_name(prompt)}: was made in another way, and is made again" for prompt in missing
               if (folder / file_name(prompt)).exists()]
    remarks += [f"{file_name(prompt)}: the prompt is too long for the text encoder, not seen: \"{unseen}\""
                for prompt in missing if (unseen := unseen_words(pipeline, prompt.text))]
    if len(missing) < len(prompts):
        remarks.append(f"{len(prompts) - len(missing)} of {len(prompts)} videos are there already")
    for batch in progress([missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]):
        for prompt, frames in zip(batch, render(pipeline, batch, how)):
            remarks += [f"{file_name(prompt)}: {fault}" for fault in faults(frames)]
            write_video(folder / file_name(prompt), frames, fps, _metadata(prompt, how, fps, made_with))
        add_captions(folder, {file_name(prompt): prompt.text for prompt in batch})
        write_gallery(folder)
    return remarks


def faults(frames: np.ndarray) -> list[str]:
    """Return what is plainly wrong with a rendered video (f h w c): a single colour throughout, or no
    motion."""
    if np.ptp(frames) <= 2:
        return ["is one flat colour. In fp16, weights can overflow: try mixed_precision bf16 or no."]
    if len(frames) > 1 and not np.any(frames[1:] != frames[:-1]):
        return ["does not move: all frames are equal."]
    return []


def _metadata(prompt: Prompt, how: Rendering, fps: float, made_with: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": prompt.text, "seed": prompt.seed, **asdict(how), "fps": fps, **made_with}


def _is_made(path: Path, metadata: dict[str, Any]) -> bool:
    return path.exists() and read_metadata(path) == metadata
