"""A checked training run: everything that can be wrong is found here, before a weight is loaded."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high

import torch

from models.base_folder import (
    encoded_sizes,
    find_adapter,
    find_base,
    kind_of_folder,
    most_frames,
    pixel_strides,
    tensor_shapes,
    unet_config,
)
from models.lora_files import Lora, check_lora, num_low_rank
from models.tokens import unseen_captions
from models.tunable import select_tunable, union
from rendering.step_check import check_steps
from training.base_limits import check_num_frames, check_single_frames, check_sizes
from training.clips import Clip, find_clips
from training.config import Config, num_due
from training.footprint import Footprint, training_footprint
from training.held_out import set_apart
from training.launch import check_launch, check_packages
from training.looking import looking_bar
from training.run_folder import checkpoints
from utils.containers import is_image
from utils.devices import free_memory, resolve_precision
from utils.errors import UserError, attempt
from utils.files import check_writable, format_bytes, free_bytes
from utils.processes import num_processes
from utils.prompt_lists import read_prompts
from utils.prompt_weights import check_weights
from utils.prompts import Prompt, with_token, with_tokens

USABLE_SHARE = 0.85   # of the free memory: allocators leave gaps, and kernels need workspace
SMALL_PASS = 4096   # latent cells of a pass, up to which a CPU is faster with both roles in one pass
TYPICAL_STRIDES = (8, 64)   # of ModelScope and ZeroScope, to check clips before such a base is downloaded


@dataclass(frozen=True)
class Plan:
    """A training run, checked."""

    config: Config                    # its precision is one that this machine has
    base_folder: Path | None          # None in a dry run, for a hub id that is not downloaded yet
    adapter_folder: Path | None       # of the motion adapter, where the base is an image model
    exemplars: list[Clip]
    regularization: list[Clip]
    held_out: dict[str, list[Clip]]   # role -> clips that never train, whose loss is measured
    prompts: list[Prompt]             # rendered at validation_steps
    num_left_out: int                 # prompts of the config beyond validation_data.max_prompts
    unseen: dict[str, str]            # caption -> its words that the text encoder does not see
    selected: dict[str, list[str]]    # group -> names of the tensors it trains
    shapes: dict[str, tuple[int, ...]]   # of every tensor of the UNet
    strides: tuple[int, int]          # pixels per latent cell, and per cell of the UNet's coarsest level
    # the ways to take a step, fastest first, as (apart, recompute), and the memory each takes. apart:
    # exemplars and regularization go through the network one after the other, which halves the activations.
    # recompute: the backward pass computes activations again instead of keeping them.
    footprints: dict[tuple[bool, bool], Footprint]
    way: tuple[bool, bool] | None     # the fastest that fits into the memory free when the plan was made

    @property
    def clips(self) -> list[Clip]:
        """All clips that are encoded: those that train, and those that are held out."""
        held_out = [clip for clips in self.held_out.values() for clip in clips]
        return self.exemplars + self.regularization + held_out

    @property
    def has_many_shapes(self) -> bool:
        """Say whether the windows that train differ in size or length."""
        return len({(clip.size, clip.window) for clip in self.exemplars + self.regularization}) > 1

    @property
    def num_elements(self) -> dict[str, int]:
        """The number of elements of every tensor of the UNet."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @property
    def trained_names(self) -> list[str]:
        return union(self.selected)

    @property
    def lora(self) -> Lora | None:
        """The settings of low-rank updates; None where the weights themselves train."""
        rank, alpha, dropout = self.config.lora_rank, self.config.lora_alpha, self.config.lora_dropout
        return Lora(rank, alpha or rank, dropout) if rank else None

    @property
    def num_trained(self) -> dict[str, int]:
        """How many values train for each weight that changes: its own, or those of its low-rank update."""
        if self.lora:
            return num_low_rank(self.shapes, self.trained_names, self.lora.rank)
        return {name: math.prod(self.shapes[name]) for name in self.trained_names}

    @property
    def skips_temporal_layers(self) -> bool:
        """Say whether windows of a single frame skip the temporal layers."""
        return self.config.train_data.single_frame_layers == "spatial"


def make_plan(config: Config, download: bool = True, known_problems: Sequence[str] = (),
              run: Path | None = None, unknown_keys: Collection[str] = ()) -> Plan:
    """Check everything a run of `config` depends on. Raises UserError with a line for each problem.

    `known_problems` of the config itself are reported together with the rest. `unknown_keys` are keys
    whose value is wrong: checks that depend on them are skipped. `run` is the folder of a run that is
    resumed. A base on the hub is downloaded after all other checks: nobody wants to wait for gigabytes to
    learn of a broken clip.
    """
    problems = list(known_problems)
    config = replace(config, mixed_precision=resolve_precision(config.mixed_precision)[0])
    folders = attempt(lambda: find_folders(config, download=False), (None, None), problems)
    plan = _checked_plan(config, folders, problems, unknown_keys)
    if plan.base_folder is None and download:
        plan = _checked_plan(config, find_folders(config, download=True), problems, unknown_keys)
    problems = check_disk(plan, len(checkpoints(run)) if run else 0)
    if problems:
        raise UserError(*problems)
    footprints = step_footprints(plan) if plan.base_folder else {}
    return replace(plan, footprints=footprints, way=fastest_way(footprints))


def find_folders(config: Config, download: bool) -> tuple[Path | None, Path | None]:
    """Return the folders of the base and of its motion adapter, if it has one.

    Both are None if one of the two is on the hub and is not to be downloaded.
    """
    folder = find_base(config.pretrained_model_path, download=download, adapter=config.motion_adapter_path)
    adapter = find_adapter(config.motion_adapter_path, folder, download=download) if folder else None
    return (folder, adapter) if adapter or not config.motion_adapter_path else (None, None)


def _checked_plan(config: Config, folders: tuple[Path | None, Path | None], problems: list[str],
                  unknown_keys: Collection[str]) -> Plan:
    """Return the plan for a base in `folders`. Raises UserError with `problems` and all others it finds."""
    folder, adapter = folders
    shapes = attempt(lambda: tensor_shapes(folder, "unet", adapter) if folder else {}, {}, problems)
    selected = {}
    if shapes:
        selected = attempt(lambda: select_tunable(shapes, config.trainable_modules), {}, problems)
    strides = attempt(lambda: pixel_strides(folder) if folder else TYPICAL_STRIDES, TYPICAL_STRIDES, problems)
    exemplars, regularization = attempt(
        lambda: find_clips(config, strides[1], cache_dir(config), looking_bar, unknown_keys),
        ([], []), problems)
    captions = [caption for clip in exemplars + regularization for caption in clip.captions]
    exemplars, regularization, held_out = attempt(
        lambda: set_apart(config, exemplars, regularization), (exemplars, regularization, {}), problems)
    unseen = attempt(lambda: unseen_captions(folder, captions) if folder else {}, {}, problems)
    # without validation_steps too: the command printed at the end renders these prompts
    prompts = attempt(lambda: sample_prompts(config), [], problems if config.validation_steps else [])
    problems = problems + check_sizes(config, strides) + check_packages(config) + check_launch(config)
    problems += check_single_frames(config, exemplars + regularization, selected)
    problems += check_lora(shapes, selected) if config.lora_rank else []
    if folder:
        problems += attempt(lambda: check_steps(
            config.validation_data.num_inference_steps, config.validation_data.sampler, folder,
            "validation_data.num_inference_steps", adapter), [], problems)
    problems += check_num_frames(config, most_frames(folder, adapter) if folder else None)
    for written in (config.output_dir, config.cached_latent_dir):
        problems += check_writable(Path(written)) if written else []
    if problems:
        raise UserError(*dict.fromkeys(problems))
    most = config.validation_data.max_prompts
    return Plan(config, folder, adapter, exemplars, regularization, held_out, prompts[:most],
                len(prompts[most:]), unseen, selected, shapes, strides, footprints={}, way=None)


def cache_dir(config: Config) -> Path:
    """Return the folder that keeps encoded clips and captions, and the facts found in clip files."""
    return Path(config.cached_latent_dir or Path(config.output_dir) / "cache")


def negative_prompt(config: Config) -> str:
    """Return what samples should not show, with the motion identifier replaced."""
    return with_token(config.validation_data.negative_prompt, config.placeholder_token)


def sample_prompts(config: Config) -> list[Prompt]:
    """Return the prompts of the samples, with the motion identifier replaced."""
    check_weights(config.validation_data.negative_prompt)
    negative_prompt(config)
    prompts = [prompt for given in config.validation_data.prompt or ()
               for prompt in read_prompts(given, seed=config.seed)]
    return with_tokens(prompts, config.placeholder_token)


def disk_needs(plan: Plan, num_written: int = 0) -> tuple[int, int]:
    """Return the bytes a run writes at most: (cache, results without videos).

    `num_written`: the number of checkpoints that are on disk already.
    """
    if not plan.shapes:
        return 0, 0
    cell = plan.strides[0]
    num_cells = sum(len(clip.shifts) * len(clip.frames) * (clip.size[0] // cell) * (clip.size[1] // cell)
                    for clip in plan.clips)
    num_captions = len({caption for clip in plan.clips for caption in clip.captions})
    num_captions += plan.config.caption_dropout_rate > 0   # the empty one
    num_latents, num_embeds = encoded_sizes(plan.base_folder)
    cache = 4 * (2 * num_cells * num_latents + num_captions * num_embeds)   # float32; mean and std of a cell
    num_trained, motion = sum(plan.num_trained.values()), motion_bytes(plan)
    num_checkpoints = num_due(plan.config.checkpointing_steps, plan.config.max_train_steps)
    if plan.config.keep_checkpoints:   # an old one is removed when the new one is whole
        num_checkpoints = min(num_checkpoints, plan.config.keep_checkpoints + 1)
    num_checkpoints = max(0, num_checkpoints - num_written)
    # a checkpoint: weights and the two moments of Adam in float32, and the motion weights
    return cache, num_checkpoints * (num_trained * 12 + motion) + motion


def motion_bytes(plan: Plan) -> int:
    """Return the bytes of the tensors in motion.safetensors."""
    return sum(plan.num_trained.values()) * {"fp16": 2, "fp32": 4}[plan.config.motion_dtype]


def check_disk(plan: Plan, num_written: int = 0) -> list[str]:
    """Return a problem if the results do not fit on the disk. `num_written` as for `disk_needs`."""
    needed, free = sum(disk_needs(plan, num_written)), free_bytes(Path(plan.config.output_dir))
    if needed <= free:
        return []
    return [f"{plan.config.output_dir}: the run will write {format_bytes(needed)} and {format_bytes(free)} "
            f"are free. Make room, or keep fewer checkpoints (checkpointing_steps, keep_checkpoints)."]


def sample_fps(plan: Plan) -> float:
    """Return the frames per second at which samples play at the speed of the exemplars.

    Pictures have no speed. They count only where nothing else is trained on.
    """
    moving = [clip.fps for clip in plan.exemplars if not is_image(clip.path)]
    return round(median_high(moving or [clip.fps for clip in plan.exemplars]), 3)


def step_footprints(plan: Plan) -> dict[tuple[bool, bool], Footprint]:
    """Return the ways to take a step, (apart, recompute), fastest first, with the memory each takes.

    Recomputing costs more time than two passes, so it comes last. With recomputing, one pass for exemplars
    and regularization together may fit again. On a CPU two passes are faster, unless they are so small
    that calling the layers takes longer than what they compute (docs/performance.md). With a dropout the two
    ways would draw other masks, and the free memory would decide what is learned: then it is two passes.
    `gradient_checkpointing` decides on recomputing where it is set.
    """
    given = plan.config.gradient_checkpointing
    apart, has_dropout = [bool(plan.regularization)], plan.config.temporal_dropout or plan.config.lora_dropout
    is_fast_together = torch.cuda.is_available() or num_cells(plan) <= SMALL_PASS
    if plan.regularization and is_fast_together and not has_dropout:
        apart = [False, True]
    return {(is_apart, recompute): step_footprint(plan, is_apart, recompute)
            for recompute in ([False, True] if given is None else [given]) for is_apart in apart}


def largest_clip(plan: Plan) -> Clip:
    """Return the clip of which a window has the most pixels."""
    clips = plan.exemplars + plan.regularization
    return max(clips, key=lambda clip: clip.window * clip.size[0] * clip.size[1])


def num_cells(plan: Plan) -> int:
    """Return the latent cells of all frames of one role in a batch."""
    largest, cell = largest_clip(plan), plan.strides[0]
    num_frames = plan.config.train_batch_size * largest.window
    return num_frames * (largest.size[0] // cell) * (largest.size[1] // cell)


def step_footprint(plan: Plan, apart: bool, recompute: bool) -> Footprint:
    """Estimate the memory of a training step on the largest clips of the plan."""
    config, largest = plan.config, largest_clip(plan)
    batch_size = config.train_batch_size * (2 if plan.regularization and not apart else 1)
    # gradients stay where several passes add up, and in DDP's communication buckets
    gradients_stay = apart or config.gradient_accumulation_steps > 1 or num_processes() > 1
    num_frames = 1 if config.train_data.train_weights == "spatial" else largest.window
    layers = kind_of_folder(plan.base_folder).layers(unet_config(plan.base_folder, plan.adapter_folder))
    return training_footprint(
        layers, plan.num_elements, plan.num_trained, batch_size, num_frames,
        (largest.size[1] // plan.strides[0], largest.size[0] // plan.strides[0]), config.mixed_precision,
        recompute, config.use_8bit_adam, on_cpu=not torch.cuda.is_available(), gradients_stay=gradients_stay,
        rank=config.lora_rank)


def fastest_way(footprints: Mapping[tuple[bool, bool], Footprint]) -> tuple[bool, bool] | None:
    """Return the first of the ways that fits into the memory that is free now; the last if none fits."""
    return next((way for way in footprints if fits(footprints[way])), next(reversed(footprints), None))


def fits(footprint: Footprint) -> bool:
    """Say whether a step fits into the memory that is free now."""
    return footprint.total() <= USABLE_SHARE * free_memory()
