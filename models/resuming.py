"""Going on with a run: what a continuation must find unchanged, and loading the newest checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.base import Base
from models.checkpoint import load_checkpoint, read_state
from models.plan import Plan
from utils.errors import UserError
from utils.run_folder import checkpoints


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
    if not checkpoints(run):
        return
    before, clips, problems = read_state(checkpoints(run)[-1]), describe_clips(plan), []
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


def load_newest(run: Path, base: Base, trained: Mapping[str, Tensor], optimizer, accelerator) -> int:
    """Load the newest checkpoint of `run`; return the number of steps it has taken, 0 without a checkpoint.

    Raises UserError if it is damaged or of another base.
    """
    if not checkpoints(run):
        return 0
    folder = checkpoints(run)[-1]
    if read_state(folder)["base_fingerprint"] != base.fingerprint:
        raise UserError(f"{run}: was trained on another base than {base.name} is now. Put that back, or "
                        f"start a new run.")
    state = load_checkpoint(folder, trained, optimizer.optimizer)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    accelerator.print(f"resuming {run} after step {state['step']}")
    return state["step"]
