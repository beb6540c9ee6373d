"""Rendering prompts: the one way from text to frames, for samples during training and for generation."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin

from models.base import decode_latents
from rendering.samplers import DEFAULT_SAMPLER, make_scheduler
from utils.prompt_weights import has_weights
from utils.prompts import Prompt
from utils.video import SAME_PICTURE, frame_changes

FLAT = 2   # of 255: what rounding leaves of a single colour


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
    """Return the latents (b c f h w) of a video for each prompt. h w are latent cells.

    Each video has a generator of its own on the CPU, seeded by its prompt's seed: its noise is the same on
    every device and whatever else is in the batch.
    """
    prompt_embeds = embed(pipeline, [prompt.text for prompt in prompts])                    # (b n d)
    negative_prompt_embeds = embed(pipeline, [how.negative_prompt] * len(prompts))
    own_scheduler = pipeline.scheduler
    pipeline.scheduler = make_scheduler(own_scheduler, how.sampler)
    try:
        with noise_of_each_video(pipeline.scheduler):
            return pipeline(
                prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
                height=how.height, width=how.width, num_frames=how.num_frames,
                num_inference_steps=how.num_inference_steps, guidance_scale=how.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts],
                output_type="latent",
            ).frames
    finally:
        pipeline.scheduler = own_scheduler


@contextmanager
def noise_of_each_video(scheduler: SchedulerMixin) -> Iterator[None]:
    """Let a scheduler that adds noise in its steps draw each video's noise from the video's own generator.

    TextToVideoSDPipeline steps the frames of all videos as one batch (b*f c h w), and has b generators.
    """
    plain_step = scheduler.step

    @functools.wraps(plain_step)   # the pipeline looks at its signature
    def step(model_output, timestep, sample, *arguments, generator=None, **named):
        if isinstance(generator, list):
            num_rows = len(sample) // len(generator)   # of a video
            named["generator"] = [own for own in generator for _ in range(num_rows)]
        elif generator is not None:
            named["generator"] = generator
        return plain_step(model_output, timestep, sample, *arguments, **named)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


def embed(pipeline: DiffusionPipeline, texts: list[str]) -> torch.Tensor:
    """Return the embeddings (b n d) of prompts. compel embeds the prompts that have weights."""
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


def faults(frames: np.ndarray) -> list[str]:
    """Return what is plainly wrong with a rendered video (f h w c): flat frames, or no motion."""
    num_flat = sum(bool(np.ptp(frame, axis=(0, 1)).max() <= FLAT) for frame in frames)
    if num_flat:
        what = "is one flat colour" if num_flat == len(frames) else \
            f"has {num_flat} of {len(frames)} frames in one flat colour"
        return [f"{what}. In fp16, numbers can overflow: try precision bf16 or no."]
    changes = frame_changes(frames)
    if changes and max(changes) < SAME_PICTURE:
        return ["does not move: all frames show the same picture."]
    return []
