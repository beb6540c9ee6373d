"""Checkpoints: saving one, loading the newest whole one, and refusing to resume what has changed.

A checkpoint holds the trained tensors in float32, the optimizer's state, the gradient scaler, and a
description of what made it. It holds no random state, because every random choice is a function of the step.
It is not a pickle: tensors are in state.safetensors and the rest is in state.json. Both carry a digest, so
that damage is found and never loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from models.motion_weights import STORED_DTYPES, MotionInfo, save_motion
from models.same_base import has_other_unet, noise_schedule, schedule_changes
from training.plan import Plan
from training.run_folder import CONFIG_NAME, MOTION_NAME, checkpoints, set_aside
from training.sharding import all_whole, spread_like
from utils.commands import training_command
from utils.errors import UserError
from utils.files import digest_of, replacing_folder, short_names, write_json
from utils.tensor_files import read_digest, read_tensors, tensor_bytes, write_tensors

if TYPE_CHECKING:   # it imports diffusers, and check_continuation should not wait for that
    from training.setup import Training

TENSORS_NAME, STATE_NAME = "state.safetensors", "state.json"
# state of AdamW and of its 8-bit form that has the shape of its parameter
MOMENTS = {"exp_avg", "exp_avg_sq", "state1", "state2"}


class Damaged(UserError):
    """This checkpoint cannot be read; the one before it may be whole."""


def save_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer, info: MotionInfo,
                    motion_dtype: str, state: dict[str, Any], is_writer: bool = True) -> None:
    """Write a checkpoint folder, whole or not at all.

    `trained`: the trained parameters, in the optimizer's order. `state`: plain JSON material.
    All processes must call this together, and one of them is the writer.
    """
    tensors, scalars = {f"weight/{name}": tensor.detach() for name, tensor in trained.items()}, {}
    for name, value in _flattened(optimizer.state_dict()["state"], "optimizer"):
        (tensors if isinstance(value, Tensor) else scalars)[name] = value
    tensors = all_whole(tensors, is_writer)
    if not is_writer:
        return
    trained = {name: tensors[f"weight/{name}"] for name in trained}
    num_values = sum(tensor.numel() for tensor in trained.values())
    num_bytes = tensor_bytes(tensors) + num_values * STORED_DTYPES[motion_dtype].itemsize
    with replacing_folder(folder, num_bytes) as partial:
        digest = write_tensors(partial / TENSORS_NAME, tensors)
        save_motion(partial / MOTION_NAME, trained, info, motion_dtype)
        content = {**state, "step": info.step, "optimizer": scalars, "tensors": digest}
        write_json(partial / STATE_NAME, {**content, "digest": digest_of(content)})


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part of a checkpoint. Raises Damaged if its content is not the content written."""
    try:
        state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        if state.pop("digest") == digest_of(state):
            return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise _damaged(folder)


def load_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Any]:
    """Set the trained parameters and the optimizer's state from `folder`, and return its JSON part.

    Raises UserError if the checkpoint has other tensors, and Damaged if its content is not the content
    written. Nothing is set then.
    """
    state = read_state(folder)
    try:
        tensors = read_tensors(folder / TENSORS_NAME)
        is_its_own = read_digest(folder / TENSORS_NAME) == state["tensors"]
    except (UserError, KeyError):
        raise _damaged(folder) from None
    if not is_its_own:
        raise _damaged(folder)
    weights = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
    if set(weights) != set(trained) or any(weights[name].shape != trained[name].shape for name in trained):
        raise UserError(f"{folder}: holds other tensors than this run trains. Resume with the run's own "
                        f"config.")
    entries = {name: value for name, value in {**state["optimizer"], **tensors}.items()
               if name.startswith("optimizer/")}
    optimizer_state = _nested(entries)
    if not _fits(optimizer_state, list(trained.values())):
        raise _damaged(folder)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(spread_like(parameter, weights[name]))
    for index, parameter in enumerate(trained.values()):
        for name in MOMENTS & optimizer_state.get(index, {}).keys():
            optimizer_state[index][name] = spread_like(parameter, optimizer_state[index][name])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state})
    return state


def run_state(training: Training) -> dict:
    """Return what a checkpoint records beside its tensors, as plain JSON material."""
    accelerator = training.accelerator
    return {
        "base_fingerprint": training.base.fingerprint,
        "encoders": training.inputs.made_by,
        "noise_schedule": noise_schedule(training.plan.base_folder, training.plan.adapter_folder),
        "clips": describe_clips(training.plan),
        "num_processes": accelerator.num_processes,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
    }


def describe_clips(plan: Plan) -> dict[str, list]:
    """Return {role/name: [digest, captions]} for all clips, in the order in which they are numbered.

    Of two names that are alike, the folders in front tell which is which. Parts of a file are numbered, and
    also have their first frame and their number of frames.
    """
    roles = {"exemplar": plan.exemplars, "regularization": plan.regularization,
             **{f"held-out {role}": clips for role, clips in plan.held_out.items()}}
    names = {role: short_names(clip.path for clip in clips) for role, clips in roles.items()}
    described, times = {}, Counter()
    for role, clips in roles.items():
        for clip in clips:
            part = [[clip.frames[0], len(clip.frames)]] if clip.is_part else []
            name = f"{role}/{names[role][clip.path]}"
            times[name] += 1
            name += f" ({times[name]})" * (times[name] > 1)
            described[name] = [clip.digest, list(clip.captions), *part]
    return described


def check_continuation(run: Path, plan: Plan, num_processes: int) -> None:
    """Raise UserError, before anything is loaded, if `run` cannot continue with this plan."""
    before, clips, problems = newest_state(run), describe_clips(plan), []
    if before is None:
        return
    if changed := changed_clips(before["clips"], clips):
        problems.append(f"{run}: was trained on other clips or captions: {', '.join(changed)}. Put them "
                        f"back, or start a new run.")
    elif identities(before["clips"]) != identities(clips):
        problems.append(f"{run}: was trained on the same clips in another order, and clips are drawn by "
                        f"their number. Name the folders in the order of {run / CONFIG_NAME}.")
    if plan.base_folder:
        base = plan.base_folder, plan.adapter_folder
        if has_other_unet(before["base_fingerprint"], *base):
            problems.append(other_base(run, plan.config.pretrained_model_path))
        elif changes := schedule_changes(before.get("noise_schedule", {}), noise_schedule(*base)):
            problems.append(f"{run}: was trained on a base with another noise schedule: {changes}. Put that "
                            f"base back, or start a new run.")
    if before["num_processes"] != num_processes:
        command = training_command("--resume", run, num_processes=before["num_processes"])
        problems.append(f"{run}: was trained by {before['num_processes']} processes, not {num_processes}. "
                        f"Start a new run, or resume with as many: {command}")
    if problems:
        raise UserError(*problems)


def changed_clips(before: Mapping[str, list], now: Mapping[str, list]) -> list[str]:
    """Return the names of the clips that are in one of two descriptions alone, or not with the same
    content."""
    counts = Counter(identities(before)), Counter(identities(now))
    differing = (counts[0] - counts[1]) | (counts[1] - counts[0])
    return sorted({name for described in (before, now)
                   for name, identity in zip(described, identities(described)) if identity in differing})


def identities(described: Mapping[str, list]) -> list[str]:
    """Return what tells each described clip from the others: its role, its name and its content.

    The folders in front of a file's name may have been renamed.
    """
    return [digest_of([name.partition("/")[0], name.rpartition("/")[2], *content])
            for name, content in described.items()]


def newest_state(run: Path) -> dict | None:
    """Return the JSON part of the newest checkpoint whose JSON can be read; None if there is none."""
    for folder in reversed(checkpoints(run)):
        try:
            return read_state(folder)
        except Damaged:
            continue
    return None


def load_newest(training: Training) -> int:
    """Load the newest whole checkpoint of the run and return its number of steps; 0 if there is none.

    Newer checkpoints that are damaged are set aside and named. Raises UserError if the run has another base.
    """
    run, accelerator = training.run, training.accelerator
    with accelerator.main_process_first():   # the other processes then find only whole checkpoints
        while saved := checkpoints(run):
            try:
                return load_state(saved[-1], training)
            except Damaged:
                if not accelerator.is_main_process:
                    raise
                before = saved[-2].name if saved[:-1] else "the start"
                print(f"{saved[-1]}: is damaged, and set aside as {set_aside(saved[-1]).name}. Going on from "
                      f"{before}.")
    return 0


def load_state(folder: Path, training: Training) -> int:
    """Load one checkpoint and return its step. Raises UserError for another base, Damaged if it is
    damaged."""
    base, accelerator = training.base, training.accelerator
    before, encoders = read_state(folder), training.inputs.made_by
    # earlier versions did not write the encoders
    if before["base_fingerprint"] != base.fingerprint or before.get("encoders", encoders) != encoders:
        raise UserError(other_base(folder.parent, base.name))
    state = load_checkpoint(folder, training.trained, training.optimizer.optimizer)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    accelerator.print(f"resuming {folder.parent} after step {state['step']}")
    return state["step"]


def other_base(run: Path, name: str) -> str:
    return f"{run}: was trained on another base than {name} is now. Put that back, or start a new run."


def _fits(optimizer_state: Mapping[int, dict[str, Any]], parameters: list[Tensor]) -> bool:
    """Say whether this state fits the parameters. The optimizer itself would fail only in its next step."""
    moments = [(index, value) for index, values in optimizer_state.items() for name, value in values.items()
               if name in MOMENTS]
    return set(optimizer_state) <= set(range(len(parameters))) and all(
        value.shape == parameters[index].shape for index, value in moments)


def _flattened(entries: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of nested dictionaries, such as 8-bit Adam has in the state of a tensor."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", value


def _nested(entries: Mapping[str, Any]) -> dict[int, Any]:
    """Undo `_flattened`: optimizer/0/exp_avg -> {0: {"exp_avg": ...}}."""
    state: dict[int, Any] = {}
    for path, value in entries.items():
        _, index, *keys, last = path.split("/")
        place = state.setdefault(int(index), {})
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
    return state


def _damaged(folder: Path) -> Damaged:
    return Damaged(f"{folder}: is damaged. Remove it; the run then resumes from the checkpoint before it.")
