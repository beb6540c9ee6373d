"""Rendering prompts: the one way from text to video files, for samples during training and for generation
alike."""

import time
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
from rendering.gallery import PAGE_NAME, forget_scores, write_gallery
from rendering.samplers import DEFAULT_SAMPLER, OWN_SAMPLER, make_scheduler
from utils.captions import add_captions
from utils.errors import UserError
from utils.files import remove_stale
from utils.prompt_weights import has_weights
from utils.prompts import Prompt, file_names
from utils.video import SAME_PICTURE, read_metadata, write_video

# where weights lie may change: which ones they are, their fingerprints tell; the prompt says what V* became
UNCOMPARED = ("base", "motion", "placeholder_token")
UNSAID = {"sampler": OWN_SAMPLER}   # of files by earlier versions, whose metadata lack the key
# Captions and gallery cost time in proportion to the videos in the folder, so not every batch writes them.
# Ctrl-C still leaves them complete. After a kill, the videos of the last so many seconds are missing in them.
INDEX_SECONDS = 10
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
    sampler: str = DEFAULT_SAMPLER   # one of rendering/samplers.py


def render(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering) -> np.ndarray:
    """Return a uint8 video (f h w c) for each prompt: (b f h w c). Each is decoded by itself."""
    latents = denoise(pipeline, prompts, how)                                    # (b c f h w)
    return np.stack([decode_latents(pipeline.vae, video) for video in latents])  # (b f h w c)


@torch.no_grad()
def denoise(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering) -> torch.Tensor:
    """Return the latents (b c f h w) of a video for each prompt, of which h w are cells.

    Each video has a generator of its own on the CPU, seeded by its prompt's seed: its noise is the same on
    every device and whatever else is in the batch.
    """
    prompt_embeds = embed(pipeline, [prompt.text for prompt in prompts])                    # (b n d)
    negative_prompt_embeds = embed(pipeline, [how.negative_prompt] * len(prompts))
    own_scheduler = pipeline.scheduler
    pipeline.scheduler = make_scheduler(own_scheduler, how.sampler)
    try:
        return pipeline(
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
            height=how.height, width=how.width, num_frames=how.num_frames,
            num_inference_steps=how.num_inference_steps, guidance_scale=how.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts],
            output_type="latent",
        ).frames
    finally:
        pipeline.scheduler = own_scheduler


def embed(pipeline: DiffusionPipeline, texts: list[str]) -> torch.Tensor:
    """Return the embeddings (b n d) of prompts; compel makes those of prompts that have weights."""
    encoder = pipeline.text_encoder
    prompt_embeds, _ = pipeline.encode_prompt(texts, encoder.device, 1, False)
    weighted = [index for index, text in enumerate(texts) if has_weights(text)]
    if weighted:
        # optional: utils/prompt_weights.py has said so if it is missing
        from compel import Compel

        compel = Compel(tokenizer=pipeline.tokenizer, text_encoder=encoder, truncate_long_prompts=True)
        for index in weighted:
            prompt_embeds[index] = compel(texts[index])[0]
    return prompt_embeds


def render_to_folder(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering, folder: Path,
                     fps: float, batch_size: int, made_with: dict[str, Any], overwrite: bool = False,
                     progress: Callable[[list], Iterable] = iter,
                     share: tuple[int, int] = (0, 1)) -> list[str]:
    """Render each prompt to `folder`/{prompt}_seed{seed}.mp4, in batches; return remarks for the user.

    A thread writes each batch while the next one is rendered. Videos that are in the folder already and were made in the same way are kept, so an interrupted list
    continues. The folder is then a data folder too (its captions in text.json) and has the gallery in it.
    `made_with`: base and motion weights, written into each file beside prompt, seed and `how`. `share`: this
    process renders the (index, number of processes) share of the prompts.
    Raises UserError if a video made in another way has the name of one to be written, unless `overwrite`.
    """
    named = dict(list(file_names(prompts, folder).items())[share[0] :: share[1]])
    facts = {name: {"prompt": prompt.text, "seed": prompt.seed, **asdict(how), "fps": fps, **made_with}
             for name, prompt in named.items()}
    found = {name: read_metadata(folder / name) for name in named if (folder / name).exists()}
    kept = [name for name in found if not _different_keys(found[name], facts[name])]
    replaced = [name for name in found if name not in kept]
    if replaced and not overwrite:
        first = replaced[0]
        raise UserError(f"{folder / first}: is there already and was made in another way "
                        f"({_difference(found[first], facts[first])}), as {len(replaced)} of {len(named)}. "
                        f"Choose another output folder, or replace them with --overwrite.")
    missing = [name for name in named if name not in kept]
    remarks = [f"{len(kept)} of {len(named)} videos are there already"] if kept else []
    remarks += [f"{name}: the prompt is too long for the text encoder, not seen: \"{unseen}\""
                for name in missing if (unseen := unseen_words(pipeline, named[name].text))]
    captions = {name: prompt.text for name, prompt in named.items()}
    remove_stale(folder)
    index_folder(folder, captions, replaced)
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    writing = None
    try:
        with ThreadPoolExecutor(1) as writer:   # leaving it, by Ctrl-C too, waits for what is being written
            for batch in progress(batches) if batches else ():
                videos = render(pipeline, [named[name] for name in batch], how)
                remarks += writing.result() if writing else []   # at most one batch waits
                writing = writer.submit(write_videos, folder, dict(zip(batch, videos)), fps, facts, captions)
            remarks += writing.result() if writing else []
    finally:
        if batches:
            index_folder(folder, captions)
    return remarks


def write_videos(folder: Path, videos: Mapping[str, np.ndarray], fps: float,
                 facts: Mapping[str, dict[str, Any]], captions: Mapping[str, str]) -> list[str]:
    """Write {name: rendered video (f h w c)}, each with its `facts`; return remarks for the user.

    The folder's index is written again if it is older than INDEX_SECONDS.
    """
    remarks = []
    for name, frames in videos.items():
        remarks += [f"{name}: {fault}" for fault in faults(frames)]
        write_video(folder / name, frames, fps, facts[name])
    if time.time() - (folder / PAGE_NAME).stat().st_mtime > INDEX_SECONDS:
        index_folder(folder, captions)
    return remarks


def index_folder(folder: Path, captions: Mapping[str, str], replaced: Sequence[str] = ()) -> None:
    """Add {name: caption} of the videos that are in `folder` to its text.json, and write its gallery.

    Processes take turns. The scores of videos that are about to be `replaced` are forgotten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".index.lock"):
        forget_scores(folder, replaced)
        add_captions(folder, {name: text for name, text in captions.items() if (folder / name).exists()})
        write_gallery(folder)


def faults(frames: np.ndarray) -> list[str]:
    """Return what is plainly wrong with a rendered video (f h w c): frames of a single colour, or no
    motion."""
    num_flat = sum(bool(np.ptp(frame, axis=(0, 1)).max() <= FLAT) for frame in frames)
    if num_flat:
        what = "is one flat colour" if num_flat == len(frames) else \
            f"has {num_flat} of {len(frames)} frames in one flat colour"
        return [f"{what}. In fp16, numbers can overflow: try precision bf16 or no."]
    changes = [np.abs(after.astype(np.int16) - before).mean() for before, after in zip(frames, frames[1:])]
    if changes and max(changes) < SAME_PICTURE:
        return ["does not move: all frames show the same picture."]
    return []


def _difference(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    if not there:
        return "not by this program"
    keys = _different_keys(there, wanted)[:3]
    there = UNSAID | there
    return ", ".join(f"{key} {there.get(key)}, not {wanted.get(key)}" for key in keys)


def _different_keys(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    there = UNSAID | there
    keys = [*wanted, *(key for key in there if key not in wanted)]
    return [key for key in keys if key not in UNCOMPARED and there.get(key) != wanted.get(key)]
