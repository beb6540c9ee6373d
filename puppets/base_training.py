"""How the networks of the bundled base are trained, by the clock: autoencoder, text encoder, UNet.

Learning rates are functions of how much of a stage's time is over, so that a stage ends well on any
device. Each stage writes checkpoints and goes on from its last one.

Shapes: b batch, f frames, c channels, h w height and width (pixels or latent cells), n tokens.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from einops import rearrange
from torch import Tensor
from transformers import CLIPTextModel

from models.fast import use_fast_forms
from puppets import base_networks as networks
from puppets import theatre, training_run, world
from puppets.base_captions import CAPTION_LABELS, LABEL_COUNTS, caption_labels, write_training_caption
from puppets.base_latents import spread_timesteps
from puppets.clip_stream import SEEDS, ClipStream
from puppets.first_networks import FirstNetworks
from puppets.teachability import check_teachability
from puppets.tokenizer import tokenize

# shares of --total-minutes at which each stage ends; the rest of the time is for exporting and measuring
STAGE_ENDS = {"autoencoder": 0.22, "text": 0.26, "video": 0.95}
LATER_STAGE_ENDS = STAGE_ENDS | {"autoencoder": 0.12, "text": 0.16}   # with the networks of an earlier base
UNET_STAGE_ENDS = {"autoencoder": 0.0, "text": 0.0, "video": 0.97}   # when only the UNet is trained
TEXT_STEPS = 600         # the text encoder needs no more, however much time there is
CAPTIONS_PER_STEP = 64   # of the text stage
TEXT_RATE = 1e-3         # learning rate at its highest; a third of it for the text encoder of an earlier base
AUTOENCODER_RATE = 2e-3  # learning rate at its highest; half of it for the decoder of an earlier base
MOMENTS_WEIGHT = 1e-3    # of the pull on the mean and the deviation of the latents
MOST_LATENT_NOISE = 1.0  # in the autoencoder's training, in deviations of the latents
CLEAN_LATENTS = 0.25     # share of the autoencoder's frames whose latents get only LATENT_NOISE
MOVING_WEIGHT = 4.0      # a pixel counts so much more in the autoencoder's loss where something moves
LATENT_NOISE = 0.03      # added to the latents that the UNet learns on: it need not draw finer than that
FIRST_BATCHES = 64       # the UNet waits until clips for so many batches have arrived
NEW_CLIPS = 0.25         # clips drawn and encoded for each clip that the UNet trains on: both take its time
DECIDING = (0.4, 0.9)    # timesteps at which it is decided how arms move, as shares of all timesteps
COOLING = 0.35           # share of the video stage in which the learning rate falls to 0
NORMALIZING_FRAMES = 1024


class Clock:
    """How far the whole making has come, in all its pieces, and when this piece is to end.

    All processes go by the clock of the first process, so that all stop at the same step. `has_time` reads
    this clock. The other members tell the time that it has read last.
    """

    def __init__(self, accelerator: Accelerator, args: argparse.Namespace, began: float,
                 seconds_before: float):
        self.accelerator, self.seconds_before = accelerator, seconds_before
        self.began = self.now = began
        self.deadline, self.total_seconds = began + 60 * args.minutes, 60 * args.total_minutes
        self.stage_ends = (UNET_STAGE_ENDS if args.only_unet else STAGE_ENDS if args.whole_autoencoder
                           else LATER_STAGE_ENDS if args.begin_with else STAGE_ENDS)

    @property
    def elapsed(self) -> float:
        """Seconds of all pieces so far."""
        return self.seconds_before + self.now - self.began

    @property
    def piece_is_over(self) -> bool:
        return self.now >= self.deadline

    def has_time(self, stage: str) -> bool:
        """Say whether to go on with a stage in this piece."""
        # A single process keeps its clock on the CPU, so that it need not wait for its GPU.
        device = self.accelerator.device if self.accelerator.num_processes > 1 else "cpu"
        since = torch.tensor(time.time() - self.began, device=device)                    # small for float32
        self.now = self.began + broadcast(since).item()
        return not self.piece_is_over and self.progress(stage) < 1

    def progress(self, stage: str, first: float = 0.0) -> float:
        """Return how much of a stage that began at `first` (seconds of `elapsed`) is over: 1 at its end."""
        return (self.elapsed - first) / max(1e-9, self.stage_ends[stage] * self.total_seconds - first)


# ------------------------------------------------------------------------------------------- autoencoder

def train_autoencoder(accelerator: Accelerator, args: argparse.Namespace, clock: Clock, clips: ClipStream,
                      first: FirstNetworks) -> tuple[AutoencoderKL, list[float]]:
    """Train frames -> latents -> frames for its share of the time; return what load_autoencoder returns.

    Of an earlier base only the decoder is trained on, unless the whole autoencoder is.
    """
    torch.manual_seed(args.seed)
    vae = first.autoencoder()
    model = networks.FrameCoder(vae.to(memory_format=torch.channels_last))
    peak = AUTOENCODER_RATE / (2 if first.folder else 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=peak,
                                  betas=(0.9, 0.99), weight_decay=1e-4)
    run = training_run.Run(accelerator, args, "autoencoder", model, optimizer, batch_size=args.frames_batch)
    seed_noise(run)
    start = run.facts.setdefault("first", clock.elapsed)
    while clock.has_time(run.stage):
        progress = clock.progress(run.stage, start)
        while clips.take(wait=not clips.frames):
            pass
        pixels, moving = clips.draw_frames(run.num_mine)                            # (b c h w), (b 1 h w)
        weights = 1 + MOVING_WEIGHT * moving
        levels = draw_noise_levels(len(pixels), pixels.device)                                   # (b 1 1 1)
        shape = (len(pixels), vae.config.latent_channels, *(side // 8 for side in pixels.shape[2:]))
        decoded, moments_loss = run.model(pixels, levels * torch.randn(shape, device=pixels.device))
        loss = (networks.autoencoder_loss(decoded, pixels, weights / weights.mean())
                + MOMENTS_WEIGHT * moments_loss)
        rate = peak * min(1, (run.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        run.facts |= {"elapsed": clock.elapsed, "shards": clips.num_drawn}
        run.update(loss, rate, average_decay=0.999)
        if run.step % 50 == 0:
            errors = (decoded.detach().clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3)) / 4   # (b)
            error = errors[levels.flatten() <= LATENT_NOISE].mean().item()
            run.log(loss=loss.item(), psnr=-10 * math.log10(error), progress=progress)
    run.save()
    vae, noise = load_autoencoder(args.work_dir, accelerator.device, first)
    run.log(**{f"noise of channel {index}": share for index, share in enumerate(noise)})
    return vae, noise


def seed_noise(run: training_run.Run) -> None:
    """Give each process noise of its own, and a run that goes on noise that it has not seen."""
    torch.manual_seed(run.args.seed + run.step + 1_000_003 * run.accelerator.process_index)


def draw_noise_levels(num: int, device: torch.device) -> Tensor:
    """Return deviations of noise (num 1 1 1): LATENT_NOISE for a share of CLEAN_LATENTS of the frames, and
    steps from there up to MOST_LATENT_NOISE for the other frames."""
    levels = torch.full((num,), LATENT_NOISE, device=device)
    num_noisy = round(num * (1 - CLEAN_LATENTS))
    levels[num - num_noisy:] = torch.linspace(LATENT_NOISE, MOST_LATENT_NOISE, num_noisy, device=device)
    return levels[:, None, None, None]


def load_autoencoder(work_dir: Path, device: torch.device,
                     first: FirstNetworks) -> tuple[AutoencoderKL, list[float]]:
    """Return the averaged autoencoder, its latents normalized on drawn frames that it was not trained on, and
    the share of noise in each latent channel. The latents of an earlier base stay as they are, unless its
    whole autoencoder was trained on."""
    vae = first.autoencoder().to(device).eval().requires_grad_(False)
    training_run.load_average(work_dir / "autoencoder.pt", networks.FrameCoder(vae))
    frames = theatre.draw_clips(NORMALIZING_FRAMES // 4, SEEDS["everyday"] + 1, num_frames=4, fps=2.9).frames
    pixels = networks.to_vae_pixels(rearrange(frames, "n f h w c -> (n f) h w c"))
    if first.folder and not first.whole_autoencoder:
        return vae, networks.noise_shares(*networks.encode_pixels(vae, pixels)).tolist()
    return vae, networks.normalize_latents(vae, pixels)


# --------------------------------------------------------------------------------------------------- text

def train_text(accelerator: Accelerator, args: argparse.Namespace, clock: Clock, clips: ClipStream,
               first: FirstNetworks, tokenizer) -> CLIPTextModel:
    """Teach the text encoder to sum up a caption: its labels, read from every token from the end mark on.

    The text encoder of an earlier base is returned as it is, unless captions have words that are new to it.

    It stands in for CLIP's contrastive training. Most keys of the UNet's cross-attention are such padding
    tokens, so the UNet finds character, number, motion and place in them from its first step.
    """
    torch.manual_seed(args.seed)
    text_encoder = first.text_encoder() or networks.build_text_encoder(tokenizer)
    if first.folder and not first.has_new_words:
        return text_encoder.to(accelerator.device).eval().requires_grad_(False)
    model = networks.CaptionReader(text_encoder, LABEL_COUNTS)
    peak = TEXT_RATE / (3 if first.folder else 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=1e-2)
    run = training_run.Run(accelerator, args, "text", model, optimizer, batch_size=CAPTIONS_PER_STEP)
    start = run.facts.setdefault("first", clock.elapsed)
    while clock.has_time(run.stage) and run.step < TEXT_STEPS:
        progress = max(clock.progress(run.stage, start), run.step / TEXT_STEPS)
        rng = np.random.default_rng((args.seed, 2, run.step))
        scenes = [draw(rng) for draw in (world.draw_scene, world.draw_composed_scene)
                  for _ in range(CAPTIONS_PER_STEP // 2)]
        captions, says_motion = zip(*(write_training_caption(scene, rng) for scene in scenes))
        labels = caption_labels(scenes, captions, says_motion).to(accelerator.device)            # (b labels)
        input_ids = tokenize(tokenizer, list(captions)).to(accelerator.device)          # (b n)
        logits = run.model(input_ids)                                                       # labels x (b n k)
        summing = input_ids == tokenizer.eos_token_id                                            # (b n)
        loss = sum(F.cross_entropy(logit.float()[summing], labels[:, i, None].expand_as(input_ids)[summing])
                   for i, logit in enumerate(logits))
        rate = peak * min(1, (run.step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * progress))
        run.facts |= {"elapsed": clock.elapsed, "shards": clips.num_drawn}
        run.update(loss, rate, average_decay=0.99)
        if run.step % 25 == 0:
            right = [logit[:, -1].argmax(-1) == labels[:, i] for i, logit in enumerate(logits)]  # each (b)
            shares = (part.float().mean().item() for part in right)
            run.log(loss=loss.item(), **dict(zip(CAPTION_LABELS, shares)))
    run.save()
    training_run.load_average(run.path, model)
    return model.text_encoder.to(accelerator.device).eval().requires_grad_(False)


# -------------------------------------------------------------------------------------------------- video

def train_video(accelerator: Accelerator, args: argparse.Namespace, clock: Clock, clips: ClipStream,
                first: FirstNetworks, vae: AutoencoderKL, tokenizer, text_encoder) -> None:
    """Train the UNet to predict v, the learning rate falling to 0 at the end of its time.

    The text encoder stays as it is. Trained along, it came to tell the UNet of little but the place, which
    most pixels are of.
    """
    torch.manual_seed(args.seed)
    scheduler, unet = networks.build_scheduler(), first.unet()
    use_fast_forms(unet)
    optimizers = training_run.build_optimizers(unet, faster=2, weight_decay=1e-2, betas=(0.9, 0.99))
    run = training_run.Run(accelerator, args, "video", unet, *optimizers, batch_size=args.batch_size)
    seed_noise(run)
    empty_ids = tokenize(tokenizer, [""])[0].to(accelerator.device)
    losses, checked = [], run.step * args.batch_size
    start = run.facts.setdefault("first", clock.elapsed)
    first_step = run.step
    num_first = min(FIRST_BATCHES * run.num_mine, clips.most_waiting)
    while clock.has_time(run.stage):
        progress = clock.progress(run.stage, start)
        wanted = num_first + NEW_CLIPS * run.num_mine * (run.step - first_step)
        while clips.num_clips < wanted and clips.take(wait=clips.num_clips < num_first):
            pass
        clips.encode_waiting(vae, wanted)
        latents, input_ids = clips.draw_latents(run.num_mine, empty_ids)               # (b c f h w), (b n)
        latents = latents + LATENT_NOISE * torch.randn_like(latents)
        with torch.no_grad():
            prompt_embeds = text_encoder(input_ids).last_hidden_state                            # (b n d)
        noise = torch.randn_like(latents)                                                        # (b c f h w)
        timesteps = draw_timesteps(len(latents), scheduler.config.num_train_timesteps, latents.device)  # (b)
        noisy_latents = scheduler.add_noise(latents, noise, timesteps)                           # (b c f h w)
        target = scheduler.get_velocity(latents, noise, timesteps)                               # (b c f h w)
        error = (run.model(noisy_latents, timesteps, prompt_embeds).sample.float() - target).square().mean(1)
        weights = motion_weights(latents, args.motion_weight)                                    # (b 1 h w)
        rate = args.learning_rate * min(1, (run.step + 1) / 300) * min(1, (1 - progress) / COOLING)
        run.facts |= {"elapsed": clock.elapsed, "shards": clips.num_drawn}
        run.update((error * weights).mean(), rate, average_decay=0.9995 if progress < 1 - COOLING else 0.998)
        losses.append(error.detach().mean())
        num_seen = run.step * args.batch_size
        if run.step % 50 == 0:
            run.log(loss=torch.stack(losses).mean().item(), rate=rate, progress=progress, clips_seen=num_seen,
                    drawn=clips.num_drawn * args.shard_clips)
            losses.clear()
        if num_seen - checked >= args.check_clips:
            checked = num_seen
            if accelerator.is_main_process:
                run.log(clips_seen=num_seen,
                        **check_averaged(run, first.unet(), vae, text_encoder, tokenizer, scheduler))
    run.save()


def draw_timesteps(num: int, num_train_timesteps: int, device: torch.device) -> Tensor:
    """Return timesteps (num): half of them spread over all levels of noise, and half over DECIDING."""
    everywhere = spread_timesteps(num - num // 2, num_train_timesteps, device)
    return torch.cat([everywhere, spread_timesteps(num // 2, num_train_timesteps, device, between=DECIDING)])


def motion_weights(latents: Tensor, strength: float) -> Tensor:
    """Return weights (b 1 h w) of the cells of latents (b c f h w), with mean 1: more where something moves.

    In half of the cells nothing moves, and they have a third of the loss. For pretraining only: customization
    keeps the paper's objective.
    """
    moves = F.max_pool2d(latents.std(dim=2).mean(dim=1, keepdim=True), 3, stride=1, padding=1)   # (b 1 h w)
    moves = moves / moves.mean(dim=(2, 3), keepdim=True).clamp(min=0.1)
    return (1 + strength * moves) / (1 + strength * moves.mean(dim=(2, 3), keepdim=True))


def check_averaged(run: training_run.Run, unet: UNet3DConditionModel, vae: AutoencoderKL, text_encoder,
                   tokenizer, scheduler: DDIMScheduler) -> dict[str, float]:
    """Return what the averaged weights, loaded into `unet`, say of how well the base can be taught."""
    unet = unet.to(run.device).eval().requires_grad_(False)
    use_fast_forms(unet)
    for parameter, average in zip(unet.parameters(), run.average, strict=True):
        parameter.data.copy_(average)
    with run.accelerator.autocast():
        return check_teachability(unet, vae, text_encoder, tokenizer, scheduler)
