"""How well a base can be taught, seen early: without teaching it anything.

Two questions, asked of the averaged weights now and then during pretraining:

- Does the caption matter? How much larger is the loss with a wrong caption, and with none?
- Can the base draw motions that it never saw? Drawn clips of the kept-out motions are noised up to some
  timestep and denoised again. The motion recognizer says whether they came back as themselves. A base that
  cannot bring a motion back cannot be taught it.

Shapes: n clips, f frames, c channels, h w latent cells or pixels, t tokens, d text width.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from einops import rearrange
from torch import Tensor

from evaluation.recognizing import classify_motion, load_motion_recognizer
from puppets import theatre, world
from puppets.base_latents import spread_timesteps
from puppets.clip_stream import encode_clips
from puppets.tokenizer import tokenize
from utils.commands import RECOGNIZER

SEED, NUM_CLIPS = 5511, 24                  # of the clips, for each question
TIMESTEPS = (279, 479, 679)                 # up to which the kept-out motions are noised
NUM_STEPS = 25                              # of the sampler, over all timesteps


@torch.no_grad()
def check_teachability(unet: UNet3DConditionModel, vae: AutoencoderKL, text_encoder, tokenizer,
                       scheduler: DDIMScheduler) -> dict[str, float]:
    """Return the losses with the right, a wrong and no caption, and how often kept-out motions come back."""
    device = vae.device

    def embed(captions: list[str]) -> Tensor:
        return text_encoder(tokenize(tokenizer, captions).to(device)).last_hidden_state          # (n t d)

    clips = theatre.draw_clips(NUM_CLIPS, SEED)
    latents = encode_clips(vae, torch.from_numpy(clips.frames).to(device))                       # (n c f h w)
    wrong = clips.captions[1:] + clips.captions[:1]
    scores = {f"loss, {name} caption": loss_of(unet, scheduler, latents, embed(captions))
              for name, captions in (("right", clips.captions), ("wrong", wrong), ("no", [""] * NUM_CLIPS))}

    frames, prompts = kept_out_clips()
    latents = encode_clips(vae, torch.from_numpy(frames).to(device))
    judge = load_motion_recognizer(str(RECOGNIZER))
    asked = np.array([judge.labels.index(motion) for motion in world.KEPT_OUT_MOTIONS] * (NUM_CLIPS // 3))
    for timestep in TIMESTEPS:
        rebuilt = denoise_from(timestep, unet, vae, scheduler, latents, embed(prompts))
        seen = classify_motion(judge, rebuilt).argmax(1)
        scores[f"kept-out motions back from {timestep}"] = float((seen == asked).mean())
    return scores


def loss_of(unet: UNet3DConditionModel, scheduler: DDIMScheduler, latents: Tensor,
            prompt_embeds: Tensor) -> float:
    """Return the mean squared error of the prediction of v, at noise that is the same for every caption."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    timesteps = spread_timesteps(len(latents), scheduler.config.num_train_timesteps, torch.device("cpu"),
                                 generator).to(latents.device)
    noisy_latents = scheduler.add_noise(latents, noise, timesteps)
    target = scheduler.get_velocity(latents, noise, timesteps)
    return (unet(noisy_latents, timesteps, prompt_embeds).sample.float() - target).square().mean().item()


def kept_out_clips() -> tuple[np.ndarray, list[str]]:
    """Return drawn clips of the kept-out motions in turn, uint8 (n f h w c), and prompts.

    The prompts name character and place only: the base has no words for these motions.
    """
    rng, scenes = np.random.default_rng(SEED), []
    for index in range(NUM_CLIPS):
        motion = world.KEPT_OUT_MOTIONS[index % len(world.KEPT_OUT_MOTIONS)]
        character, place = str(rng.choice(world.CHARACTERS)), str(rng.choice(world.PLACES))
        scenes.append(world.Scene(character, motion, place, 1))
    clips = theatre.draw_clips(NUM_CLIPS, SEED + 1, scenes=scenes)
    prompts = [f"{world.say_who(scene.character, 1)} {world.PLACE_PHRASES[scene.place][0]}"
               for scene in scenes]
    return clips.frames, prompts


def denoise_from(timestep: int, unet: UNet3DConditionModel, vae: AutoencoderKL, scheduler: DDIMScheduler,
                 latents: Tensor, prompt_embeds: Tensor) -> np.ndarray:
    """Noise latents (n c f h w) up to `timestep`, denoise them, and return uint8 frames (n f h w c)."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents.device)
    scheduler.set_timesteps(NUM_STEPS, device=latents.device)
    steps = scheduler.timesteps[scheduler.timesteps <= timestep]
    noisy_latents = scheduler.add_noise(latents, noise, steps[:1].expand(len(latents)))
    for step in steps:
        prediction = unet(noisy_latents, step, prompt_embeds).sample.float()
        noisy_latents = scheduler.step(prediction, step, noisy_latents).prev_sample
    parts = rearrange(noisy_latents, "n c f h w -> (n f) c h w").split(256)
    pixels = torch.cat([vae.decode(part.to(vae.dtype)).sample.float() for part in parts]).clamp(-1, 1)
    frames = ((pixels + 1) * 127.5).round().to(torch.uint8)
    return rearrange(frames, "(n f) c h w -> n f h w c", n=len(latents)).cpu().numpy()
