"""Timesteps, noise, target and loss."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from models.objective import (
    SKEW,
    clip_losses,
    denoising_target,
    sample_noise,
    sample_timesteps,
    total_loss,
)
from utils.errors import UserError

T = 1000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampling, sign", [("uniform", 0), ("high-level", -1), ("low-level", 1)])
def test_timestep_density_is_the_documented_one(sampling, sign):
    drawn = sample_timesteps(400_000, T, SKEW[sampling], generator())
    shares = torch.histc(drawn.double(), bins=10, min=0, max=T) / len(drawn)
    middle = (torch.arange(10, dtype=torch.float64) + 0.5) / 10
    expected = (1 + sign * 0.5 * torch.cos(torch.pi * middle)) / 10
    torch.testing.assert_close(shares, expected, atol=0.003, rtol=0)   # 0.0005 is one standard deviation


def test_timesteps_cover_the_whole_range():
    drawn = sample_timesteps(50_000, T, 0.5, generator())
    assert drawn.min() == 0 and drawn.max() == T - 1


def test_skew_outside_its_range_is_refused():
    with pytest.raises(UserError, match="between -1 and 1"):
        sample_timesteps(1, T, 1.5, generator())


def test_without_offset_noise_is_plain_noise():
    shape = (2, 4, 3, 8, 8)
    assert torch.equal(sample_noise(shape, generator()), torch.randn(shape, generator=generator()))


def test_offset_shifts_each_frames_channels_as_a_whole():
    shape = (1, 4, 3, 8, 8)
    shift = sample_noise(shape, generator(), 0.1) - sample_noise(shape, generator())
    assert torch.allclose(shift, shift[..., :1, :1].expand(shape), atol=1e-6)
    assert len(shift[..., 0, 0].flatten().unique()) == 12


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_target_is_what_the_scheduler_says(prediction_type):
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    latents, noise = torch.randn(2, 1, 4, 3, 8, 8, generator=generator())
    t = torch.tensor([500])
    alpha = scheduler.alphas_cumprod[500]
    expected = {"epsilon": noise, "sample": latents,
                "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * latents}[prediction_type]
    torch.testing.assert_close(denoising_target(scheduler, latents, noise, t), expected)


def test_unknown_prediction_type_is_named():
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type="flow"))
    with pytest.raises(UserError, match="'flow'"):
        denoising_target(scheduler, None, None, None)


def test_loss_is_zero_for_a_perfect_network_and_one_for_a_blind_one():
    scheduler = DDPMScheduler()
    latents, noise = torch.randn(2, 2, 4, 3, 16, 16, generator=generator())
    t, embeds = torch.tensor([10, 900]), torch.zeros(2, 7, 8)
    perfect = lambda noisy, timesteps, prompt_embeds: SimpleNamespace(sample=noise)
    blind = lambda noisy, timesteps, prompt_embeds: SimpleNamespace(sample=torch.zeros_like(noise))
    assert torch.equal(clip_losses(perfect, scheduler, latents, noise, t, embeds), torch.zeros(2))
    expected = noise.square().flatten(1).mean(dim=1)
    torch.testing.assert_close(clip_losses(blind, scheduler, latents, noise, t, embeds), expected)


def test_network_sees_the_latents_noised_to_the_timestep():
    scheduler, seen = DDPMScheduler(), {}
    latents, noise = torch.randn(2, 1, 4, 3, 8, 8, generator=generator())

    def unet(noisy, timesteps, prompt_embeds):
        seen.update(noisy=noisy, timesteps=timesteps)
        return SimpleNamespace(sample=noisy)

    clip_losses(unet, scheduler, latents, noise, torch.tensor([700]), None)
    alpha = scheduler.alphas_cumprod[700]
    torch.testing.assert_close(seen["noisy"], alpha.sqrt() * latents + (1 - alpha).sqrt() * noise)


def test_total_loss_is_exemplar_plus_lambda_regularization():
    exemplar, regularization = torch.tensor([1.0, 3.0]), torch.tensor([10.0])
    both = {"exemplar": exemplar, "regularization": regularization}
    assert total_loss(both, 0.5) == 2 + 0.5 * 10
    assert total_loss({"exemplar": exemplar}, 0.5) == 2
    assert total_loss({"regularization": regularization}, 0.5) == 0.5 * 10
