"""The costs of a run beside its steps (cache, checkpoint, videos), and the cost of a step with many clips."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.base import load_base
from rendering.sampling import Rendering
from rendering.video_folder import render_to_folder
from studies.step_costs import now, resident_bytes, timed_step
from training.clips import Clip
from training.inputs import Inputs, encode_inputs, sample_latents
from training.loop import save
from training.run_folder import checkpoint_dir
from training.setup import Training
from training.windows import draw_window
from utils.devices import DTYPES, resolve_precision
from utils.prompts import Prompt
from utils.tensor_files import write_tensors

MANY_CLIPS = (10, 1000)


def cache_cost(training: Training) -> dict[str, float]:
    """Encode the clips and captions of a run into an empty cache: seconds, frames and bytes."""
    plan, device, parts = training.plan, training.accelerator.device, training.base.pipeline
    clips = plan.exemplars + plan.regularization
    with tempfile.TemporaryDirectory() as folder:
        for encoder in (parts.vae, parts.text_encoder):
            encoder.to(device)
        began = now(device)
        encode_inputs(training.base, clips, Path(folder))
        num_frames = sum(len(clip.frames) * len(clip.shifts) for clip in clips)
        return {"seconds": now(device) - began, "frames": num_frames, "bytes": folder_bytes(Path(folder))}


def checkpoint_cost(training: Training) -> dict[str, float]:
    """Write the checkpoint of a step: seconds and bytes."""
    timed_step(training, 0)
    began = now(training.accelerator.device)
    save(training, 1)
    return {"seconds": time.perf_counter() - began, "bytes": folder_bytes(checkpoint_dir(training.run, 1))}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def video_costs(base_name: str, prompts: Sequence[Prompt], how: Rendering, batch_sizes: Sequence[int],
                rounds: int) -> dict[int, list[float]]:
    """Return {batch size: seconds of each round of rendering all prompts to files}. The sizes take turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    computed_in, _ = resolve_precision(None)
    pipeline = load_base(base_name).pipeline.to(device, DTYPES[computed_in])
    spent = {size: [] for size in batch_sizes}
    for turn in range(-1, rounds):
        for size in batch_sizes:
            with tempfile.TemporaryDirectory() as folder:
                # the first turn, of one batch and two steps, warms up
                given = (prompts, how) if turn >= 0 else (prompts[:size], replace(how, num_inference_steps=2))
                began = now(torch.device(device))
                render_to_folder(pipeline, list(given[0]), given[1], Path(folder), 8, size, {})
                if turn >= 0:
                    spent[size].append(now(torch.device(device)) - began)
    return spent


def clip_costs(training: Training, num_steps: int = 7) -> dict[int, dict[str, Any]]:
    """Return {number of clips: seconds of each step, bytes of the cache, bytes by which reading every clip
    made this process grow}. The numbers of clips take turns."""
    found, trainings, clip = {}, {}, training.plan.exemplars[0]
    with tempfile.TemporaryDirectory() as folder:
        for num in MANY_CLIPS:
            clips, inputs = many_clips(training, clip, num, Path(folder))
            plan = replace(training.plan, exemplars=clips, regularization=[])
            trainings[num] = replace(training, plan=plan, inputs=inputs)
            timed_step(trainings[num], 0)
            before = resident_bytes()
            for index in range(num):
                inputs.latents(draw_window(clips, "exemplar", 0, index))
            found[num] = {"taken": [], "grown": max(0, resident_bytes() - before),
                          "cache": folder_bytes(Path(folder))}
        for step in range(1, num_steps + 1):
            for num, varied in trainings.items():
                found[num]["taken"].append(timed_step(varied, step)["seconds"])
    return found


def many_clips(training: Training, clip: Clip, num: int, folder: Path) -> tuple[list[Clip], Inputs]:
    """Return `num` clips like `clip`, each with a cache of its own in `folder`, and the inputs that read
    it."""
    clips = [replace(clip, path=Path(f"{index:04}.mp4"), shifts=(0.0,)) for index in range(num)]
    latent_paths = {(each, 0.0): folder / f"{each.path.stem}.safetensors" for each in clips}
    shape = (len(clip.frames), training.base.unet.config.in_channels,
             *(side // training.plan.strides[0] for side in reversed(clip.size)))
    for path in latent_paths.values():
        if not path.exists():
            write_tensors(path, {"mean": torch.randn(shape), "std": torch.rand(shape)})
    return clips, Inputs(partial(sample_latents, latent_paths), training.inputs.prompt_embeds)
