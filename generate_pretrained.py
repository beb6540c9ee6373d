"""Render prompts with a learned motion, or with a base as it is.

    python generate_pretrained.py -m RUN -o FOLDER -p data/prompts/PROMPTS.txt
    python generate_pretrained.py -m RUN -o FOLDER -p "a robot doing the V* dance|two cats doing it" -s random
    python generate_pretrained.py -m RUN --export DIR

Each prompt becomes FOLDER/{prompt}_seed{seed}.mp4; open video_lightbox.html in FOLDER to see them.
"""

import argparse
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

# torch and diffusers are imported in the functions that use them: --help and wrong arguments should not wait
# for them
from rendering.samplers import DEFAULT_SAMPLER, SAMPLERS
from training.config import Config
from training.config_loading import parse_config
from utils.captions import read_caption_index
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import check_writable, expanded, expanded_path, file_digest, write_json
from utils.processes import LONGEST_WAIT, is_first_process
from utils.prompt_lists import examine_prompts
from utils.prompt_weights import check_weights
from utils.prompts import MAX_SEED, Prompt, is_text, with_token

MAX_FPS = 1000
DEFAULT_SEED, DEFAULT_NUM_FRAMES, DEFAULT_FPS = 0, 16, 8.0


def main() -> None:
    args = parse_args()
    problems = check_arguments(args)
    prompts, notes = [], []
    if args.prompt is not None:
        prompts, notes = attempt(lambda: examine_prompts(args.prompt, args.seed), ([], []), problems)
    source = attempt(lambda: find_model(args.model, args.base, args.adapter), None, problems)
    if problems:
        raise UserError(*dict.fromkeys(problems))

    from models import base, base_folder

    folder = attempt(lambda: base_folder.find_base(source.base, adapter=source.adapter), None, problems)
    if problems:
        moved = " If it has moved, say where with --base." if source.motion and not args.base else ""
        raise UserError(*(problem + moved for problem in problems))
    adapter = base_folder.find_adapter(source.adapter, folder)   # its problems name --adapter
    size = args.res or source.size or base_folder.native_size(source.base, folder)
    fps = args.fps or source.fps or DEFAULT_FPS
    if args.steps > (most := base_folder.num_timesteps(folder)):
        raise UserError(f"--steps {args.steps}: this base takes at most {most}.")
    if any(side % (stride := base_folder.pixel_strides(folder)[0]) for side in size):
        raise UserError(f"--res {size[0]}x{size[1]}: both must be multiples of {stride} for this base.")
    if args.export:
        export(source, args)
        return
    num_frames = args.duration or source.num_frames
    if (most := base_folder.most_frames(folder, adapter)) and num_frames > most:
        raise UserError(f"--duration {num_frames}: this base takes at most {most} frames.")
    for note in notes:
        say(note)
    prompts = [replace(prompt, text=with_token(prompt.text, source.placeholder_token)) for prompt in prompts]
    with base.enough_memory("Lower --batch-size, --res or --duration."):
        generate(source, prompts, size, num_frames, fps, args)


@dataclass(frozen=True)
class Source:
    """Where the weights come from, and what they say about how to render with them."""

    base: str                     # diffusers folder or hub id
    adapter: str | None           # the same of its motion adapter, where the base is an image model
    motion: Path | None           # motion weights; None: the base as it is
    config: Config | None         # they were trained with
    fps: float | None             # frames per second at which the motion was learned
    placeholder_token: str

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels of the samples of the training run."""
        wanted = self.config and self.config.validation_data
        return (wanted.width, wanted.height) if wanted else None

    @property
    def num_frames(self) -> int:
        """Frames of the samples of the training run."""
        return self.config.validation_data.num_frames if self.config else DEFAULT_NUM_FRAMES


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Render prompts with a learned motion, or with a base as it is."))
    add = parser.add_argument
    add("-m", "--model", required=True, type=expanded,
        help="run folder, checkpoint folder, motion.safetensors, diffusers folder, or hub id "
             "(zs: cerspense/zeroscope_v2_576w)")
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
        help="pixels, 384 or 576x320 (default: as trained; of a base, what it was made for)")
    add("-d", "--duration", type=positive(int), metavar="FRAMES", help="frames a video (default: as trained)")
    add("--steps", "-steps", type=positive(int), default=50, help="denoising steps (default: 50)")
    add("--sampler", choices=SAMPLERS, default=DEFAULT_SAMPLER,
        help=f"solver that turns noise into a video; base: the base's own (default: {DEFAULT_SAMPLER})")
    add("--guidance-scale", type=positive(float), default=9.0,
        help="how strictly to follow the prompt (default: 9)")
    add("--fps", type=positive(float, MAX_FPS),
        help=f"frames per second of the files (default: the rate the motion was learned at; of a base "
             f"{DEFAULT_FPS:g})")
    add("--strength", type=finite, default=1.0, help="1: as learned, 0: the base; also between and beyond")
    add("--batch-size", type=positive(int), default=1, help="videos rendered at once (default: 1)")
    add("--precision", choices=("no", "fp16", "bf16"),
        help="default: that of the training, where this device has it")
    add("--overwrite", action="store_true",
        help="replace videos of the same name that were made in another way")
    add("--export", type=expanded_path, metavar="DIR",
        help="write a full diffusers pipeline folder instead of videos")
    return parser.parse_args()


def seed(text: str) -> int | None:
    """Parse --seed; None stands for random."""
    if text == "random":
        return None
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number of 0 or above nor random")
    return int(text)


def resolution(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if not match or not int(match[1]) or match[2] and not int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor WIDTHxHEIGHT")
    return int(match[1]), int(match[2] or match[1])


def finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(kind: type, most: float = math.inf):
    """Return a parser of numbers of a kind, above zero and at most `most`."""
    def parse(text: str):
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
        if number > most:
            raise argparse.ArgumentTypeError(f"{text!r} is above {most:g}")
        return number

    return parse


def check_arguments(args: argparse.Namespace) -> list[str]:
    """Return what is wrong with the arguments together."""
    if args.export:
        if args.export.exists() and (not args.export.is_dir() or any(args.export.iterdir())):
            return [f"{args.export}: is there already and not an empty folder. Name a new one."]
        return check_writable(args.export.absolute().parent)
    if args.prompt is None:
        return ["-p/--prompt is missing. Give a prompt, or a .txt or .csv file of `seed,prompt` lines."]
    problems = check_writable(args.output_dir)
    if not is_text(args.negative_prompt):
        problems.append(f"-n/--negative-prompt: {args.negative_prompt!r} is not UTF-8 text.")
    attempt(lambda: check_weights(args.negative_prompt), None, problems)
    attempt(lambda: read_caption_index(args.output_dir), None, problems)   # it is added to
    return problems


def find_model(given: str, moved_base: str | None, adapter: str | None) -> Source:
    """Return what `given`, of -m, names; `moved_base` and `adapter` are the values of --base and --adapter.

    Raises UserError if it is neither motion weights nor a base.
    """
    from models.base_folder import HUB_ALIASES, check_base_folder, has_own_motion, is_hub_id
    from models.motion_weights import read_motion_info
    from training.run_folder import find_motion

    motion = find_motion(given)
    if motion and motion.suffix != ".safetensors":
        raise UserError(f"{given}: is not a motion.safetensors. Name a run folder, or the file of that name "
                        f"in it.")
    if motion:
        info = read_motion_info(motion)
        config, _ = parse_config(info.config, f"the config in {motion}")
        if not adapter and not (moved_base and has_own_motion(moved_base)):
            adapter = config.motion_adapter_path
        return Source(moved_base or info.base, adapter, motion, config, info.fps, info.placeholder_token)
    if Path(given).is_dir():
        problems = check_base_folder(Path(given), has_adapter=adapter is not None)
        if problems and not (Path(given) / "model_index.json").exists():
            raise UserError(f"{given}: holds neither motion weights nor a diffusers pipeline. Name a run "
                            f"folder, a motion.safetensors, a base or a hub id.")
        if problems:
            raise UserError(*problems)
    elif not is_hub_id(given) and given not in HUB_ALIASES:
        raise UserError(f"{given}: does not exist. Name a run folder, a motion.safetensors, a base or a hub "
                        f"id.")
    return Source(given, adapter, None, None, None, Config.placeholder_token)


def precision(args: argparse.Namespace, source: Source) -> str:
    """Return the precision to compute in: that of --precision, else that of the training, where the device
    has it."""
    from utils.devices import resolve_precision

    wanted = args.precision or (source.config and source.config.mixed_precision)
    computed_in, notes = resolve_precision(wanted)
    for note in notes:
        say(note)
    return computed_in


def load(source: Source, strength: float):
    """Return the base, in float32 on the CPU, with the motion applied, and what to write into its videos."""
    from models.base import load_base
    from models.motion_weights import apply_motion

    base = load_base(source.base, adapter=source.adapter)
    made_with = {"base": source.base, "base_fingerprint": base.fingerprint,
                 "placeholder_token": source.placeholder_token}
    if source.motion:
        info = apply_motion(base.unet, base.fingerprint, source.motion, strength)
        made_with |= {"motion": str(source.motion), "motion_digest": file_digest(source.motion),
                      "step": info.step, "strength": strength}
    return base, made_with


def export(source: Source, args: argparse.Namespace) -> None:
    """Write a pipeline folder that stock diffusers loads. Tensors that the motion did not change are equal to
    those of the base's files."""
    from models.base import export_base
    from utils.files import replacing_folder

    base, made_with = load(source, args.strength)
    with replacing_folder(args.export) as partial:
        export_base(base, partial)
        write_json(partial / "customized_motion.json", made_with)   # what this is; diffusers ignores it
    print(f"exported: {args.export}\nload it with\n  DiffusionPipeline.from_pretrained({str(args.export)!r})")


def generate(source: Source, prompts: list[Prompt], size: tuple[int, int], num_frames: int, fps: float,
             args: argparse.Namespace) -> None:
    """Render all prompts into the output folder."""
    from accelerate import PartialState
    from tqdm import tqdm

    from rendering.sampling import Rendering
    from rendering.video_folder import render_to_folder
    from utils.devices import DTYPES

    how = Rendering(*size, num_frames, args.steps, args.guidance_scale, args.negative_prompt,
                    args.sampler)
    say(f"{len(prompts)} video{'s' * (len(prompts) != 1)} of {num_frames} frames, {size[0]}x{size[1]}, "
        f"at {fps:g} frames per second")

    computed_in = precision(args, source)
    base, made_with = load(source, args.strength)
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
