"""The training run: load -> freeze all -> select -> cache -> prepare -> loop -> motion weights.

Everything random is a function of (seed, step), so a run stopped anywhere and resumed continues as if it had
not been.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from tqdm import tqdm

from models.base import Base, load_base, training_scheduler, unseen_words
from models.motion_weights import MotionInfo, library_versions, movement, save_motion
from models.recompute import recompute_activations
from rendering.sampling import COMPUTE_DTYPES
from training.checkpoint import save_checkpoint
from training.config import is_due
from training.config_loading import config_yaml
from training.inputs import Inputs, encode_inputs
from training.optimization import (
    hold_frozen_weights_in,
    learning_rate_schedule,
    make_optimizer,
    select_parameters,
    set_temporal_dropout,
)
from training.plan import Plan, cache_dir, fitting_way, sample_fps
from training.resuming import load_newest, run_state
from training.run_folder import (
    MOTION_NAME,
    append_log,
    checkpoint_dir,
    remove_leftovers,
    remove_old_checkpoints,
    rewind_log,
)
from training.sharding import all_whole, keep_precision
from training.step import optimizer_step
from training.stopping import exit_code, stop_requested, stop_signals
from training.validation import as_generation_sees, write_samples
from utils.commands import script_command

SHOWN = ("exemplar", "regularization")   # beside the progress bar
KEPT_TO_THE_END = []                     # the process group, if there are several processes


@dataclass(frozen=True)
class Training:
    """Everything a run has in hand once it is set up."""

    plan: Plan
    run: Path
    base: Base
    accelerator: Any                   # accelerate's, which only the scripts import
    trained: dict[str, nn.Parameter]   # float32 masters, by name, in the order the optimizer has them
    unet: nn.Module                    # prepared by accelerate: autocast; with several processes DDP or FSDP
    plain_forward: Callable            # of the UNet as it was before, which rendering goes back to
    optimizer: Optimizer
    scheduler: SchedulerMixin          # adds noise
    inputs: Inputs
    apart: bool                        # exemplars and regularization: one pass through the network each


def train(plan: Plan, accelerator, run: Path) -> Path:
    """Carry out `plan` in the folder `run`, from its newest checkpoint if it has any.

    Returns the path of the motion weights. Asked to stop (Ctrl-C, SIGTERM), it saves a checkpoint and exits.
    """
    config, training = plan.config, set_up(plan, accelerator, run)
    start = load_newest(run, training.base, training.trained, training.optimizer, accelerator)
    if accelerator.is_main_process:   # a killed process leaves half-written files and steps to take again
        remove_leftovers(run)
        remove_old_checkpoints(run, config.keep_checkpoints)
        rewind_log(run, start)
    learning_rate_at = learning_rate_schedule(config, accelerator.num_processes)

    bar = tqdm(range(start, config.max_train_steps), initial=start, total=config.max_train_steps,
               desc="training", disable=not accelerator.is_main_process, dynamic_ncols=True)
    with stop_signals() as stop:
        render_samples(training, start, stop)
        stop_if_asked(training, start, stop)
        for step in bar:
            began = time.perf_counter()
            for group in training.optimizer.param_groups:
                group["lr"] = learning_rate_at(step)
            entry = optimizer_step(plan, training.unet, training.scheduler, training.inputs,
                                   training.optimizer, training.trained, accelerator, step, training.apart)
            entry |= {"lr": learning_rate_at(step), "seconds": round(time.perf_counter() - began, 4)}
            report(training, entry, bar)
            if is_due(step + 1, config.checkpointing_steps):
                save(training, step + 1)
            stop_if_asked(training, step + 1, stop)
            render_samples(training, step + 1, stop)
            stop_if_asked(training, step + 1, stop)
    trained = all_whole(training.trained, accelerator.is_main_process)
    if accelerator.is_main_process:
        accelerator.print(movement_report(plan, trained))
        # written last: a run is finished when it has its motion weights
        save_motion(run / MOTION_NAME, trained, motion_info(training, config.max_train_steps),
                    config.motion_dtype)
    accelerator.end_training()
    return run / MOTION_NAME


def set_up(plan: Plan, accelerator, run: Path) -> Training:
    """Load the base, choose what trains, encode clips and captions, and prepare for the devices at hand."""
    config = plan.config
    base = load_base(config.pretrained_model_path)
    unet = base.unet

    # prepare() wraps in DDP only if something requires grad, so what trains is chosen first
    trained = select_parameters(unet, plan.trained_names)
    set_temporal_dropout(unet, config.temporal_dropout)
    inputs = cache_inputs(plan, base, accelerator)
    hold_frozen_weights_in(unet, COMPUTE_DTYPES[config.mixed_precision])
    # processes go the way of the one with the least memory: they wait for each other in every pass, and where
    # the network is spread in every block
    wanted = torch.tensor(fitting_way(plan), dtype=torch.float32, device=accelerator.device)
    apart, recompute = (accelerator.reduce(wanted, "sum") > 0).tolist()
    if recompute:
        recompute_activations(unet)
    plain_forward = unet.forward   # prepare() wraps it in autocast
    optimizer = make_optimizer(config, trained, accelerator)
    if accelerator.num_processes > 1 and not accelerator.is_fsdp2:
        # DDP makes those that are there views of the blocks it sends; of those that a first pass makes, which
        # is not sent, there would be two copies
        for tensor in trained.values():
            tensor.grad = torch.zeros_like(tensor)
    keep_precision(accelerator, unet)
    prepared, optimizer = accelerator.prepare(unet, optimizer)
    parameters = dict(unet.named_parameters())   # where FSDP spreads them, others than before
    trained = {name: parameters[name] for name in trained}
    if distributed.is_initialized():
        # else DDP's reducer is the last to let go of the process group, and its destructor waits for threads
        # that wait for the interpreter: now and then a finished run never ended
        KEPT_TO_THE_END.append(distributed.group.WORLD)
    prepared.train()
    return Training(plan, run, base, accelerator, trained, prepared, plain_forward, optimizer,
                    training_scheduler(base), inputs, apart)


def report(training: Training, entry: dict, bar: tqdm) -> None:
    """Add a step to the log and the trackers, and show its losses."""
    known = {name: value for name, value in entry.items() if value is not None}
    if training.accelerator.is_main_process:
        append_log(training.run, entry)
        bar.set_postfix({name: f"{known[name]:.4f}" for name in SHOWN if name in known})
    training.accelerator.log(known, step=entry["step"])


def save(training: Training, step: int) -> None:
    """Write the checkpoint of `step`, unless it is there."""
    folder, accelerator = checkpoint_dir(training.run, step), training.accelerator
    if not folder.exists():
        state = run_state(training.plan, training.base, accelerator)
        save_checkpoint(folder, training.trained, training.optimizer.optimizer, motion_info(training, step),
                        training.plan.config.motion_dtype, state, accelerator.is_main_process)
        if accelerator.is_main_process:
            remove_old_checkpoints(training.run, training.plan.config.keep_checkpoints)
    accelerator.wait_for_everyone()


def render_samples(training: Training, step: int, stop: list[int]) -> None:
    """Render the sample prompts, where they are due; those of step 0 show the untuned base."""
    plan, base = training.plan, training.base
    if plan.prompts and (step == 0 or is_due(step, plan.config.validation_steps)):
        if training.accelerator.is_main_process:
            with as_generation_sees(base, training.trained, training.plain_forward, plan.config, step):
                write_samples(plan, base, training.run, step, stop)
        training.accelerator.wait_for_everyone()


def stop_if_asked(training: Training, step: int, stop: list[int]) -> None:
    """Save and exit if a signal has come, saying how to go on."""
    accelerator = training.accelerator
    if stop_requested(stop, accelerator):
        save(training, step)
        accelerator.print(f"\nStopped after step {step}, and saved. Continue with\n"
                          f"  {script_command('train_model.py', '--resume', training.run)}")
        accelerator.end_training()
        sys.exit(exit_code(stop))


def cache_inputs(plan: Plan, base: Base, accelerator) -> Inputs:
    """Encode clips and captions on the accelerator; afterwards both encoders leave it."""
    encoders = base.vae, base.pipeline.text_encoder
    for encoder in encoders:
        encoder.to(accelerator.device)
    if accelerator.is_main_process:
        captions = [caption for clip in plan.exemplars + plan.regularization for caption in clip.captions]
        for caption in dict.fromkeys(captions):
            if unseen := unseen_words(base.pipeline, caption):
                print(f"caption too long for the text encoder, not seen: \"{unseen}\"")
    with accelerator.main_process_first():   # the others then find everything there
        inputs = encode_inputs(base, plan.exemplars + plan.regularization, cache_dir(plan.config),
                               lambda jobs: tqdm(jobs, desc="encoding clips and captions", dynamic_ncols=True,
                                                 disable=not jobs or not accelerator.is_main_process))
    for encoder in encoders:
        encoder.to("cpu")
    torch.cuda.empty_cache()   # so that the memory they had counts as free; without a GPU there is none
    return inputs


def motion_info(training: Training, step: int) -> MotionInfo:
    """Return what the motion weights of `step` say about themselves."""
    plan, config = training.plan, training.plan.config
    return MotionInfo(
        config.pretrained_model_path, training.base.fingerprint, config.trainable_modules,
        config.placeholder_token, step, sample_fps(plan), config_yaml(config), library_versions())


def movement_report(plan: Plan, trained: Mapping[str, Tensor]) -> str:
    """Return how far each group has moved, relative to its norm in the base."""
    moved = movement(plan.base_folder, trained, plan.selected)
    lines = [f"  {group:<16} {distance:.3%}" for group, distance in moved.items()]
    return "\n".join(["moved from the base, relative to its norm", *lines])
