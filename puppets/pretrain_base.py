"""Makes the bundled base model, models/puppet-theatre, from drawn clips and nothing else, by the clock.

    python -m puppets.pretrain_base --work-dir WORK --minutes 9.2                        # a GPU, in one go
    python -m puppets.pretrain_base --work-dir WORK --minutes 150 --total-minutes 1200   # a CPU, in pieces
    python -m puppets.pretrain_base --work-dir WORK --minutes 9.2 --begin-with models/puppet-theatre

On a CPU two processes of one thread each take 0.8 of the time of one process of two threads:

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m puppets.pretrain_base --work-dir WORK --minutes 150

The same command goes on where the last piece stopped. The stages share --total-minutes: the autoencoder
(frames <-> latents), the text encoder (it learns to sum up a caption), the UNet (on latents). At the end of
every piece that trained the UNet its averaged weights are exported as a diffusers folder. At the end of the
last piece puppets.measure_base measures it. Other processes draw new clips all the while.

How well the base can be taught shows early: every --check-clips clips the log gets the loss with the right, a
wrong and no caption, and how often noised clips of motions that the base never saw come back as themselves.

Shapes: b batch, f frames, c channels, h w height and width (pixels or latent cells), n tokens.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, TextToVideoSDPipeline
from einops import rearrange
from transformers import CLIPTextModel

from puppets import base_networks as networks
from puppets import theatre, training_run
from puppets.base_captions import base_words
from puppets.base_latents import reconstruction_psnr
from puppets.base_training import STAGE_ENDS, Clock, train_autoencoder, train_text, train_video
from puppets.clip_stream import SEEDS, ClipStream
from puppets.first_networks import FirstNetworks
from puppets.model_cards import write_base_card
from puppets.tokenizer import save_tokenizer
from utils.arguments import fixed_seed, not_negative, positive
from utils.devices import has_gpu
from utils.errors import UserError, plain_errors, run_script
from utils.files import digest_of, file_digest, read_text, write_json

PSNR_SEED, PSNR_CLIPS = 4966, 64   # clips that the autoencoder is measured on
SIZES = {   # per device; a clip takes 6 kB as latents and 98 kB as frames
    "cuda": {"batch_size": 256, "frames_batch": 512, "shard_clips": 128, "check_clips": 300_000,
             "kept_as_latents": 400_000, "kept_as_frames": 80_000},
    "cpu": {"batch_size": 32, "frames_batch": 32, "shard_clips": 32, "check_clips": 50_000,
            "kept_as_latents": 100_000, "kept_as_frames": 8_000},
}
BEGINNING = "beginning.json"   # in the work folder: which networks training began with


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--work-dir", type=Path, required=True, help="checkpoints and logs")
    add("--minutes", type=positive(float), required=True,
        help="for this piece, from the start of the command")
    add("--total-minutes", type=positive(float),
        help="for all pieces together (default: --minutes, one piece)")
    add("--begin-with", type=Path, metavar="FOLDER",
        help="train on the UNet and the decoder of an earlier base. Its encoder stays as it is, and its text "
             "encoder, too, unless captions have new words (default: from nothing)")
    add("--whole-autoencoder", action="store_true",
        help="with --begin-with: train on the encoder, too, also to more latent channels")
    add("--only-unet", action="store_true", help="with --begin-with: leave the decoder as it is, too")
    add("--export-dir", type=Path, help="the diffusers folder to write (default: WORK/base)")
    add("--workers", type=positive(int), default=max(1, (os.cpu_count() or 2) - 1),
        help="processes that draw clips")
    add("--batch-size", type=positive(int),
        help="clips a step of the UNet (default: 256 on a GPU, 32 on a CPU)")
    add("--frames-batch", type=positive(int), help="frames a step of the autoencoder (default: 512; 32)")
    add("--shard-clips", type=positive(int), help="clips that a process draws at once (default: 128; 32)")
    add("--learning-rate", type=positive(float), default=1.5e-3,
        help="of the UNet, at its highest (default: 1.5e-3)")
    add("--motion-weight", type=not_negative(float), default=3.0,
        help="how much more cells count in which something moves; 0: all count the same (default: 3)")
    add("--check-clips", type=positive(int),
        help="clips between checks of teachability (default: 300,000; 50,000)")
    add("--kept-as-latents", type=positive(int),
        help="clips to learn from at any time (default: 400,000; 100,000)")
    add("--kept-as-frames", type=positive(int),
        help="clips that wait for the autoencoder (default: 80,000; 8,000)")
    add("--checkpoint-steps", type=positive(int), default=300)
    add("--num-measured", type=not_negative(int), default=256,
        help="videos at the end; 0: do not measure (default: 256)")
    add("--mixed-precision", choices=["no", "bf16"], default="bf16")
    add("--seed", type=fixed_seed, default=64, help="of weights and noise")
    add("--first-shard", type=not_negative(int), default=0,
        help="number of the first shard of clips that each process draws (default: 0). With --begin-with: a "
             "number that the earlier base did not reach, for clips that it has not seen")
    args = parser.parse_args()
    if args.minutes > (args.total_minutes or args.minutes):
        parser.error("--minutes must be at most --total-minutes")
    if args.only_unet and not args.begin_with:
        parser.error("--only-unet needs --begin-with, the base whose other networks are used")
    if args.whole_autoencoder and (args.only_unet or not args.begin_with):
        parser.error("--whole-autoencoder needs --begin-with, and cannot stand beside --only-unet")
    return args


def main() -> None:
    began, args = time.time(), parse_args()
    args.total_minutes = args.total_minutes or args.minutes
    args.export_dir = args.export_dir or args.work_dir / "base"
    args.work_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=args.mixed_precision, cpu=not has_gpu())
    if accelerator.device.type == "cuda":
        torch.backends.cudnn.benchmark = True   # batches keep their shapes: look for the fastest kernels
        torch.set_float32_matmul_precision("high")   # outside autocast
    for name, size in SIZES["cuda" if accelerator.device.type == "cuda" else "cpu"].items():
        setattr(args, name, getattr(args, name) or size)
    stages = [args.work_dir / f"{stage}.pt" for stage in STAGE_ENDS]
    facts = [training_run.saved_facts(path) for path in stages if path.exists()]
    clock = Clock(accelerator, args, began, max((fact.get("elapsed", 0.0) for fact in facts), default=0.0))

    first = FirstNetworks(args.begin_with, args.whole_autoencoder)
    tokenizer = first.tokenizer
    if args.only_unet and first.has_new_words:
        raise UserError(f"{args.begin_with}: does not know all words of the captions. Leave out --only-unet, "
                        f"so that its text encoder can learn them.")
    if facts:
        check_beginning(args)
    if accelerator.is_main_process:
        write_json(args.work_dir / BEGINNING, beginning(args))
        save_tokenizer(tokenizer, base_words(), args.work_dir / "tokenizer")
    accelerator.wait_for_everyone()
    clips = ClipStream(args.work_dir / "tokenizer", args.workers, args.shard_clips,
                       args.kept_as_latents, args.kept_as_frames, accelerator.device,
                       num_drawn=max([args.first_shard, *(fact.get("shards", 0) for fact in facts)]),
                       rank=accelerator.process_index, world_size=accelerator.num_processes)
    try:
        vae, noise = train_autoencoder(accelerator, args, clock, clips, first)
        text_encoder = train_text(accelerator, args, clock, clips, first, tokenizer)
        if clock.piece_is_over:
            accelerator.print("This piece is over, and the UNet has not begun. The same command goes on.")
            return
        train_video(accelerator, args, clock, clips, first, vae, tokenizer, text_encoder)
    finally:
        clips.close()
    if not accelerator.is_main_process:
        return
    export(args, first, vae, noise, text_encoder)
    print(f"exported: {args.export_dir}")
    if clock.progress("video") >= 1 and args.num_measured:
        measure(args)


def beginning(args: argparse.Namespace) -> dict[str, str]:
    """Return, for the work folder, the networks that training begins with and how much of them is trained."""
    folder = args.begin_with
    weights = sorted(folder.glob("*/*.safetensors")) if folder else []
    return {"--begin-with": digest_of([file_digest(path) for path in weights]) if folder else "nothing",
            "--whole-autoencoder": str(args.whole_autoencoder), "--only-unet": str(args.only_unet)}


def check_beginning(args: argparse.Namespace) -> None:
    """Raise UserError if the base in the work folder began with other networks than `args` name."""
    path = args.work_dir / BEGINNING
    before, now = json.loads(read_text(path)) if path.exists() else beginning(args), beginning(args)
    if other := [flag for flag in now if before[flag] != now[flag]]:
        raise UserError(f"{args.work_dir}: its base was begun with another {', '.join(other)}. Go on with "
                        f"the same, or name another --work-dir.")


# ------------------------------------------------------------------------------------- export and measure

def export(args: argparse.Namespace, first: FirstNetworks, vae: AutoencoderKL, noise: list[float],
           text_encoder: CLIPTextModel) -> None:
    """Write the averaged weights as a diffusers folder in half precision, with a model card."""
    unet = first.unet()
    stages = {path.stem: training_run.load_saved(path)
              for path in (args.work_dir / "autoencoder.pt", args.work_dir / "text.pt") if path.exists()}
    # without networks of an earlier base that were kept: their stages have no steps
    stages = {stage: run for stage, run in stages.items() if run["step"]}
    stages["video"] = training_run.load_average(args.work_dir / "video.pt", unet)
    unseen = rearrange(theatre.draw_clips(PSNR_CLIPS, PSNR_SEED).frames, "n f h w c -> (n f) h w c")
    measured = {
        f"autoencoder, PSNR on {PSNR_CLIPS} clips of seed {PSNR_SEED}":
            f"{reconstruction_psnr(vae, unseen):.1f} dB",
        "noise in each of its latent channels": ", ".join(f"{share:.0%}" for share in noise),
        "all else": "not yet measured: `python -m puppets.measure_base`"}
    pipeline = TextToVideoSDPipeline(
        vae=vae.cpu().half(), text_encoder=text_encoder.cpu().half(), tokenizer=first.tokenizer,
        unet=unet.half(), scheduler=networks.build_scheduler())
    pipeline.save_pretrained(args.export_dir)
    save_tokenizer(first.tokenizer, base_words(), args.export_dir / "tokenizer")
    networks.say_single_precision(args.export_dir / "text_encoder" / "config.json")
    for part in ("unet", "vae"):
        networks.forget_origin(args.export_dir / part / "config.json")
    notes_path = args.work_dir / "notes.md"                       # what whoever ran it wants to add
    notes = notes_path.read_text(encoding="utf-8") if notes_path.exists() else ""
    kept = [] if first.whole_autoencoder else ["encoder"] if "autoencoder" in stages else ["autoencoder"]
    kept += ["text encoder"] * ("text" not in stages)
    write_base_card(args.export_dir / "README.md", stages, args.begin_with, kept,
                    training_run.describe_machine(), tuple(SEEDS.values()), measured, notes)


def measure(args: argparse.Namespace) -> None:
    """Measure the exported base in this process, as the command puppets.measure_base does."""
    from puppets import measure_base

    sys.argv = ["measure_base", "--base", str(args.export_dir), "--num", str(args.num_measured),
                "--batch-size", "64" if torch.cuda.is_available() else "8", "--sheet", "16",
                "--out", str(args.work_dir / "measured")]
    measure_base.main()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # stops as Ctrl-C does
    run_script(main)
