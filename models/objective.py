"""The training objective: timesteps, noise, the target, and the error of the network's prediction.

Shapes: b clips, c latent channels, f frames, h w latent cells, n tokens, d text width.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from utils.errors import UserError

SKEW = {"uniform": 0.0, "high-level": 0.5, "low-level": -0.5}


def sample_timesteps(num: int, num_train_timesteps: int, skew: float, generator: torch.Generator) -> Tensor:
    """Draw `num` integer timesteps (b). A positive `skew` favours noisy timesteps, a negative one clean ones.

    The density is proportional to 1 - skew * cos(pi t / T). Layout and motion are decided at high noise, so a
    motion is learned there. Source: Materzynska et al. 2023, arXiv 2312.04966.
    Raises UserError if skew is outside [-1, 1].
    """
    density = timestep_density(num_train_timesteps, skew)
    return torch.multinomial(density, num, replacement=True, generator=generator)


def even_timesteps(num: int, num_train_timesteps: int, skew: float) -> Tensor:
    """Return timesteps (num) that represent the draws of `sample_timesteps`: the middles of `num` equal
    shares of its density."""
    shares = timestep_density(num_train_timesteps, skew).cumsum(0)
    middles = (torch.arange(num, dtype=torch.float64) + 0.5) / num * shares[-1]
    return torch.searchsorted(shares, middles)


def timestep_density(num_train_timesteps: int, skew: float) -> Tensor:
    """Return how often each timestep is drawn, up to a factor: float64."""
    if not -1 <= skew <= 1:
        raise UserError(f"The skew of timestep sampling is {skew}. It must lie between -1 and 1.")
    t = torch.arange(num_train_timesteps, dtype=torch.float64)
    return 1 - skew * torch.cos(torch.pi * t / num_train_timesteps)


def sample_noise(shape: tuple[int, ...], generator: torch.Generator, offset_strength: float = 0.0) -> Tensor:
    """Draw noise (b c f h w). With an offset, each channel of each frame is also shifted as a whole.

    The shift lets the network learn brightness. Source: N. Guttenberg 2023, "Diffusion with offset noise".
    """
    noise = torch.randn(shape, generator=generator)
    if offset_strength:
        noise = noise + offset_strength * torch.randn((*shape[:3], 1, 1), generator=generator)
    return noise


def denoising_target(scheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return the target of the network's prediction, by the scheduler's prediction_type. All (b c f h w)."""
    prediction_type = scheduler.config.prediction_type
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    if prediction_type == "sample":
        return latents
    raise UserError(f"The base's scheduler has prediction_type {prediction_type!r}; this program trains "
                    f"epsilon, v_prediction and sample.")


def clip_losses(unet: Callable, scheduler, latents: Tensor, noise: Tensor, timesteps: Tensor,
                prompt_embeds: Tensor) -> Tensor:
    """Return the mean squared error of each clip (b), float32.

    latents, noise (b c f h w) float32; timesteps (b); prompt_embeds (b n d).
    """
    noisy_latents = scheduler.add_noise(latents, noise, timesteps)              # (b c f h w)
    target = denoising_target(scheduler, latents, noise, timesteps)             # (b c f h w)
    prediction = unet(noisy_latents, timesteps, prompt_embeds).sample           # (b c f h w)
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def total_loss(losses: Mapping[str, Tensor], prior_lambda: float) -> Tensor:
    """Return mean exemplar loss + prior_lambda * mean regularization loss, for the roles in `losses`.

    losses: role -> losses of its examples (b). Source: arXiv 2312.04966.
    """
    return sum((prior_lambda if role == "regularization" else 1.0) * of_role.mean()
               for role, of_role in losses.items())
