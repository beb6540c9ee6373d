"""What a training run will do, with everything that can be wrong found before a weight is loaded."""

import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from models.base_folder import find_base, num_timesteps, pixel_strides, tensor_sizes
from models.tunable import select_tunable, selection_report, union
from training.clips import Clip, clip_report, find_clips
from training.config import Config, num_due
from training.footprint import Footprint, free_memory, has_gpu, training_footprint
from training.plan_remarks import device_remark, frames_remark, machine_line, memory_remark, prompt_remark
from training.run_folder import checkpoints
from utils.containers import is_image
from utils.errors import UserError, attempt
from utils.files import check_writable, format_bytes, free_bytes
from utils.processes import is_first_process, num_processes
from utils.prompts import Prompt, read_prompts, with_token

OPTIONAL_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
USABLE_SHARE = 0.85   # of the free memory: allocators leave gaps, kernels take workspace
TYPICAL_STRIDES = (8, 64)   # of ModelScope and ZeroScope, for clips looked at before their base is downloaded


@dataclass(frozen=True)
class Plan:
    """A training run, checked."""

    config: Config
    base_folder: Path | None          # None: a hub id that is not downloaded yet, only without `download`
    exemplars: list[Clip]
    regularization: list[Clip]
    prompts: list[Prompt]             # of the samples
    selected: dict[str, list[str]]    # group -> names of the tensors it trains
    num_elements: dict[str, int]      # of every tensor of the UNet
    strides: tuple[int, int]          # pixels per latent cell, and per cell of the UNet's coarsest level

    @property
    def trained_names(self) -> list[str]:
        return union(self.selected)


def make_plan(config: Config, download: bool = True, known_problems: Sequence[str] = (),
              run: Path | None = None) -> Plan:
    """Check everything a run of `config` depends on. Raises UserError with a line for all that is wrong.

    `known_problems`: those of the config itself, to be reported together with the rest. `run`: the one that
    is resumed. A base on the hub is downloaded last: nobody wants to wait for gigabytes to learn of a broken
    clip.
    """
    problems = list(known_problems)
    folder = attempt(lambda: find_base(config.pretrained_model_path, download=False), None, problems)
    plan = _checked_plan(config, folder, problems)
    if folder is None and download:
        plan = _checked_plan(config, find_base(config.pretrained_model_path), problems)
    problems = check_disk(plan, len(checkpoints(run)) if run else 0)
    if problems:
        raise UserError(*problems)
    return plan


def _checked_plan(config: Config, folder: Path | None, problems: list[str]) -> Plan:
    """Return the plan for a base in `folder`. Raises UserError with `problems` and all that are found."""
    num_elements = attempt(lambda: tensor_sizes(folder, "unet") if folder else {}, {}, problems)
    selected = {}
    if num_elements:
        selected = attempt(lambda: select_tunable(num_elements, config.trainable_modules), {}, problems)
    strides = attempt(lambda: pixel_strides(folder) if folder else TYPICAL_STRIDES, TYPICAL_STRIDES, problems)
    exemplars, regularization = attempt(
        lambda: find_clips(config, strides[1], cache_dir(config), looking_bar), ([], []), problems)
    prompts = attempt(lambda: sample_prompts(config), [], problems)
    problems = problems + check_sizes(config, strides) + check_packages(config) + check_launch(config)
    num_steps = config.validation_data.num_inference_steps
    if folder and num_steps > num_timesteps(folder):
        problems.append(f"validation_data.num_inference_steps is {num_steps}. This base takes at most "
                        f"{num_timesteps(folder)}.")
    for written in (config.output_dir, config.cached_latent_dir):
        problems += check_writable(Path(written)) if written else []
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return Plan(config, folder, exemplars, regularization, prompts, selected, num_elements, strides)


def cache_dir(config: Config) -> Path:
    """Return the folder of what is costly to make again."""
    return Path(config.cached_latent_dir or Path(config.output_dir) / "cache")


def looking_bar(done: Iterable, num: int) -> Iterable:
    """Show how many clips have been looked at, where that takes more than a moment."""
    return tqdm(done, desc="looking at clips", total=num, delay=2, leave=False, dynamic_ncols=True,
                disable=not is_first_process())


def resolve_precision(config: Config) -> tuple[Config, list[str]]:
    """Return the config with the precision this machine trains in, and notes for the user."""
    has_cuda, wanted = torch.cuda.is_available(), config.mixed_precision
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_cuda else cpu_has_bf16()
    if wanted is None:
        best = "bf16" if has_bf16 else "fp16" if has_cuda else "no"
        return replace(config, mixed_precision=best), []
    if wanted == "fp16" and not has_gpu():
        note = "fp16 needs a GPU, and there is none: computing in float32."
        return replace(config, mixed_precision="no"), [note]
    if wanted == "bf16" and has_cuda and not has_bf16:
        return replace(config, mixed_precision="fp16"), ["This GPU has no bf16: computing in fp16."]
    return config, []


def cpu_has_bf16() -> bool:
    """Say whether this CPU has instructions for bf16 (AVX512-BF16, AMX); without, float32 is faster."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def sample_prompts(config: Config) -> list[Prompt]:
    """Return what is rendered at validation_steps, the motion identifier replaced; nothing if it is never
    due."""
    if not config.validation_steps:
        return []
    prompts = [prompt for given in config.validation_data.prompt or ()
               for prompt in read_prompts(given, seed=config.seed)]
    return [replace(prompt, text=with_token(prompt.text, config.placeholder_token)) for prompt in prompts]


def check_sizes(config: Config, strides: tuple[int, int]) -> list[str]:
    """Return the sizes that the network cannot take."""
    cell, coarsest = strides
    wanted = [("validation_data", config.validation_data.width, config.validation_data.height, cell)]
    if not config.train_data.use_bucketing:
        wanted.append(("train_data", config.train_data.width, config.train_data.height, coarsest))
    return [f"{section}: {width}x{height} pixels: both must be multiples of {multiple} for this base."
            for section, width, height, multiple in wanted if width % multiple or height % multiple]


def check_packages(config: Config) -> list[str]:
    """Return the optional packages that the config needs and this machine lacks."""
    needed = [(f"report_to: {config.report_to}", OPTIONAL_PACKAGES.get(config.report_to))]
    if config.use_8bit_adam:
        needed.append(("use_8bit_adam: true", "bitsandbytes"))
    problems = [f"{key} needs the package {package}. Install it: pip install {package}"
                for key, package in needed if package and importlib.util.find_spec(package) is None]
    if config.use_8bit_adam and not torch.cuda.is_available():
        problems.append("use_8bit_adam: true needs an NVIDIA GPU, and there is none here. Set it to false.")
    return problems


def check_launch(config: Config) -> list[str]:
    """Return what this program cannot do in the way that `accelerate launch` has started it."""
    def is_on(name: str) -> bool:
        return os.environ.get(name, "").lower() == "true"

    if is_on("ACCELERATE_USE_DEEPSPEED"):
        return ["DeepSpeed is not supported. configs/accelerate/zero2.yaml spreads gradients and optimizer "
                "state as its ZeRO-2 does, configs/accelerate/fsdp.yaml the weights too."]
    if not is_on("ACCELERATE_USE_FSDP"):
        return []
    problems = []
    if os.environ.get("FSDP_VERSION") != "2":
        problems.append("Of FSDP, version 2 is supported. Set fsdp_version: 2, as "
                        "configs/accelerate/fsdp.yaml does.")
    if config.validation_steps:
        problems.append("validation_steps: FSDP spreads the network over the processes, so samples cannot be "
                        "rendered during training. Set it to null, and render from the checkpoints.")
    if config.use_8bit_adam:
        problems.append("use_8bit_adam: true cannot be used with FSDP. Set it to false.")
    return problems


def disk_needs(plan: Plan, num_written: int = 0) -> tuple[int, int]:
    """Return the bytes a run writes at most: (cache, results without videos).

    `num_written`: the checkpoints that are there already.
    """
    if not plan.num_elements:
        return 0, 0
    cell = plan.strides[0]
    latent_values = 4 * sum(len(clip.frames) * (clip.size[0] // cell) * (clip.size[1] // cell)
                            for clip in plan.exemplars + plan.regularization)
    num_trained = sum(plan.num_elements[name] for name in plan.trained_names)
    motion = num_trained * {"fp16": 2, "fp32": 4}[plan.config.motion_dtype]
    num_checkpoints = num_due(plan.config.checkpointing_steps, plan.config.max_train_steps)
    if plan.config.keep_checkpoints:   # an old one goes when the new one is whole
        num_checkpoints = min(num_checkpoints, plan.config.keep_checkpoints + 1)
    num_checkpoints = max(0, num_checkpoints - num_written)
    # a checkpoint: weights and the two moments of Adam in float32, and the motion weights
    return latent_values * 2 * 4, num_checkpoints * (num_trained * 12 + motion) + motion


def check_disk(plan: Plan, num_written: int = 0) -> list[str]:
    """Return a problem if the results will not fit on the disk; `num_written` as for `disk_needs`."""
    needed, free = sum(disk_needs(plan, num_written)), free_bytes(Path(plan.config.output_dir))
    if needed <= free:
        return []
    return [f"{plan.config.output_dir}: the run will write {format_bytes(needed)} and {format_bytes(free)} "
            f"are free. Make room, or keep fewer checkpoints (checkpointing_steps, keep_checkpoints)."]


def plan_report(plan: Plan) -> str:
    """Return what a user reads before training: the clips, and what trains."""
    config, lines = plan.config, [clip_report(plan.exemplars, plan.regularization)]
    if not config.prior_preservation:
        lines.append("prior_preservation is off: training without regularization")
    elif not plan.regularization:
        lines.append("train_data.class_path is not set: training without regularization, which forgets more "
                     "of what the base knows")
    learned_at = {clip.fps for clip in plan.exemplars if not is_image(clip.path)}
    if learned_at:
        rates = ", ".join(f"{fps:.4g}" for fps in sorted(learned_at))
        lines.append(f"motion is learned at {rates} frames per second; samples are written at "
                     f"{sample_fps(plan):.4g}")
    if plan.selected:
        lines.append(selection_report(plan.selected, plan.num_elements))
    return "\n".join([*lines, *remarks(plan)])


def remarks(plan: Plan) -> list[str]:
    """Return on what and how it is computed, and what is likely a mistake, a line each."""
    plan = replace(plan, config=resolve_precision(plan.config)[0])
    config, ways, found = plan.config, [], []
    if plan.num_elements:
        apart, recompute = fitting_way(plan)
        footprint = footprint_of(plan, apart, recompute)
        ways = ["exemplars and regularization " + ("in turn" if apart else "together")] * \
            bool(plan.regularization) + ["activations " + ("recomputed" if recompute else "kept")]
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":   # which the estimate does not know
            found += memory_remark(footprint, _fits(footprint), recompute)
        found += device_remark(sum(plan.num_elements.values()))
        found += frames_remark(plan.trained_names, plan.exemplars + plan.regularization)
    # also where no samples are due: the command printed at the end renders these prompts
    prompts = attempt(lambda: sample_prompts(replace(config, validation_steps=1)), [], [])
    found += prompt_remark(plan.exemplars, [prompt.text for prompt in prompts], config.placeholder_token)
    return machine_line(config.mixed_precision, plan.exemplars, ways) + found


def sample_fps(plan: Plan) -> float:
    """Return the frames per second at which samples play at the speed of the exemplars."""
    rates = sorted(clip.fps for clip in plan.exemplars)
    return round(rates[len(rates) // 2], 3)


def estimate_report(plan: Plan) -> str:
    """Return the estimates of a dry run."""
    if plan.base_folder is None:
        return (f"{plan.config.pretrained_model_path} is not on this machine yet, so memory and disk are not "
                f"estimated.")
    config, footprint = plan.config, footprint_of(plan, *fitting_way(plan))
    cache, results = disk_needs(plan)
    free = format_bytes(free_bytes(Path(config.output_dir)))
    return (f"{footprint.report()}\ndisk, at most: cache {format_bytes(cache)}, checkpoints and motion "
            f"weights {format_bytes(results)}; {free} are free")


def footprint_of(plan: Plan, apart: bool, recompute: bool) -> Footprint:
    """Estimate the memory of a training step on the largest clips of the plan."""
    config, clips = plan.config, plan.exemplars + plan.regularization
    largest = max(clips, key=lambda clip: clip.window * clip.size[0] * clip.size[1])
    batch_size = config.train_batch_size * (2 if plan.regularization and not apart else 1)
    # where several passes add up, and in the blocks that DDP sends
    gradients_stay = apart or config.gradient_accumulation_steps > 1 or num_processes() > 1
    num_frames = 1 if config.train_data.train_weights == "spatial" else largest.window
    return training_footprint(
        plan.base_folder, plan.trained_names, batch_size, num_frames,
        (largest.size[1] // plan.strides[0], largest.size[0] // plan.strides[0]), config.mixed_precision,
        recompute, config.use_8bit_adam, on_cpu=not torch.cuda.is_available(), gradients_stay=gradients_stay)


def fitting_way(plan: Plan) -> tuple[bool, bool]:
    """Return the fastest way to take a step that fits into memory: whether exemplars and regularization go
    through the network one after the other, at half the activations, and whether these are recomputed.

    Recomputing costs more time than two passes, so that comes last; with it, both may fit together again. A
    CPU, where two passes cost nothing, always takes two. `gradient_checkpointing` decides on recomputing.
    """
    given = plan.config.gradient_checkpointing
    apart = [bool(plan.regularization)]
    if plan.regularization and torch.cuda.is_available():
        apart = [False, True]
    ways = [(is_apart, recompute) for recompute in ([False, True] if given is None else [given])
            for is_apart in apart]
    return next((way for way in ways if _fits(footprint_of(plan, *way))), ways[-1])


def _fits(footprint: Footprint) -> bool:
    return footprint.total() <= USABLE_SHARE * free_memory()
