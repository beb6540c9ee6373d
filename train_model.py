"""Teach a text-to-video model a motion from a few clips.

    python train_model.py --config config.yaml [key=value ...] [--resume [RUN]] [--dry-run [--frames DIR]]
    python train_model.py --help-config [WORD]         the keys of a config
    python train_model.py --new-config my.yaml         asks five questions, and writes a config
    python train_model.py --compare RUN RUN ...        lays the curves of several runs over each other

The config is checked and the clips are listed before the base is loaded. The base is frozen, except for the
weights that trainable_modules names. The result is motion.safetensors in a new folder under output_dir.
Source: Materzynska et al. 2023, arXiv 2312.04966.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

# --help and config errors should not wait for torch and diffusers, so the modules that need them are imported
# in the functions that use them
from training.config import Config
from training.config_loading import examine_config, flat_config
from training.run_folder import (
    CONFIG_NAME,
    create_run,
    find_run,
    has_unfinished_run,
    hold_run,
    named_run,
    stretch_note,
)
from utils.commands import script_command
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import expanded
from utils.hub import check_upload
from utils.processes import LONGEST_WAIT, is_first_process, num_processes
from utils.prompt_lists import LIST_SUFFIXES


def main() -> None:
    args = parse_args()
    if args.help_config is not None or args.new_config or args.compare:
        other_errand(args)
        return
    config, notes, problems, unknown = examine_config(config_path(args), args.overrides)
    from training.checkpoint import check_continuation
    from training.plan import make_plan
    from training.plan_report import estimate_report, plan_report
    from utils.devices import resolve_precision

    precision, more_notes = resolve_precision(config.mixed_precision)
    config = replace(config, mixed_precision=precision)
    wanted_run, run = args.resume or config.resume_from_checkpoint, None
    if not args.resume and wanted_run == "latest" and not has_unfinished_run(config):
        # as other trainers read this key: the same config starts a job, and continues it once it was stopped
        wanted_run = None
        notes.append(f"resume_from_checkpoint: {config.output_dir} has no unfinished run of "
                     f"{config.subject!r}, so a new one starts")
    if wanted_run and not problems:
        run = attempt(lambda: find_run(config, wanted_run), None, problems)
        notes += stretch_note(run, config) if run else []
    if config.push_to_hub and not problems:
        attempt(lambda: check_upload(config.push_to_hub), None, problems)
    plan = make_plan(config, download=not (args.dry_run or problems), known_problems=problems, run=run,
                     unknown_keys=unknown)
    if is_first_process():
        print("\n".join([*notes, *more_notes, plan_report(plan)]), flush=True)
    if run:
        check_continuation(run, plan, num_processes())
    if args.dry_run:
        if is_first_process():
            print(estimate_report(plan), flush=True)
            if args.frames:
                show_frames(plan, Path(args.frames))
        return

    accelerator, run = start(config, run)
    if accelerator.is_main_process:
        held = hold_run(run)   # noqa: F841 (the lock is held as long as this variable lives)
    from models.base import enough_memory
    from training.loop import train

    accelerator.print(f"results: {run}")
    with enough_memory("Lower train_data.width, .height or .n_sample_frames, keep gradient_checkpointing: "
                       "true, or set use_8bit_adam: true."):
        motion_path = train(plan, accelerator, run)
    accelerator.print(f"learned: {motion_path}\nsee it with\n  {next_command(config, run)}")
    if config.push_to_hub and accelerator.is_main_process:
        from training.publishing import publish

        publish(motion_path, config.push_to_hub)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Teach a text-to-video model a motion from a few clips.",
        epilog="--help-config lists every key of the config with its meaning and default."))
    add = parser.add_argument
    add("--config", type=expanded, metavar="FILE",
        help="YAML config; with --resume RUN, default that run's own")
    add("overrides", nargs="*", metavar="key=value", help="e.g. train_data.fps=8 max_train_steps=100")
    add("--resume", nargs="?", type=expanded, const="latest", metavar="RUN",
        help="go on with the newest unfinished run of this subject, or with the run folder named")
    add("--dry-run", action="store_true",
        help="check everything, list the clips, estimate memory and disk, and stop")
    add("--frames", metavar="DIR", help="with --dry-run: write every frame that will be trained on as a PNG")
    add("--help-config", nargs="?", const="", metavar="WORD",
        help="list the keys of the config with meaning and default, all or those about WORD, and stop")
    add("--new-config", type=expanded, metavar="FILE",
        help="ask five questions, write a config that answers them, and stop")
    add("--compare", nargs="+", type=expanded, metavar="RUN",
        help="write a page with the curves of several runs and what differs in their configs, and stop")
    args = parser.parse_intermixed_args()   # key=value before and behind flags
    if args.frames and not args.dry_run:
        raise UserError("--frames writes what would be trained on, without training. Add --dry-run.")
    if args.resume and "=" in args.resume and not Path(args.resume).exists():
        # `--resume key=value`: argparse cannot know that RUN was left out
        args.overrides, args.resume = [args.resume, *args.overrides], "latest"
    return args


def other_errand(args: argparse.Namespace) -> None:
    """Do what needs no training."""
    if args.help_config is not None:
        from training.config_help import config_help

        print(config_help(args.help_config))
    elif args.new_config:
        from training.new_config import ask_for_config

        ask_for_config(Path(args.new_config))
    else:
        from training.compare_runs import write_comparison

        page = write_comparison([Path(run) for run in args.compare])
        print(f"open {page.absolute().as_uri()}")


def config_path(args: argparse.Namespace) -> Path:
    """Return the path of the config: the one given, or that of the run to resume."""
    if args.config:
        return Path(args.config)
    if args.resume in (None, "latest"):
        raise UserError("--config is missing. Name a YAML config, such as config.yaml.")
    return named_run(args.resume) / CONFIG_NAME


def show_frames(plan, folder: Path) -> None:
    """Write every frame of the clips of `plan` into `folder`."""
    from tqdm import tqdm

    from training.frame_files import write_frames

    write_frames(plan.exemplars, plan.regularization, folder,
                 lambda clips: tqdm(clips, desc="writing frames", leave=False, dynamic_ncols=True))
    print(f"frames: {folder}")


def start(config: Config, run: Path | None):
    """Return the accelerator and the run folder, which is new unless a run is resumed."""
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

    from utils.devices import has_gpu

    state = PartialState(cpu=not has_gpu(), timeout=LONGEST_WAIT)
    agreed = [str(run or create_run(config)) if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(agreed)
    run = Path(agreed[0])
    # DDP would send buffers in every pass. Processes that draw clips of different shapes take different
    # numbers of passes, and would wait for each other for ever. Buffers are constants, so none is sent
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, log_with=config.report_to,
                              project_dir=run, kwargs_handlers=[ddp])
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and not accelerator.is_fsdp2:
        accelerator.print("FSDP needs GPUs, and there are none: every process holds the whole network.")
    if config.report_to:
        accelerator.init_trackers(config.subject, *tracked(config, run))
    return accelerator, run


def tracked(config: Config, run: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what trackers record of a run: its settings, and what makes a resumed run the same one there."""
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value)
             for key, value in flat_config(config).items()}   # TensorBoard takes nothing else
    return {"run": run.name, **plain}, {"wandb": {"id": run.name, "name": run.name, "resume": "allow"}}


def next_command(config: Config, run: Path) -> str:
    """Return the command that renders the learned motion."""
    given = config.validation_data.prompt or ["a person doing the V* motion"]
    files = [text for text in given if text.lower().endswith(LIST_SUFFIXES)]
    prompts = files[0] if files else "|".join(given)
    return script_command("generate_pretrained.py", "-m", run, "-o", run / "videos", "-p", prompts,
                          "-s", config.seed)


if __name__ == "__main__":
    run_script(main)
