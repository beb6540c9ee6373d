"""Render prompts with a learned motion, or with a base as it is.

    python generate_pretrained.py -m RUN -o FOLDER -p data/prompts/PROMPTS.txt
    python generate_pretrained.py -m RUN -o FOLDER -p "a robot doing the V* dance|two cats doing it" -s random
    python generate_pretrained.py -m RUN:0.8 -m ANOTHER_RUN -o FOLDER -p "a V2* man doing the V* dance"
    python generate_pretrained.py -m RUN --export DIR
    python generate_pretrained.py -m RUN --push-to-hub USER/NAME

Each prompt becomes FOLDER/{prompt}_seed{seed}.mp4; open video_lightbox.html in FOLDER to see them.
"""

import argparse
from pathlib import Path

# torch and diffusers are imported in the functions that use them: --help and wrong arguments should not wait
# for them
from rendering.samplers import DEFAULT_SAMPLER, SAMPLERS
from training.exporting import check_export, check_lora_file, export, export_lora_file
from training.sources import Source, find_source, named_model
from utils.arguments import finite, positive, repository, resolution, seed
from utils.captions import read_caption_index
from utils.containers import MAX_FPS
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import check_writable, expanded, expanded_path, is_text
from utils.processes import LONGEST_WAIT, is_first_process
from utils.prompt_lists import examine_prompts
from utils.prompt_weights import check_weights
from utils.prompts import Prompt, with_token, with_tokens
from utils.wording import counted

DEFAULT_SEED, DEFAULT_FPS = 0, 8.0


def main() -> None:
    args = parse_args()
    problems = check_arguments(args)
    prompts, notes = [], []
    if args.prompt is not None:
        prompts, notes = attempt(lambda: examine_prompts(args.prompt, args.seed), ([], []), problems)
    source = attempt(lambda: find_source(args.model, args.base, args.adapter, args.strength,
                                         args.share_tokens, may_download=not problems), None, problems)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    if args.push_to_hub:
        publish_one(source, args.push_to_hub)
        return
    prompts = attempt(lambda: with_tokens(prompts, source.placeholder_token), [], problems)
    args.negative_prompt = attempt(lambda: with_token(args.negative_prompt, source.placeholder_token), "",
                                   problems)

    from models import base_folder
    from models.base import enough_memory
    from models.same_base import check_same_base

    # nothing is downloaded if there are problems already
    lacking = []
    folder = attempt(lambda: base_folder.find_base(source.base, not problems, source.adapter), None, lacking)
    moved = " If it has moved, say where with --base." if source.motions and not args.base else ""
    problems += [problem + moved for problem in lacking]
    adapter = folder and attempt(   # its problems name --adapter
        lambda: base_folder.find_adapter(source.adapter, folder, not problems), None, problems)
    if not folder or source.adapter and not adapter:
        raise UserError(*problems)
    motions = [(motion.path, motion.info) for motion in source.motions]
    attempt(lambda: check_same_base(motions, folder, adapter), None, problems)
    size = args.res or source.size or base_folder.native_size(source.base, folder)
    fps = args.fps or source.fps or DEFAULT_FPS
    num_frames = args.duration or source.num_frames
    if not args.export and not args.lora_file:
        problems += check_against_base(args, source.base, size, num_frames, folder, adapter)
    if problems:
        raise UserError(*problems)
    if args.export:
        made_for = dict(zip(("width", "height"), size)) if size else {}
        base, made_with = load(source)
        export(base, args.export, made_with | made_for | {"num_frames": num_frames, "fps": fps})
        return
    if args.lora_file:
        export_lora_file(source, args.lora_rank, args.lora_file)
        return
    for note in notes:
        say(note)
    with enough_memory("Lower --batch-size, --res or --duration."):
        generate(source, prompts, size, num_frames, fps, args)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Render prompts with a learned motion, or with a base as it is."))
    add = parser.add_argument
    add("-m", "--model", required=True, type=named_model, action="append", metavar="MODEL[:STRENGTH]",
        help="run folder, checkpoint folder, motion.safetensors, diffusers folder, or hub id "
             "(zs: cerspense/zeroscope_v2_576w); several motions, each with its own strength, add up")
    add("-b", "--base", type=expanded,
        help="the base that a motion was trained on, if it is not where it was then")
    add("--adapter", type=expanded,
        help="the motion adapter of an image model: a diffusers folder or hub id (default: as trained)")
    add("-p", "--prompt",
        help="a .txt or .csv file of `seed,prompt` lines, one prompt, or several joined by |")
    add("-o", "--output-dir", type=expanded_path, default=Path("outputs"),
        help="folder of the videos (default: outputs)")
    add("-s", "--seed", type=seed, default=DEFAULT_SEED,
        help=f"of prompts without one: a number, or random (default: {DEFAULT_SEED})")
    add("-n", "--negative-prompt", default="", help="what not to show")
    add("-r", "--res", type=resolution,
        help="pixels, 384 or 576x320 (default: as the samples during training; of a base, what it was made "
             "for)")
    add("-d", "--duration", type=positive(int), metavar="FRAMES",
        help="frames a video (default: as the samples during training; of a base 16)")
    add("--steps", "-steps", type=positive(int), default=50, help="denoising steps (default: 50)")
    add("--sampler", choices=SAMPLERS, default=DEFAULT_SAMPLER,
        help=f"solver that turns noise into a video; base: the base's own (default: {DEFAULT_SAMPLER})")
    add("--guidance-scale", type=positive(float), default=9.0,
        help="how strictly to follow the prompt (default: 9)")
    add("--fps", type=positive(float, MAX_FPS),
        help=f"frames per second of the files (default: the rate the motion was learned at; of a base "
             f"{DEFAULT_FPS:g})")
    add("--strength", type=finite, default=1.0,
        help="of motions without one of their own; 1: as learned, 0: the base; also between and beyond")
    add("--share-tokens", action="store_true",
        help="combine motions that were taught the same word; it then asks for all of them")
    add("--batch-size", type=positive(int), default=1, help="videos rendered at once (default: 1)")
    add("--precision", choices=("no", "fp16", "bf16"),
        help="default: that of the training, where this device has it")
    add("--overwrite", action="store_true",
        help="replace videos of the same name that were made in another way")
    add = parser.add_mutually_exclusive_group().add_argument   # what is made instead of videos
    add("--export", type=expanded_path, metavar="DIR",
        help="write a full diffusers pipeline folder instead of videos")
    add("--export-lora", nargs=2, metavar=("RANK", "FILE"),
        help="write the LoRA of this rank nearest to a motion of whole weights")
    add("--export-comfy", type=expanded_path, metavar="FILE",
        help="write the LoRA of an AnimateDiff base as a motion LoRA for ComfyUI")
    add("--push-to-hub", type=repository, metavar="USER/NAME",
        help="upload the motion to the Hugging Face hub, with a model card, instead of rendering videos")
    args = parser.parse_args()
    args.lora_rank, args.lora_file = None, args.export_comfy   # without a rank, the LoRA keeps its own
    if args.export_lora:
        args.lora_rank, args.lora_file = args.export_lora[0], expanded_path(args.export_lora[1])
    return args


def check_arguments(args: argparse.Namespace) -> list[str]:
    """Return what is wrong with the arguments together."""
    if args.push_to_hub:
        return []
    if args.export:
        return check_export(args.export)
    if args.lora_file:
        return check_lora_file(args.lora_rank, args.lora_file)
    if args.prompt is None:
        return ["-p/--prompt is missing. Give a prompt, or a .txt or .csv file of `seed,prompt` lines."]
    problems = check_writable(args.output_dir)
    if not is_text(args.negative_prompt):
        problems.append(f"-n/--negative-prompt: {args.negative_prompt!r} is not UTF-8 text.")
    attempt(lambda: check_weights(args.negative_prompt), None, problems)
    attempt(lambda: read_caption_index(args.output_dir), None, problems)   # it is added to
    return problems


def check_against_base(args: argparse.Namespace, base: str, size: tuple[int, int] | None, num_frames: int,
                       folder: Path, adapter: Path | None) -> list[str]:
    """Return what the base in `folder` cannot do of what is to be rendered. `size` is None where nothing says
    which size the base was made for."""
    from models import base_folder
    from rendering.step_check import check_steps

    stride = base_folder.pixel_strides(folder)[0]
    problems = check_steps(args.steps, args.sampler, folder, "--steps", adapter)
    if size is None:
        problems.append(f"{base}: does not say the size it was made for (sample_size of its UNet). Name a "
                        f"size with -r/--res, such as 384 or 576x320.")
    elif any(side % stride for side in size):
        problems.append(f"--res {size[0]}x{size[1]}: both must be multiples of {stride} for this base.")
    if (most := base_folder.most_frames(folder, adapter)) and num_frames > most:
        problems.append(f"--duration {num_frames}: this base takes at most {most} frames.")
    return problems


def publish_one(source: Source, name: str) -> None:
    """Upload the one motion of `source`."""
    from training.publishing import publish
    from utils.hub import check_upload

    if len(source.motions) != 1 or source.motions[0].strength != 1:
        raise UserError("--push-to-hub uploads one motion as it was learned: name one run or one "
                        "motion.safetensors with -m, without a strength.")
    check_upload(name)
    publish(source.motions[0].path, name)
    print(f"use it with -m {name}")


def load(source: Source):
    """Return the base, in float32 on the CPU, with the motions applied, and what to write into its videos."""
    from models.base import load_base
    from models.motion_weights import apply_motions

    base = load_base(source.base, adapter=source.adapter)
    infos = apply_motions(base.unet, base.fingerprint,
                          [(motion.path, motion.strength) for motion in source.motions])
    for info in infos:
        if info.base_fingerprint != base.fingerprint:
            say(f"note: the motion was trained on {info.base}. In the layers that trained, this base has the "
                f"same weights, up to rounding.")
    return base, {**base.record(), "placeholder_token": source.placeholder_token, **source.record()}


def generate(source: Source, prompts: list[Prompt], size: tuple[int, int], num_frames: int, fps: float,
             args: argparse.Namespace) -> None:
    """Render all prompts into the output folder."""
    from accelerate import PartialState
    from tqdm import tqdm

    from rendering.sampling import Rendering
    from rendering.video_folder import render_to_folder
    from utils.devices import DTYPES, precision_of_training, resolve_precision

    how = Rendering(*size, num_frames, args.steps, args.guidance_scale, args.negative_prompt,
                    args.sampler)
    say(f"{counted(len(prompts), 'video')} of {counted(num_frames, 'frame')}, {size[0]}x{size[1]}, "
        f"at {fps:g} frames per second")

    trained_in = source.config and source.config.mixed_precision
    computed_in, notes = (resolve_precision(args.precision) if args.precision
                          else precision_of_training(trained_in))
    for note in notes:
        say(note)
    base, made_with = load(source)
    state = PartialState(timeout=LONGEST_WAIT)
    base.pipeline.to(state.device, DTYPES[computed_in])
    # `accelerate launch` shares the prompts out
    remarks = render_to_folder(base.pipeline, prompts, how, args.output_dir, fps, args.batch_size,
                               made_with | {"precision": computed_in}, args.overwrite,
                               lambda batches: tqdm(batches, desc="generating", dynamic_ncols=True,
                                                    disable=not state.is_main_process),
                               share=(state.process_index, state.num_processes))
    for remark in remarks:
        print(f"note: {remark}")
    state.wait_for_everyone()
    say(f"open {(args.output_dir / 'video_lightbox.html').absolute().as_uri()}")


def say(text: str) -> None:
    """Print what all processes would say, once."""
    if is_first_process():
        print(text)


if __name__ == "__main__":
    run_script(main)
