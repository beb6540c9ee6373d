"""Whether a base is the one that a motion was trained on, told by its files before a weight is loaded.

Its UNet is told by a fingerprint. The noise schedule is what the training target is made of: how much noise a
timestep has, and what the network predicts.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.base_folder import kind_of_folder, scheduler_config, unet_config
from models.base_parts import loading, shapes_of, unet_files
from models.fingerprints import WHOLE, fingerprint, heads, is_related, rounded_fingerprints
from models.motion_weights import MotionInfo, other_weights
from utils.errors import UserError
from utils.files import digest_of
from utils.tensor_files import iter_tensors, read_shapes

# the values of a scheduler's config that the training target depends on, with diffusers' defaults
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "rescale_betas_zero_snr": False}


def noise_schedule(folder: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Return the values of NOISE_SCHEDULE that a base has, with its motion adapter if it has one."""
    config = scheduler_config(folder, adapter)
    return {key: config.get(key, default) for key, default in NOISE_SCHEDULE.items()}


def schedule_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the values that differ, for people; an empty text if none does.

    `before` is empty in files of earlier versions. Then no value counts as different.
    """
    return ", ".join(f"{key} was {_shown(before[key])}, is {_shown(now[key])}"
                     for key in now if key in before and before[key] != now[key])


def check_same_base(motions: Sequence[tuple[Path, MotionInfo]], folder: Path, adapter: Path | None) -> None:
    """Raise UserError if motion weights were trained on another base than the base in `folder`, as far as the
    files of the base tell. `motions`: the files of motion weights with their descriptions."""
    for path, info in motions[:1]:   # motions that are combined have the same base
        trained, kind = read_shapes(path).keys(), kind_of_folder(folder)
        if has_other_unet(info.base_fingerprint, folder, adapter,
                          lambda now: is_related(info.rounded_fingerprints, now, trained, kind)):
            raise other_weights(path, info)
    now = noise_schedule(folder, adapter)
    for path, info in motions:
        if changes := schedule_changes(info.noise_schedule, now):
            raise UserError(f"{path}: was trained on {info.base}, and this base has another noise schedule: "
                            f"{changes}. Use the base it was trained on.")


def have_one_base(first: MotionInfo, second: MotionInfo) -> bool:
    """Say whether two motions were trained on the same UNet, but for rounding to fp16."""
    whole = [info.rounded_fingerprints.get(WHOLE) for info in (first, second)]
    return first.base_fingerprint == second.base_fingerprint or whole[0] is not None and whole[0] == whole[1]


def has_other_unet(recorded: str, folder: Path, adapter: Path | None,
                   is_fine: Callable[[dict[str, str]], bool] = lambda rounded: False) -> bool:
    """Say whether the files of a base surely hold another UNet than the one with the fingerprint `recorded`,
    and none for which `is_fine` says yes, asked with its rounded fingerprints.

    The answer is no where only loading can tell: a UNet with a motion adapter is assembled from two folders,
    and diffusers may rename tensors of old files.
    """
    if adapter:
        return False
    import diffusers  # imported late: it takes seconds

    kind, config, paths = kind_of_folder(folder), unet_config(folder), unet_files(folder)
    names = shapes_of(paths).keys()
    in_files = fingerprint(iter_tensors(paths, names))
    if digest_of([in_files, *(config.get(key) for key in kind.head_keys)]) == recorded:
        return False
    with loading(folder / "unet"), torch.device("meta"):   # without memory for the weights
        unet = getattr(diffusers, kind.unet).from_config(config)
    is_certain = names == unet.state_dict().keys()
    if not is_certain or digest_of([in_files, *heads(unet, kind)]) == recorded:
        return False
    return not is_fine(rounded_fingerprints(dict(iter_tensors(paths, names)), kind, heads(unet, kind)))


def _shown(value: Any) -> str:
    return f"{len(value)} values from {value[0]} on" if isinstance(value, list) and value else str(value)
