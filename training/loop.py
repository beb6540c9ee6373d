"""The training run: set up, resume, take the steps, save, render samples, write the motion weights.

Everything random is a function of (seed, step). A run that is stopped anywhere and resumed therefore
continues as if it had not been stopped.
"""

import shutil
import signal
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from models.base import enough_memory
from models.base_parts import unet_files
from models.motion_weights import MotionInfo, library_versions, relative_change, save_motion
from models.same_base import noise_schedule
from rendering.gallery import write_gallery
from training.checkpoint import load_newest, run_state, save_checkpoint
from training.config import is_due
from training.config_loading import config_yaml
from training.held_out_loss import held_out_losses
from training.plan import Plan, sample_fps
from training.run_folder import (
    MOTION_NAME,
    append_log,
    checkpoint_dir,
    later_samples,
    remove_leftovers,
    remove_old_checkpoints,
    rewind_log,
    write_config,
)
from training.run_page import PAGE_NAME, RunPage, show_scores, watched
from training.setup import Training, set_up
from training.sharding import all_whole
from training.step import optimizer_step
from training.validation import as_generation_sees, write_samples
from utils.commands import training_command
from utils.wording import counted

SHOWN = ("exemplar", "regularization")   # losses shown beside the progress bar


def train(plan: Plan, accelerator, run: Path) -> Path:
    """Carry out `plan` in the folder `run`, from its newest checkpoint if it has one.

    Returns the path of the motion weights. On Ctrl-C or SIGTERM it saves a checkpoint and exits.
    """
    config, training = plan.config, set_up(plan, accelerator, run)
    start = load_newest(training)
    stale = later_samples(run, start)
    accelerator.wait_for_everyone()   # the first process removes what all have to know of
    if accelerator.is_main_process:   # a killed process leaves half-written files, and a log ahead
        remove_leftovers(run)
        write_config(config, run)   # not before the checkpoint is known to be of this base
        remove_old_checkpoints(run, config.keep_checkpoints)
        rewind_log(run, start or -1)   # the held-out loss of step 0 is logged too
        for folder in stale.values():
            shutil.rmtree(folder)
        if stale:
            show_scores(run, None)
            if not config.validation_steps:
                print(f"removed the samples of {counted(len(stale), 'step')} after step {start}: the run "
                      f"takes these steps again, and validation_steps asks for no samples")

    bar = tqdm(range(start, config.max_train_steps), initial=start, total=config.max_train_steps,
               desc="training", disable=not accelerator.is_main_process, dynamic_ncols=True)
    accelerator.print(f"watch it: {(run / PAGE_NAME).absolute().as_uri()}")
    with watched(plan, run, start, accelerator.is_main_process) as page:
        with stop_signals() as stop:
            if start == 0 and plan.held_out:
                report(training, {"step": 0, **held_out_losses(training)}, bar, page)
            render_samples(training, start, stale, stop, page)
            stop_if_asked(training, start, stop)
            for step in bar:
                report(training, take_step(training, step), bar, page)
                if is_due(step + 1, config.checkpointing_steps):
                    save(training, step + 1)
                stop_if_asked(training, step + 1, stop)
                render_samples(training, step + 1, stale, stop, page)
                stop_if_asked(training, step + 1, stop)
        trained = all_whole(training.trained, accelerator.is_main_process)
        if accelerator.is_main_process:
            moved = relative_change(unet_files(plan.base_folder, plan.adapter_folder), trained,
                                    plan.selected, plan.lora)
            accelerator.print("\n".join(["moved from the base, relative to its norm", *(
                f"  {group:<16} {distance:.3%}" for group, distance in moved.items())]))
            # written last: a run is finished when it has its motion weights
            save_motion(run / MOTION_NAME, trained, motion_info(training, config.max_train_steps),
                        config.motion_dtype)
    accelerator.end_training()
    return run / MOTION_NAME


def take_step(training: Training, step: int) -> dict:
    """Take optimizer step `step`, counted from 0, and return its log entry."""
    began = time.perf_counter()
    entry = optimizer_step(training, step)
    entry["seconds"] = round(time.perf_counter() - began, 4)
    if training.plan.held_out and is_due(step + 1, training.plan.config.held_out_steps):
        entry |= held_out_losses(training)
    return entry


def report(training: Training, entry: dict, bar: tqdm, page: RunPage | None = None) -> None:
    """Add a step to the log, the page and the trackers, and show its losses."""
    known = {name: value for name, value in entry.items() if value is not None}
    if training.accelerator.is_main_process:
        append_log(training.run, entry)
        bar.set_postfix({name: f"{known[name]:.4f}" for name in SHOWN if name in known})
    if page:
        page.add(entry)
    training.accelerator.log(known, step=entry["step"])


def save(training: Training, step: int) -> None:
    """Write the checkpoint of `step`, unless the folder is there already."""
    accelerator, config = training.accelerator, training.plan.config
    folder = checkpoint_dir(training.run, step)
    if not folder.exists():
        save_checkpoint(folder, training.trained, training.optimizer.optimizer, motion_info(training, step),
                        config.motion_dtype, run_state(training), accelerator.is_main_process)
        if accelerator.is_main_process:
            remove_old_checkpoints(training.run, config.keep_checkpoints)
    accelerator.wait_for_everyone()


def render_samples(training: Training, step: int, stale: Container[int], stop: list[int],
                   page: RunPage | None) -> None:
    """Render the sample prompts, if they are due at `step`. The samples of step 0 show the untuned base.

    `stale`: steps that had samples before a resumed run took them again. They get samples again.
    """
    plan, base, due = training.plan, training.base, training.plan.config.validation_steps
    is_wanted = is_due(step, due) or step in stale if step else plan.config.validation_data.before_training
    if not plan.prompts or not due or not is_wanted:
        return
    accelerator = training.accelerator
    try:
        with (as_generation_sees(base, training.trained, training.plain_forward, plan.config, step),
              enough_memory("Lower validation_data.width, .height, .num_frames or .batch_size, or set "
                            "validation_steps: null and render from the checkpoints.")):
            write_samples(plan, base, training.run, step, stop, page.keep_fresh if page else lambda: None,
                          (accelerator.process_index, accelerator.num_processes))
    except Exception:
        # Whatever went wrong is raised again. Before that, a run of one process saves what it has learned. Of
        # several processes the others are still rendering, and could not take part in saving.
        if step and accelerator.num_processes == 1:
            save(training, step)
        raise
    accelerator.wait_for_everyone()
    if page:
        write_gallery(training.run)   # of all steps, side by side
        page.write()


def stop_if_asked(training: Training, step: int, stop: list[int]) -> None:
    """If a signal has reached any process, save, say how to continue, and exit."""
    accelerator, is_asked = training.accelerator, bool(stop)
    if accelerator.num_processes > 1:   # all processes learn of it in the same step
        is_asked = bool(accelerator.reduce(torch.tensor(float(is_asked), device=accelerator.device), "sum"))
    if is_asked:
        save(training, step)
        command = training_command("--resume", training.run, num_processes=accelerator.num_processes)
        accelerator.print(f"\nStopped after step {step}, and saved. Continue with\n  {command}")
        accelerator.end_training()
        sys.exit(128 + (stop[0] if stop else signal.SIGTERM))   # the code of a process that a signal ended


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list given. The second signal raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, _) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def motion_info(training: Training, step: int) -> MotionInfo:
    """Return the description that goes into the motion weights of `step`."""
    plan, config = training.plan, training.plan.config
    return MotionInfo(
        config.pretrained_model_path, training.base.fingerprint, config.trainable_modules,
        config.placeholder_token, step, sample_fps(plan), config_yaml(config), library_versions(), plan.lora,
        noise_schedule(plan.base_folder, plan.adapter_folder), training.base.rounded_fingerprints)
