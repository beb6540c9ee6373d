"""Going on with a run: what a continuation must find unchanged, and loading the newest checkpoint that is
whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from training.checkpoint import Damaged, load_checkpoint, read_state
from training.plan import Plan
from training.run_folder import checkpoints, set_aside
from utils.errors import UserError

if TYPE_CHECKING:   # it imports diffusers, and whoever only asks whether a run can go on should not wait
    from models.base import Base


def run_state(plan: Plan, base: Base, accelerator) -> dict:
    """Return what a checkpoint says beside its tensors, plain JSON material."""
    return {
        "base_fingerprint": base.fingerprint,
        "clips": describe_clips(plan),
        "num_processes": accelerator.num_processes,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
    }


def describe_clips(plan: Plan) -> dict[str, list]:
    """Return {role/name: [digest, captions]} of all clips."""
    roles = {"exemplar": plan.exemplars, "regularization": plan.regularization}
    return {f"{role}/{clip.path.name}": [clip.digest, list(clip.captions)]
            for role, clips in roles.items() for clip in clips}


def check_continuation(run: Path, plan: Plan, num_processes: int) -> None:
    """Raise UserError, before anything is loaded, if `run` cannot go on with this plan."""
    before, clips, problems = newest_state(run), describe_clips(plan), []
    if before is None:
        return
    names = sorted({*before["clips"], *clips})
    changed = [name for name in names if before["clips"].get(name) != clips.get(name)]
    if changed:
        problems.append(f"{run}: was trained on other clips or captions: {', '.join(changed)}. Put them "
                        f"back, or start a new run.")
    if before["num_processes"] != num_processes:
        problems.append(f"{run}: was trained by {before['num_processes']} processes, not {num_processes}. "
                        f"Resume with as many, or start a new run.")
    if problems:
        raise UserError(*problems)


def newest_state(run: Path) -> dict | None:
    """Return the JSON part of the newest checkpoint in which it can be read; None if there is none."""
    for folder in reversed(checkpoints(run)):
        try:
            return read_state(folder)
        except Damaged:
            continue
    return None


def load_newest(run: Path, base: Base, trained: Mapping[str, Tensor], optimizer, accelerator) -> int:
    """Load the newest checkpoint of `run` that is whole; return the number of steps it has taken, else 0.

    Damaged ones on the way to it are set aside, and named. Raises UserError if it is of another base.
    """
    with accelerator.main_process_first():   # the others then find only what is whole
        while saved := checkpoints(run):
            try:
                return load_state(saved[-1], base, trained, optimizer, accelerator)
            except Damaged:
                if not accelerator.is_main_process:
                    raise
                before = saved[-2].name if saved[:-1] else "the start"
                print(f"{saved[-1]}: is damaged, and set aside as {set_aside(saved[-1]).name}. Going on from "
                      f"{before}.")
    return 0


def load_state(folder: Path, base: Base, trained: Mapping[str, Tensor], optimizer, accelerator) -> int:
    """Load one checkpoint; return its step. Raises UserError if it is of another base, Damaged if damaged."""
    if read_state(folder)["base_fingerprint"] != base.fingerprint:
        raise UserError(f"{folder.parent}: was trained on another base than {base.name} is now. Put that "
                        f"back, or start a new run.")
    state = load_checkpoint(folder, trained, optimizer.optimizer)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    accelerator.print(f"resuming {folder.parent} after step {state['step']}")
    return state["step"]
