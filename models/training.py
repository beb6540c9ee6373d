"""The training run: load -> freeze all -> select -> cache -> prepare -> loop -> motion weights.

Everything random is a function of (seed, step), so a run stopped anywhere and resumed continues as if it had
not been.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from models.base import Base, load_base, training_scheduler, unseen_words
from models.checkpoint import save_checkpoint
from models.inputs import Inputs, encode_inputs
from models.motion_weights import MotionInfo, library_versions, movement, save_motion
from models.optimization import (
    hold_frozen_weights_in,
    learning_rate_schedule,
    make_optimizer,
    select_parameters,
    set_temporal_dropout,
)
from models.plan import Plan, sample_fps
from models.recompute import recompute_activations
from models.resuming import load_newest, run_state
from models.sampling import COMPUTE_DTYPES
from models.step import optimizer_step
from models.stopping import exit_code, stop_requested, stop_signals
from models.validation import as_generation_sees, write_samples
from utils.commands import script_command
from utils.config import config_yaml, is_due
from utils.run_folder import (
    MOTION_NAME,
    append_log,
    checkpoint_dir,
    remove_leftovers,
    rewind_log,
)


def train(plan: Plan, accelerator, run: Path) -> Path:
    """Carry out `plan` in the folder `run`, from its newest checkpoint if it has any.

    Returns the path of the motion weights. Asked to stop (Ctrl-C, SIGTERM), it saves a checkpoint and exits.
    """
    config = plan.config
    base = load_base(config.pretrained_model_path)
    unet, scheduler = base.unet, training_scheduler(base)

    # prepare() wraps in DDP only if something requires grad, so what trains is chosen first
    trained = select_parameters(unet, plan.trained_names)
    set_temporal_dropout(unet, config.temporal_dropout)
    inputs = cache_inputs(plan, base, accelerator)
    hold_frozen_weights_in(unet, COMPUTE_DTYPES[config.mixed_precision])
    if config.gradient_checkpointing:
        recompute_activations(unet)
    plain_forward = unet.forward   # prepare() wraps it in autocast, which rendering goes without
    optimizer = make_optimizer(config, trained, accelerator)
    prepared, optimizer = accelerator.prepare(unet, optimizer)
    prepared.train()

    start = load_newest(run, base, trained, optimizer, accelerator)
    learning_rate_at = learning_rate_schedule(config, accelerator.num_processes)
    describe = motion_description(plan, base)
    if accelerator.is_main_process:   # a killed process leaves half-written files and steps to take again
        remove_leftovers(run)
        rewind_log(run, start)

    def save(step: int) -> None:
        if accelerator.is_main_process and not checkpoint_dir(run, step).exists():
            save_checkpoint(checkpoint_dir(run, step), trained, optimizer.optimizer, describe(step),
                            config.motion_dtype, run_state(plan, base, accelerator))
        accelerator.wait_for_everyone()

    def render_samples(step: int, stop: list[int]) -> None:
        if plan.prompts and (step == 0 or is_due(step, config.validation_steps)):
            if accelerator.is_main_process:
                with as_generation_sees(base, trained, plain_forward, config, step):
                    write_samples(plan, base, run, step, stop)
            accelerator.wait_for_everyone()

    def stop_if_asked(step: int, stop: list[int]) -> None:
        if stop_requested(stop, accelerator):
            save(step)
            bar.close()
            accelerator.print(f"Stopped after step {step}, and saved. Continue with\n"
                              f"  {script_command('train_model.py', '--resume', run)}")
            accelerator.end_training()
            sys.exit(exit_code(stop))

    bar = tqdm(range(start, config.max_train_steps), initial=start, total=config.max_train_steps,
               desc="training", disable=not accelerator.is_main_process, dynamic_ncols=True)
    with stop_signals() as stop:
        render_samples(start, stop)
        stop_if_asked(start, stop)
        for step in bar:
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step)
            entry = optimizer_step(plan, prepared, scheduler, inputs, optimizer, trained, accelerator, step)
            entry |= {"lr": learning_rate_at(step), "seconds": round(time.perf_counter() - began, 4)}
            if accelerator.is_main_process:
                append_log(run, entry)
                bar.set_postfix({name: f"{entry[name]:.4f}" for name in ("exemplar", "regularization")
                                 if entry[name] is not None})
            accelerator.log({name: entry[name] for name in entry if entry[name] is not None}, step=step + 1)
            if is_due(step + 1, config.checkpointing_steps):
                save(step + 1)
            stop_if_asked(step + 1, stop)
            render_samples(step + 1, stop)
            stop_if_asked(step + 1, stop)
    if accelerator.is_main_process:
        accelerator.print(movement_report(plan, trained))
        # written last: a run is finished when it has its motion weights
        save_motion(run / MOTION_NAME, trained, describe(config.max_train_steps), config.motion_dtype)
    accelerator.end_training()
    return run / MOTION_NAME


def cache_inputs(plan: Plan, base: Base, accelerator) -> Inputs:
    """Encode clips and captions on the accelerator; afterwards both encoders leave it."""
    cache_dir = Path(plan.config.cached_latent_dir or Path(plan.config.output_dir) / "cache")
    encoders = base.vae, base.pipeline.text_encoder
    for encoder in encoders:
        encoder.to(accelerator.device)
    if accelerator.is_main_process:
        captions = [caption for clip in plan.exemplars + plan.regularization for caption in clip.captions]
        for caption in dict.fromkeys(captions):
            if unseen := unseen_words(base.pipeline, caption):
                print(f"caption too long for the text encoder, not seen: \"{unseen}\"")
    with accelerator.main_process_first():   # the others then find everything there
        inputs = encode_inputs(base, plan.exemplars + plan.regularization, cache_dir,
                               lambda jobs: tqdm(jobs, desc="encoding clips and captions", dynamic_ncols=True,
                                                 disable=not jobs or not accelerator.is_main_process))
    for encoder in encoders:
        encoder.to("cpu")
    return inputs


def motion_description(plan: Plan, base: Base) -> Callable[[int], MotionInfo]:
    """Return what the motion weights of a step say about themselves, as a function of the step."""
    config, versions = plan.config, library_versions()
    return lambda step: MotionInfo(
        config.pretrained_model_path, base.fingerprint, config.trainable_modules, config.placeholder_token,
        step, sample_fps(plan), config_yaml(config), versions)


def movement_report(plan: Plan, trained: Mapping[str, Tensor]) -> str:
    """Return how far each group has moved, relative to its norm in the base."""
    moved = movement(plan.base_folder, trained, plan.selected)
    lines = [f"  {group:<16} {distance:.3%}" for group, distance in moved.items()]
    return "\n".join(["moved from the base, relative to its norm", *lines])
