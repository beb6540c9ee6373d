"""Whether a base can be sampled in a number of steps: the check of --steps and num_inference_steps."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from models.base_folder import num_timesteps, own_scheduler
from rendering.samplers import make_scheduler

# diffusers is imported where a scheduler is made: checking a config should not wait for it
if TYPE_CHECKING:
    from diffusers import SchedulerMixin

FULL_NOISE = 0.89   # share of the noise levels above which the first step must begin


def check_steps(num_steps: int, sampler: str, folder: Path, key: str,
                adapter: Path | None = None) -> list[str]:
    """Return why the base in `folder`, with its motion adapter if it has one, cannot be sampled in
    `num_steps`; empty if it can.

    `key`: what the user calls the number, for the message.
    """
    num_levels = num_timesteps(folder)
    if num_steps > num_levels:
        return [f"{key} {num_steps}: this base takes at most {num_levels}."]
    if num_steps * 10 <= num_levels:   # then every spacing begins within the noisiest tenth of the levels
        return []
    scheduler = make_scheduler(own_scheduler(folder, adapter), sampler)
    most = next(num for num in range(num_steps, 0, -1)
                if _begins_at_full_noise(scheduler, num, num_levels) and _gives_numbers(scheduler, num))
    return [] if most == num_steps else [
        f"{key} {num_steps}: the sampler {sampler} cannot divide the {num_levels} noise levels of this base "
        f"by it. Take {most} steps, or another sampler."]


def _begins_at_full_noise(scheduler: "SchedulerMixin", num_steps: int, num_levels: int) -> bool:
    """Say whether the first step is near the last noise level.

    The spacing "leading" takes every n-th level, n a whole number, and leaves the rest out at the noisy end.
    In 334 steps of 1000 levels it would call pure noise a video that has lost a third of its noise.
    """
    scheduler.set_timesteps(num_steps)
    return FULL_NOISE * num_levels <= max(scheduler.timesteps) < num_levels


def _gives_numbers(scheduler: "SchedulerMixin", num_steps: int) -> bool:
    """Say whether a solver survives its own timesteps: two of them that are equal give NaN in some."""
    scheduler.set_timesteps(num_steps)
    sample = torch.ones(1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(torch.zeros_like(sample), timestep, sample).prev_sample
    return bool(torch.isfinite(sample).all())
