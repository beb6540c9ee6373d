"""Checkpoints to resume from: trained tensors in float32, optimizer state, gradient scaler, and what made
them.

There is no random state: every random choice is a function of the step. No pickle either: tensors in
state.safetensors, the rest in state.json.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from models.motion_weights import MotionInfo, save_motion
from utils.errors import UserError
from utils.files import replacing_folder, write_json
from utils.run_folder import MOTION_NAME
from utils.tensor_files import read_tensors, write_tensors

TENSORS_NAME, STATE_NAME = "state.safetensors", "state.json"


def save_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer, info: MotionInfo,
                    motion_dtype: str, state: dict[str, Any]) -> None:
    """Write a checkpoint folder, whole or not at all.

    `trained`: the trained parameters, in the order the optimizer has them. `state`: plain JSON material.
    """
    tensors, scalars = {f"weight/{name}": tensor.detach() for name, tensor in trained.items()}, {}
    for name, value in _flattened(optimizer.state_dict()["state"], "optimizer"):
        (tensors if isinstance(value, Tensor) else scalars)[name] = value
    with replacing_folder(folder) as partial:
        write_tensors(partial / TENSORS_NAME, tensors)
        save_motion(partial / MOTION_NAME, trained, info, motion_dtype)
        write_json(partial / STATE_NAME, {**state, "step": info.step, "optimizer": scalars})


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part of a checkpoint. Raises UserError if it is damaged."""
    try:
        state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        return state if isinstance(state["step"], int) else _damaged(folder)
    except (OSError, ValueError, KeyError, TypeError):
        _damaged(folder)


def load_checkpoint(folder: Path, trained: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Any]:
    """Set the trained parameters and the optimizer to what `folder` holds; return its JSON part.

    Raises UserError, and sets nothing, if the checkpoint is damaged or of other tensors.
    """
    state = read_state(folder)
    try:
        tensors = read_tensors(folder / TENSORS_NAME)
    except UserError:
        _damaged(folder)
    weights = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
    if set(weights) != set(trained) or any(weights[name].shape != trained[name].shape for name in trained):
        raise UserError(f"{folder}: holds other tensors than this run trains. Resume with the run's own "
                        f"config.")
    entries = {name: value for name, value in {**state["optimizer"], **tensors}.items()
               if name.startswith("optimizer/")}
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _nested(entries)})
    return state


def _flattened(entries: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value).

    8-bit Adam has dictionaries within the state of a tensor, and tables that these share: they are copied.
    """
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", value.clone() if isinstance(value, Tensor) and value.dim() else value


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


def _damaged(folder: Path):
    raise UserError(f"{folder}: is damaged. Remove it; the run then resumes from the checkpoint before it.")
