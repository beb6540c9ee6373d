"""Checkpoints to resume from: trained tensors in float32, optimizer state, gradient scaler, and what made
them.

There is no random state: every random choice is a function of the step. No pickle either: tensors in
state.safetensors, the rest in state.json, each with a digest, so that damage is found and never loaded.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from models.motion_weights import STORED_DTYPES, MotionInfo, save_motion
from training.run_folder import MOTION_NAME
from training.sharding import all_whole, spread_like
from utils.errors import UserError
from utils.files import digest_of, replacing_folder, write_json
from utils.tensor_files import read_digest, read_tensors, tensor_bytes, write_tensors

TENSORS_NAME, STATE_NAME = "state.safetensors", "state.json"
# of AdamW and its 8-bit form: shaped like the parameter they belong to
MOMENTS = {"exp_avg", "exp_avg_sq", "state1", "state2"}


class Damaged(UserError):
    """A checkpoint that cannot be read; the one before it may."""


def save_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer, info: MotionInfo,
                    motion_dtype: str, state: dict[str, Any], is_writer: bool = True) -> None:
    """Write a checkpoint folder, whole or not at all.

    `trained`: the trained parameters, in the order the optimizer has them. `state`: plain JSON material.
    All processes must call this together, one of which is the writer.
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
    """Return the JSON part of a checkpoint. Raises Damaged, a UserError, if it is not as written."""
    try:
        state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        if state.pop("digest") == digest_of(state):
            return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise _damaged(folder)


def load_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Any]:
    """Set the trained parameters and the optimizer to what `folder` holds; return its JSON part.

    Raises UserError, and sets nothing, if the checkpoint is of other tensors; Damaged if it is not as
    written.
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


def _fits(optimizer_state: Mapping[int, dict[str, Any]], parameters: list[Tensor]) -> bool:
    """Say whether the optimizer can go on with this state; it would find out only in its next step."""
    moments = [(index, value) for index, values in optimizer_state.items() for name, value in values.items()
               if name in MOMENTS]
    return set(optimizer_state) <= set(range(len(parameters))) and all(
        value.shape == parameters[index].shape for index, value in moments)


def _flattened(entries: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value). 8-bit Adam has dictionaries within the state of a tensor."""
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
