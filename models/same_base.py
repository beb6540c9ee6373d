"""Whether a base is the one that a motion was trained on, told by its files before a weight is loaded.

Its UNet is told by a fingerprint (models/base.py). The noise schedule is what the training target is made of:
how much noise a timestep has, and what the network predicts of it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.base_folder import scheduler_config
from models.motion_weights import MotionInfo
from utils.errors import UserError

# the values of a scheduler's config that the training target depends on, with diffusers' defaults
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "rescale_betas_zero_snr": False}


def noise_schedule(folder: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Return the values of NOISE_SCHEDULE that a base has, with its motion adapter if it has one."""
    config = scheduler_config(folder, adapter)
    return {key: config.get(key, default) for key, default in NOISE_SCHEDULE.items()}


def schedule_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the values that differ, for people; nothing if all are the same or if `before` is empty, as
    files of earlier versions have it."""
    return ", ".join(f"{key} was {_shown(before[key])}, is {_shown(now[key])}"
                     for key in now if key in before and before[key] != now[key])


def check_schedules(motions: Iterable[tuple[Path, MotionInfo]], folder: Path, adapter: Path | None) -> None:
    """Raise UserError if one of the files of motion weights was trained with another noise schedule than that
    of the base in `folder`."""
    now = noise_schedule(folder, adapter)
    for path, info in motions:
        if changes := schedule_changes(info.noise_schedule, now):
            raise UserError(f"{path}: was trained on {info.base}, and this base has another noise schedule: "
                            f"{changes}. Use the base it was trained on.")


def _shown(value: Any) -> str:
    return f"{len(value)} values from {value[0]} on" if isinstance(value, list) and value else str(value)
