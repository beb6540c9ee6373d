"""Which solver turns noise into a video: the choices of --sampler and validation_data.sampler.

diffusers calls a solver a scheduler. Every scheduler here is made from the base's own scheduler config, so
noise levels and prediction type (epsilon, v) are those the base was trained with.
"""

import inspect
from typing import TYPE_CHECKING

# diffusers is imported in the function that uses it: checking a config should not wait for it
if TYPE_CHECKING:
    from diffusers import SchedulerMixin

OWN_SAMPLER = "base"   # the scheduler that the base's folder names
SCHEDULERS = {
    "dpm": "DPMSolverMultistepScheduler",   # DPM-Solver++, which the published implementation renders with
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}
SPACING = "timestep_spacing"   # key of a scheduler's config
SAMPLERS = (*SCHEDULERS, OWN_SAMPLER)
DEFAULT_SAMPLER = "dpm"


def make_scheduler(own: "SchedulerMixin", sampler: str) -> "SchedulerMixin":
    """Return the scheduler for `sampler`, one of SAMPLERS; `own` is the base's, and is returned for "base".

    What the base's config does not say takes the new class's default, as in the published implementation. A
    folder that diffusers has written says every default of its own scheduler. So a spacing of timesteps that
    equals the default of the base's own scheduler is not taken over.

    With zero terminal SNR the first step must start at the last timestep, where the base sees pure noise.
    Only the spacing "trailing" does. Source: Lin et al. 2023, arXiv 2305.08891.

    Clipping and thresholding are for networks that make pixels, which lie between -1 and 1. Latents do not.
    """
    if sampler == OWN_SAMPLER:
        return own
    import diffusers

    config, unsaid = dict(own.config), inspect.signature(type(own).__init__).parameters.get(SPACING)
    if unsaid and config.get(SPACING) == unsaid.default:
        del config[SPACING]
    # from_config drops values of `config` that the base's folder did not say; keywords win over both
    ours = {"clip_sample": False, "thresholding": False}
    if own.config.get("rescale_betas_zero_snr"):
        ours[SPACING] = "trailing"
    return getattr(diffusers, SCHEDULERS[sampler]).from_config(config, **ours)
