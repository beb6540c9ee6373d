"""Makes the bundled base model, models/puppet-theatre, from drawn clips and nothing else, by the clock.

    python -m puppets.pretrain_base --work-dir WORK --minutes 9.2                        # a GPU, in one go
    python -m puppets.pretrain_base --work-dir WORK --minutes 150 --total-minutes 1200   # a CPU, in pieces

The same command goes on where the last piece stopped. The stages share --total-minutes: the autoencoder
(frames <-> latents), the text encoder (it learns to sum up a caption), the UNet (on latents). At the end of
every piece that trained the UNet its averaged weights are exported as a diffusers folder. At the end of the
last piece puppets.measure_base measures it. Other processes draw new clips all the while.

How well the base can be taught shows early: every --check-clips clips the log gets the loss with the right, a
wrong and no caption, and how often noised clips of motions that the base never saw come back as themselves.

Shapes: b batch, f frames, c channels, h w height and width (pixels or latent cells), n tokens.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline
from einops import rearrange
from torch import Tensor

from models.fast import use_fast_forms
from puppets import networks, training
from puppets import theatre as world
from puppets.cards import write_base_card
from puppets.clip_stream import SEEDS, ClipStream
from puppets.latents import reconstruction_psnr, spread_timesteps
from puppets.teachability import check_teachability
from puppets.training_captions import (
    LABEL_COUNTS,
    LABELS,
    caption_labels,
    world_words,
    write_training_caption,
)
from utils.errors import plain_errors, run_script

HELD_OUT_SEED = 4966     # of the clips that the autoencoder is measured on
# shares of --total-minutes at which each stage ends; the rest of the time is for exporting and measuring
STAGE_ENDS = {"autoencoder": 0.22, "text": 0.26, "video": 0.95}
TEXT_STEPS = 600         # the text encoder needs no more, however much time there is
CAPTIONS_PER_STEP = 64   # of the text stage
PRIOR_WEIGHT = 2e-4      # of the autoencoder's prior: larger, and channels that say nothing become pure noise
LATENT_NOISE = 0.03      # added to the latents that the UNet learns on: it need not draw finer than that
COOLING = 0.35           # share of the video stage in which the learning rate falls to 0
NORMALIZING_FRAMES, PSNR_CLIPS = 1024, 64
SIZES = {                # per device: clips and frames in a batch, clips in a shard, clips kept as latents
    "cuda": (384, 512, 512, 400_000),
    "cpu": (32, 32, 64, 100_000),
}


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--work-dir", type=Path, required=True, help="checkpoints and logs")
    add("--minutes", type=float, required=True, help="for this piece, from the start of the command")
    add("--total-minutes", type=float, help="for all pieces together (default: --minutes, one piece)")
    add("--export-dir", type=Path, help="the diffusers folder to write (default: WORK/base)")
    add("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that draw clips")
    add("--batch-size", type=int, help="clips a step of the UNet (default: 384 on a GPU, 32 on a CPU)")
    add("--frames-batch", type=int, help="frames a step of the autoencoder (default: 512; 32)")
    add("--shard-clips", type=int, help="clips that a process draws at once (default: 512; 64)")
    add("--learning-rate", type=float, default=1.5e-3, help="of the UNet, at its highest (default: 1.5e-3)")
    add("--motion-weight", type=float, default=3.0,
        help="how much more cells count in which something moves; 0: all count the same (default: 3)")
    add("--check-clips", type=int, default=50_000, help="clips between checks of teachability")
    add("--checkpoint-steps", type=int, default=300)
    add("--num-measured", type=int, default=256, help="videos at the end; 0: do not measure (default: 256)")
    add("--mixed-precision", choices=["no", "bf16"], default="bf16")
    add("--seed", type=int, default=64, help="of weights and noise")
    args = parser.parse_args()
    if not 0 < args.minutes <= (args.total_minutes or args.minutes):
        parser.error("--minutes must be above 0 and at most --total-minutes")
    return args


def main() -> None:
    began, args = time.time(), parse_args()
    args.total_minutes = args.total_minutes or args.minutes
    args.export_dir = args.export_dir or args.work_dir / "base"
    args.work_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    batch, frames_batch, shard, num_kept = SIZES["cuda" if accelerator.device.type == "cuda" else "cpu"]
    args.batch_size, args.frames_batch = args.batch_size or batch, args.frames_batch or frames_batch
    args.shard_clips = args.shard_clips or shard
    stages = [args.work_dir / f"{stage}.pt" for stage in STAGE_ENDS]
    facts = [training.saved_facts(path) for path in stages if path.exists()]
    clock = Clock(args, began, max((fact.get("elapsed", 0.0) for fact in facts), default=0.0))

    tokenizer = networks.build_tokenizer(world_words())
    networks.save_tokenizer(tokenizer, world_words(), args.work_dir / "tokenizer")
    clips = ClipStream(args.work_dir / "tokenizer", args.workers, args.shard_clips, num_kept, accelerator.device,
                       num_drawn=max((fact.get("shards", 0) for fact in facts), default=0))
    try:
        vae, noise = train_autoencoder(accelerator, args, clock, clips)
        text_encoder = train_text(accelerator, args, clock, clips, tokenizer)
        if clock.piece_is_over:
            print("This piece is over, and the UNet has not begun. The same command goes on.")
            return
        train_video(accelerator, args, clock, clips, vae, tokenizer, text_encoder)
    finally:
        clips.close()
    export(args, vae, noise)
    print(f"exported: {args.export_dir}")
    if clock.progress("video") >= 1 and args.num_measured:
        measure(args)


class Clock:
    """How far the whole making has come, in all its pieces, and when this piece is to end."""

    def __init__(self, args: argparse.Namespace, began: float, seconds_before: float):
        self.began, self.seconds_before = began, seconds_before
        self.deadline, self.total_seconds = began + 60 * args.minutes, 60 * args.total_minutes

    @property
    def elapsed(self) -> float:
        """Seconds of all pieces so far."""
        return self.seconds_before + time.time() - self.began

    @property
    def piece_is_over(self) -> bool:
        return time.time() >= self.deadline

    def has_time(self, stage: str) -> bool:
        """Say whether to go on with a stage in this piece."""
        return not self.piece_is_over and self.progress(stage) < 1

    def progress(self, stage: str, first: float = 0.0) -> float:
        """Return how much of a stage that began at `first` (seconds of `elapsed`) is over: 1 at its end."""
        return (self.elapsed - first) / max(1e-9, STAGE_ENDS[stage] * self.total_seconds - first)


# ------------------------------------------------------------------------------------------- autoencoder

def train_autoencoder(accelerator: Accelerator, args: argparse.Namespace, clock: Clock,
                      clips: ClipStream) -> tuple[AutoencoderKL, list[float]]:
    """Train frames -> latents -> frames for its share of the time; return what load_autoencoder returns."""
    torch.manual_seed(args.seed)
    model = networks.FrameCoder(networks.build_autoencoder().to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    run = training.Run(accelerator, args, "autoencoder", model, optimizer, batch_size=args.frames_batch)
    first = run.facts.setdefault("first", clock.elapsed)
    while clock.has_time(run.stage):
        progress = clock.progress(run.stage, first)
        while clips.take(wait=not clips.frames):
            pass
        pixels = clips.draw_frames(args.frames_batch)                                            # (b c h w)
        eps = torch.randn(len(pixels), networks.LATENT_CHANNELS, *[side // 8 for side in pixels.shape[2:]])
        decoded, prior = run.model(pixels, eps.to(pixels.device))
        loss = networks.autoencoder_loss(decoded, pixels) + PRIOR_WEIGHT * prior
        rate = 2e-3 * min(1, (run.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        run.facts |= {"elapsed": clock.elapsed, "shards": clips.num_drawn}
        run.update(loss, rate, average_decay=0.999)
        if run.step % 50 == 0:
            error = (decoded.detach().clamp(-1, 1) - pixels).square().mean().item() / 4
            run.log(loss=loss.item(), prior=prior.item(), psnr=-10 * math.log10(error), progress=progress)
    run.save()
    vae, noise = load_autoencoder(args.work_dir, accelerator.device)
    run.log(**{f"noise of channel {index}": share for index, share in enumerate(noise)})
    return vae, noise


def load_autoencoder(work_dir: Path, device: torch.device) -> tuple[AutoencoderKL, list[float]]:
    """Return the averaged autoencoder, its latents normalized on drawn frames that it was not trained on, and
    the share of noise in each latent channel."""
    vae = networks.build_autoencoder().to(device).eval().requires_grad_(False)
    training.load_average(work_dir / "autoencoder.pt", networks.FrameCoder(vae))
    frames = world.draw_clips(NORMALIZING_FRAMES // 4, SEEDS["everyday"] + 1, num_frames=4, fps=2.9).frames
    pixels = networks.to_pixels(rearrange(frames, "n f h w c -> (n f) h w c"))
    return vae, networks.normalize_latents(vae, pixels)


# --------------------------------------------------------------------------------------------------- text

def train_text(accelerator: Accelerator, args: argparse.Namespace, clock: Clock, clips: ClipStream, tokenizer):
    """Teach the text encoder to sum up a caption: its labels, read from every token from the end mark on.

    It stands in for CLIP's contrastive training. Most keys of the UNet's cross-attention are such padding
    tokens, so the UNet finds character, number, motion and place in them from its first step.
    """
    torch.manual_seed(args.seed)
    model = networks.CaptionReader(networks.build_text_encoder(tokenizer), LABEL_COUNTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    run = training.Run(accelerator, args, "text", model, optimizer, batch_size=CAPTIONS_PER_STEP)
    first = run.facts.setdefault("first", clock.elapsed)
    while clock.has_time(run.stage) and run.step < TEXT_STEPS:
        progress = max(clock.progress(run.stage, first), run.step / TEXT_STEPS)
        rng = np.random.default_rng((args.seed, 2, run.step))
        scenes = [draw(rng) for draw in (world.draw_scene, world.draw_composed_scene)
                  for _ in range(CAPTIONS_PER_STEP // 2)]
        captions, says_motion = zip(*(write_training_caption(scene, rng) for scene in scenes))
        labels = caption_labels(scenes, captions, says_motion).to(accelerator.device)            # (b labels)
        input_ids = networks.tokenize(tokenizer, list(captions)).to(accelerator.device)          # (b n)
        logits = run.model(input_ids)                                                       # labels x (b n k)
        summing = input_ids == tokenizer.eos_token_id                                            # (b n)
        loss = sum(F.cross_entropy(logit.float()[summing], labels[:, i, None].expand_as(input_ids)[summing])
                   for i, logit in enumerate(logits))
        rate = 1e-3 * min(1, (run.step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * progress))
        run.facts |= {"elapsed": clock.elapsed, "shards": clips.num_drawn}
        run.update(loss, rate, average_decay=0.99)
        if run.step % 25 == 0:
            right = [logit[:, -1].argmax(-1) == labels[:, i] for i, logit in enumerate(logits)]  # each (b)
            run.log(loss=loss.item(), **dict(zip(LABELS, (part.float().mean().item() for part in right))))
    run.save()
    training.load_average(run.path, model)
    return model.text_encoder.to(accelerator.device).eval().requires_grad_(False)


# -------------------------------------------------------------------------------------------------- video

def train_video(accelerator: Accelerator, args: argparse.Namespace, clock: Clock, clips: ClipStream,
                vae: AutoencoderKL, tokenizer, text_encoder) -> None:
    """Train the UNet to predict v, the learning rate falling to 0 at the end of its time.

    The text encoder stays as it is. Trained along, it came to tell the UNet of little but the place, which
    most pixels are of.
    """
    torch.manual_seed(args.seed)
    scheduler, unet = networks.build_scheduler(), networks.build_unet()
    use_fast_forms(unet)
    optimizers = training.build_optimizers(unet, faster=2, weight_decay=1e-2, betas=(0.9, 0.99))
    run = training.Run(accelerator, args, "video", unet, *optimizers, batch_size=args.batch_size)
    torch.manual_seed(args.seed + run.step)   # a run that goes on sees noise it has not seen
    empty_ids = networks.tokenize(tokenizer, [""])[0].to(accelerator.device)
    losses, checked = [], run.step * args.batch_size
    first = run.facts.setdefault("first", clock.elapsed)
    while clock.has_time(run.stage):
        progress = clock.progress(run.stage, first)
        while clips.take(wait=not (clips.num_encoded or clips.frames)):
            pass
        clips.encode_waiting(vae)
        latents, input_ids = clips.draw_latents(args.batch_size, empty_ids)            # (b c f h w), (b n)
        latents = latents + LATENT_NOISE * torch.randn_like(latents)
        with torch.no_grad():
            prompt_embeds = text_encoder(input_ids).last_hidden_state                            # (b n d)
        noise = torch.randn_like(latents)                                                        # (b c f h w)
        timesteps = spread_timesteps(len(latents), scheduler.config.num_train_timesteps, latents.device)
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
            run.log(clips_seen=num_seen, **check_averaged(run, vae, text_encoder, tokenizer, scheduler))
    run.save()


def motion_weights(latents: Tensor, strength: float) -> Tensor:
    """Return weights (b 1 h w) of the cells of latents (b c f h w), with mean 1: more where something moves.

    In half of the cells nothing moves, and they have a third of the loss. For pretraining only: customization
    keeps the paper's objective.
    """
    moves = F.max_pool2d(latents.std(dim=2).mean(dim=1, keepdim=True), 3, stride=1, padding=1)   # (b 1 h w)
    moves = moves / moves.mean(dim=(2, 3), keepdim=True).clamp(min=0.1)
    return (1 + strength * moves) / (1 + strength * moves.mean(dim=(2, 3), keepdim=True))


def check_averaged(run: training.Run, vae: AutoencoderKL, text_encoder, tokenizer,
                   scheduler: DDIMScheduler) -> dict[str, float]:
    """Return what the averaged weights say of how well the base can be taught."""
    unet = networks.build_unet().to(run.device).eval().requires_grad_(False)
    use_fast_forms(unet)
    for parameter, average in zip(unet.parameters(), run.average, strict=True):
        parameter.data.copy_(average)
    with run.accelerator.autocast():
        return check_teachability(unet, vae, text_encoder, tokenizer, scheduler)


# ------------------------------------------------------------------------------------- export and measure

def export(args: argparse.Namespace, vae: AutoencoderKL, noise: list[float]) -> None:
    """Write the averaged weights as a diffusers folder in half precision, with a model card."""
    tokenizer = networks.build_tokenizer(world_words())
    reader = networks.CaptionReader(networks.build_text_encoder(tokenizer), LABEL_COUNTS)
    unet = networks.build_unet()
    stages = {"autoencoder": training.load_saved(args.work_dir / "autoencoder.pt"),
              "text": training.load_average(args.work_dir / "text.pt", reader),
              "video": training.load_average(args.work_dir / "video.pt", unet)}
    unseen = rearrange(world.draw_clips(PSNR_CLIPS, HELD_OUT_SEED).frames, "n f h w c -> (n f) h w c")
    measured = {
        f"autoencoder, PSNR on {PSNR_CLIPS} clips of seed {HELD_OUT_SEED}":
            f"{reconstruction_psnr(vae, unseen):.1f} dB",
        "noise in each of its latent channels": ", ".join(f"{share:.0%}" for share in noise),
        "all else": "not yet measured: `python -m puppets.measure_base`"}
    pipeline = TextToVideoSDPipeline(
        vae=vae.cpu().half(), text_encoder=reader.text_encoder.half(), tokenizer=tokenizer, unet=unet.half(),
        scheduler=networks.build_scheduler())
    pipeline.save_pretrained(args.export_dir)
    networks.save_tokenizer(tokenizer, world_words(), args.export_dir / "tokenizer")
    networks.say_single_precision(args.export_dir / "text_encoder" / "config.json")
    notes_path = args.work_dir / "notes.md"                       # what whoever ran it wants to add
    notes = notes_path.read_text(encoding="utf-8") if notes_path.exists() else ""
    write_base_card(args.export_dir / "README.md", stages, training.describe_machine(), tuple(SEEDS.values()),
                    measured, notes)


def measure(args: argparse.Namespace) -> None:
    """Measure the exported base in this process, as the command puppets.measure_base does."""
    from puppets import measure_base

    sys.argv = ["measure_base", "--base", str(args.export_dir), "--num", str(args.num_measured), "--sheet", "16",
                "--batch-size", "64" if torch.cuda.is_available() else "8", "--out",
                str(args.work_dir / "measured")]
    measure_base.main()


if __name__ == "__main__":
    run_script(main)
