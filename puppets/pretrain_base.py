"""Makes the bundled base model, models/puppet-theatre, from clips of puppets/theatre.py and nothing else.

It works in stages. The same command continues a stage from its last checkpoint in --work-dir.

    autoencoder   frames <-> latents
    text          the text encoder learns to sum up a caption in its last tokens
    video         the UNet, on latents
    decoder       optional: sharper frames from the same latents
    export        averaged weights as a diffusers folder
    import        a new work folder from models/puppet-theatre, with steps and optimizers at their start

It trains on the GPU if there is one. On a CPU, two processes with one thread each are faster than one process
with two threads:

    export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
    for stage in autoencoder text video decoder; do
        torchrun --nproc_per_node 2 -m puppets.pretrain_base --work-dir WORK --stage $stage --minutes 90; done
    python -m puppets.pretrain_base --work-dir WORK --stage export

Without --steps the video stage has no end. With `--cooldown-from A --steps B` the learning rate falls to 0
between the steps A and B.

Shapes: b batch, f frames, c channels, h w height and width (pixels or latent cells), n tokens.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, TextToVideoSDPipeline
from einops import rearrange

from puppets import base_latents, theatre, training_run, world
from puppets import base_networks as networks
from puppets.base_captions import (
    CAPTION_LABELS,
    LABEL_COUNTS,
    base_words,
    caption_labels,
    write_training_caption,
)
from puppets.base_networks import LATENT_CHANNELS
from puppets.model_cards import write_base_card
from puppets.tokenizer import build_tokenizer, tokenize, write_vocabulary
from utils.errors import UserError, plain_errors, run_script

SEEDS = {"everyday": 2312, "frames": 2313, "composed": 2314}   # of the clips that are trained on
PSNR_SEED, PSNR_CLIPS = 4966, 64             # clips that the autoencoder is measured on
LATENT_SIZE = (world.FRAME_SIZE // 8,) * 2   # height and width in latent cells
CAPTIONS_PER_STEP = 64                       # of the text stage, whatever --batch-size says
KL_WEIGHT = 1e-3                             # keeps latents smooth: the UNet need not hit them exactly
FRAME_STEPS = 64                             # autoencoder steps for which frames are drawn in one go
NORMALIZING_FRAMES = 1024                    # frames by which the latents are scaled
SHARD_CLIPS = 1024                           # clips in a file of latents
FIRST_SHARDS, STEPS_PER_TWO_SHARDS = 6, 512  # the video stage draws new clips as it goes on


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--stage", choices=["import", "autoencoder", "text", "video", "decoder", "export"], required=True)
    add("--work-dir", type=Path, required=True, help="folder of checkpoints, latents and logs")
    add("--minutes", type=float, default=math.inf, help="save a checkpoint and stop after so long")
    add("--steps", type=int, help="last step of the stage (default of video: none)")
    add("--cooldown-from", type=int, metavar="STEP",
        help="video: step from which the rate falls linearly to 0 at --steps (default: 4/5 of --steps)")
    add("--batch-size", type=int, default=16, help="frames, or clips, of all processes together")
    add("--learning-rate", type=float, help="highest (default: autoencoder 2e-3, decoder 5e-4, others 1e-3)")
    add("--checkpoint-steps", type=int, default=250)
    add("--mixed-precision", choices=["no", "bf16"], default="bf16")
    add("--export-dir", type=Path, default=Path("models/puppet-theatre"))
    add("--seed", type=int, default=64, help="of weights, noise, and the order of clips")
    args = parser.parse_args()
    if args.cooldown_from is not None and not (args.stage == "video" and args.steps):
        parser.error("--cooldown-from is for --stage video with --steps, the step at which the rate is 0")
    if args.cooldown_from is not None and not 0 <= args.cooldown_from < args.steps:
        parser.error(f"--cooldown-from {args.cooldown_from} is not between 0 and --steps {args.steps}")
    return args


def main() -> None:
    args = parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if args.batch_size % accelerator.num_processes:
        raise UserError(f"--batch-size {args.batch_size} cannot be shared by {accelerator.num_processes} "
                        f"processes.")
    if args.stage in ("autoencoder", "decoder"):
        train_autoencoder(accelerator, args, decoder_only=args.stage == "decoder")
    elif args.stage == "text":
        train_text(accelerator, args)
    elif args.stage == "video":
        train_video(accelerator, args)
    elif args.stage == "import":
        import_base(args.work_dir, args.export_dir)
    elif accelerator.is_main_process:
        export(args.work_dir, args.export_dir)


# ------------------------------------------------------------------------------------------- autoencoder

def train_autoencoder(accelerator: Accelerator, args: argparse.Namespace, decoder_only: bool = False) -> None:
    """Train frames -> latents -> frames. The rate falls along a cosine to 0 at the last step.

    With `decoder_only` only the decoder of the existing autoencoder is trained. Its latents stay as they are,
    and a UNet trained on them stays usable.
    """
    num_steps, peak = args.steps or 5000, args.learning_rate or (5e-4 if decoder_only else 2e-3)
    torch.manual_seed(args.seed)
    model = networks.FrameCoder(networks.build_autoencoder().to(memory_format=torch.channels_last))
    if decoder_only:
        training_run.load_average(args.work_dir / "autoencoder.pt", model)
        model.vae.encoder.requires_grad_(False)
        model.vae.quant_conv.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    run = training_run.Run(accelerator, args, "decoder" if decoder_only else "autoencoder", model, optimizer,
                           batch_size=args.batch_size)
    shard, frames = -1, None
    while run.step < num_steps and run.has_time():
        if run.step // FRAME_STEPS != shard:
            shard = run.step // FRAME_STEPS
            frames = draw_single_frames(shard, FRAME_STEPS * args.batch_size)                    # (n h w c)
        at = run.step % FRAME_STEPS * args.batch_size
        pixels = networks.to_vae_pixels(frames[at:at + args.batch_size][run.mine]).to(accelerator.device)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        eps = torch.randn(args.batch_size, LATENT_CHANNELS, *LATENT_SIZE, generator=generator)
        decoded, kl = run.model(pixels, eps[run.mine].to(accelerator.device))                    # (b c h w)
        loss = networks.autoencoder_loss(decoded, pixels) + KL_WEIGHT * kl
        rate = training_run.cosine_rate(peak, run.step, num_steps, num_warmup=100)
        run.update(loss, rate, average_decay=0.998)
        if run.step % 25 == 0:
            psnr = -10 * math.log10(((decoded.detach().clamp(-1, 1) - pixels) ** 2).mean().item() / 4)
            run.log(loss=loss.item(), kl=kl.item(), psnr=psnr, learning_rate=rate)
    run.save()


def draw_single_frames(shard: int, num: int) -> np.ndarray:
    """Return frames for the autoencoder, uint8 (num h w c): four moments of num / 4 clips each, shuffled."""
    rng = np.random.default_rng((SEEDS["everyday"], 1, shard))
    clips = theatre.draw_clips(num // 4, SEEDS["frames"], first=shard * num // 4, num_frames=4, fps=2.9)
    return rng.permutation(rearrange(clips.frames, "n f h w c -> (n f) h w c"))


def load_autoencoder(work_dir: Path, device: torch.device) -> AutoencoderKL:
    """Return the averaged autoencoder, its latents normalized on the first training frames."""
    vae = networks.build_autoencoder().to(device).eval().requires_grad_(False)
    stage = "decoder" if (work_dir / "decoder.pt").exists() else "autoencoder"   # its decoder is sharper
    training_run.load_average(work_dir / f"{stage}.pt", networks.FrameCoder(vae))
    networks.normalize_latents(vae, networks.to_vae_pixels(draw_single_frames(0, NORMALIZING_FRAMES)))
    return vae


# --------------------------------------------------------------------------------------------------- text

def train_text(accelerator: Accelerator, args: argparse.Namespace) -> None:
    """Teach the text encoder to sum up a caption: its labels are read from the end mark and the padding.

    This replaces CLIP's contrastive training. Most keys of the UNet's cross-attention are padding tokens, so
    the UNet finds character, number, motion and place there from its first step.
    """
    num_steps, peak = args.steps or 400, args.learning_rate or 1e-3
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(base_words())
    model = networks.CaptionReader(networks.build_text_encoder(tokenizer), LABEL_COUNTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=1e-2)
    run = training_run.Run(accelerator, args, "text", model, optimizer, batch_size=CAPTIONS_PER_STEP)
    while run.step < num_steps and run.has_time():
        rng = np.random.default_rng((args.seed, 2, run.step))
        scenes = [draw(rng) for draw in (world.draw_scene, world.draw_composed_scene)
                  for _ in range(CAPTIONS_PER_STEP // 2)]
        captions, says_motion = zip(*(write_training_caption(scene, rng) for scene in scenes))
        labels = caption_labels(scenes, captions, says_motion).to(accelerator.device)            # (b labels)
        input_ids = tokenize(tokenizer, list(captions)).to(accelerator.device)                   # (b n)
        logits = run.model(input_ids)                                                       # labels x (b n k)
        summing = input_ids == tokenizer.eos_token_id                                            # (b n)
        loss = sum(F.cross_entropy(logit.float()[summing], labels[:, i, None].expand_as(input_ids)[summing])
                   for i, logit in enumerate(logits))
        rate = training_run.cosine_rate(peak, run.step, num_steps, num_warmup=50)
        run.update(loss, rate, average_decay=0.99)
        if run.step % 25 == 0:
            right = [logit[:, -1].argmax(-1) == labels[:, i] for i, logit in enumerate(logits)]  # each (b)
            shares = (part.float().mean().item() for part in right)
            run.log(loss=loss.item(), **dict(zip(CAPTION_LABELS, shares)))
    run.save()


# -------------------------------------------------------------------------------------------------- video

def train_video(accelerator: Accelerator, args: argparse.Namespace) -> None:
    """Train the UNet to predict v. The rate falls with the root of the step, and to 0 at the last step, if
    any.

    The text encoder stays as the text stage left it. When it was trained along, its output came to describe
    little but the place, which most pixels show: after 70,000 clips, 88 % of the differences between captions
    were of the place, and 1 % of the motion.
    """
    num_steps, peak = args.steps or 10**9, args.learning_rate or 1e-3
    cooldown_from = 4 * num_steps // 5 if args.cooldown_from is None else args.cooldown_from
    torch.manual_seed(args.seed)
    tokenizer, scheduler = build_tokenizer(base_words()), networks.build_scheduler()
    vae = load_autoencoder(args.work_dir, accelerator.device)
    model = networks.build_text_to_video(tokenizer)
    training_run.load_average(args.work_dir / "text.pt",
                              networks.CaptionReader(model.text_encoder, LABEL_COUNTS))
    model.text_encoder.requires_grad_(False)
    optimizers = training_run.build_optimizers(model, faster=2, weight_decay=1e-2, betas=(0.9, 0.99))
    run = training_run.Run(accelerator, args, "video", model, *optimizers, batch_size=args.batch_size)
    shards, losses = {"everyday": [], "composed": []}, []
    while run.step < num_steps and run.has_time():
        num_shards = FIRST_SHARDS + 2 * (run.step // STEPS_PER_TWO_SHARDS)
        for kind, there in shards.items():
            if len(there) < num_shards:
                there += base_latents.load_shards(
                    accelerator, args.work_dir / f"latents-{kind}", range(len(there), num_shards),
                    lambda index: make_latent_shard(kind, index, vae))
        rng = np.random.default_rng((args.seed, 3, run.step))
        kinds = [shards["everyday"], shards["composed"], shards["composed"]]   # two of three clips: composed
        latents, captions = base_latents.draw_batch(kinds, args.batch_size, rng, caption_of)     # (b c f h w)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        noise = torch.randn(latents.shape, generator=generator)                                  # (b c f h w)
        timesteps = base_latents.spread_timesteps(
            args.batch_size, scheduler.config.num_train_timesteps, generator)                    # (b)
        noisy_latents = scheduler.add_noise(latents, noise, timesteps)                           # (b c f h w)
        target = scheduler.get_velocity(latents, noise, timesteps)                               # (b c f h w)
        input_ids = tokenize(tokenizer, captions)                                                # (b n)
        inputs = [part[run.mine].to(accelerator.device) for part in (noisy_latents, timesteps, input_ids)]
        loss = F.mse_loss(run.model(*inputs).float(), target[run.mine].to(accelerator.device))
        rate = training_run.root_rate(peak, run.step, num_warmup=200, num_flat=1500)
        left = training_run.cooldown(run.step, cooldown_from, num_steps)
        rate *= left
        run.update(loss, rate, average_decay=0.9995 if left == 1 else 0.998)   # late steps are the best
        losses.append(loss.item())
        if run.step % 25 == 0:
            run.log(loss=np.mean(losses[-25:]), learning_rate=rate, clip_steps=run.step * args.batch_size)
    run.save()


def make_latent_shard(kind: str, index: int, vae: AutoencoderKL) -> dict:
    """Draw and encode the SHARD_CLIPS clips of shard `index`, of everyday or of composed motions."""
    draw = {"everyday": theatre.draw_clips, "composed": theatre.draw_composed_clips}[kind]
    clips = draw(SHARD_CLIPS, SEEDS[kind], first=index * SHARD_CLIPS, num_frames=world.CLIP_FRAMES)
    scenes = [list(dataclasses.astuple(scene)) for scene in clips.scenes]
    return base_latents.encode_clips(vae, clips.frames) | {"scenes": scenes}


def caption_of(scene: list, rng: np.random.Generator) -> str:
    return write_training_caption(world.Scene(*scene), rng)[0]


# ------------------------------------------------------------------------------------------------- export

def export(work_dir: Path, export_dir: Path) -> None:
    """Write the averaged weights as a diffusers folder in half precision, with a model card."""
    words = base_words()
    tokenizer = build_tokenizer(words)
    vae = load_autoencoder(work_dir, torch.device("cpu"))
    model = networks.build_text_to_video(tokenizer)
    training_run.load_average(work_dir / "video.pt", model)
    unseen = theatre.draw_clips(PSNR_CLIPS, PSNR_SEED).frames
    psnr = base_latents.reconstruction_psnr(vae, rearrange(unseen, "n f h w c -> (n f) h w c"))
    pipeline = TextToVideoSDPipeline(
        vae=vae.half(), text_encoder=model.text_encoder.half(), tokenizer=tokenizer, unet=model.unet.half(),
        scheduler=networks.build_scheduler())
    pipeline.save_pretrained(export_dir)
    write_vocabulary(words, export_dir / "tokenizer")
    # transformers loads a network in the dtype of its config, diffusers in float32: make both load float32
    config_path = export_dir / "text_encoder" / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_card(work_dir, export_dir, psnr)


def import_base(work_dir: Path, export_dir: Path) -> None:
    """Make checkpoints of step 0 from an exported base, to train on after the work folder was lost."""
    pipeline = TextToVideoSDPipeline.from_pretrained(export_dir, use_safetensors=True)
    for stage, model in {
        "autoencoder": networks.FrameCoder(pipeline.vae),
        "text": networks.CaptionReader(pipeline.text_encoder, LABEL_COUNTS),
        "video": networks.TextToVideo(pipeline.text_encoder, pipeline.unet),
    }.items():
        training_run.save_untrained(model, work_dir / f"{stage}.pt")


def write_card(work_dir: Path, export_dir: Path, psnr: float) -> None:
    """Write the README of the model, with the figures that this script has measured."""
    stages = {}
    for name in ("autoencoder", "decoder", "text", "video"):
        if (work_dir / f"{name}.pt").exists():
            stages[name] = training_run.load_saved(work_dir / f"{name}.pt")
    measured = {f"autoencoder, PSNR on {PSNR_CLIPS} clips of seed {PSNR_SEED}": f"{psnr:.1f} dB",
                "all else": "not yet measured: `puppets/measure_base.py`"}
    notes_path = work_dir / "notes.md"                            # written by whoever ran it
    notes = notes_path.read_text(encoding="utf-8") if notes_path.exists() else ""
    write_base_card(export_dir / "README.md", stages, training_run.describe_machine(), tuple(SEEDS.values()),
                    measured, notes)


if __name__ == "__main__":
    run_script(main)
