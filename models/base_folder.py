"""What is known of a base before a weight is loaded: its folder, its tensors, and the sizes and lengths it
was made for.

A base is a diffusers folder of a kind in models/kinds.py, or the id of one on the Hugging Face hub. An
AnimateDiff base can also be an image model and a motion adapter, each a folder or a hub id: `adapter` is then
the adapter's folder, and None for all other bases.
"""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from models.base_check import check_adapter_config, check_adapter_folder, check_base_folder, check_index
from models.base_kind import BaseKind
from models.base_parts import (
    CLASSES,
    INDEX_NAME,
    LEVELS,
    assembled_config,
    loading,
    part_config,
    read_index,
    shapes_of,
    unet_files,
    weight_files,
)
from models.hub import adapter_files, files_to_download, hub_folder, is_hub_id
from models.kinds import kind_of_classes
from models.single_files import refuse_file
from utils.errors import UserError, attempt

HUB_ALIASES = {"zs": "cerspense/zeroscope_v2_576w"}
# width and height in pixels that a base was made for, where its folder says the size of an earlier base
NATIVE_SIZES = {
    "zeroscope_v2_576w": (576, 320), "zeroscope_v2_XL": (1024, 576), "potat1": (1024, 576),
    "zeroscope_v2_dark_30x448x256": (448, 256), "zeroscope_v2_30x448x256": (448, 256)}


def find_base(base: str, download: bool = True, adapter: str | None = None) -> Path | None:
    """Return the local folder of `base`, downloading a hub id if need be; HF_HUB_OFFLINE is honoured.

    `adapter`: the motion adapter that it is used with, as the user gave it. Without `download`, None stands
    for a hub id that has not been downloaded yet. Raises UserError with every part that is missing, or if
    `base` is not a text-to-video model this program can train.
    """
    base, has_adapter = HUB_ALIASES.get(base, base), adapter is not None
    check = partial(check_base_folder, has_adapter=has_adapter)
    if is_hub_id(base):
        check_first = partial(check_index, base=base, has_adapter=has_adapter)
        fetch = partial(hub_folder, base, INDEX_NAME, check_first, files_to_download)
        return _local_folder(fetch, check, download)
    folder = Path(base)
    refuse_file(base)
    if not os.path.isdir(folder):   # unlike Path.is_dir, no error where a name is too long to be one
        raise UserError(f"{base}: does not exist. Name a diffusers folder or a hub id such as "
                        f"{HUB_ALIASES['zs']}.")
    _raise(check(folder))
    return folder


def find_adapter(adapter: str | None, base: Path, download: bool = True) -> Path | None:
    """Return the local folder of the motion adapter that goes with the image model in `base`, as find_base
    does; None where there is no adapter."""
    if adapter is None:
        return None
    check = partial(check_adapter_folder, base=base)
    if is_hub_id(adapter):
        check_first = partial(check_adapter_config, adapter=adapter)
        fetch = partial(hub_folder, adapter, "config.json", check_first, adapter_files)
        return _local_folder(fetch, check, download)
    refuse_file(adapter)
    if not os.path.isdir(adapter):
        raise UserError(f"{adapter}: does not exist. Name the folder of a MotionAdapter of diffusers or a "
                        f"hub id, as motion_adapter_path (generate_pretrained.py: --adapter).")
    _raise(check(Path(adapter)))
    return Path(adapter)


def _local_folder(fetch, check, download: bool) -> Path | None:
    """Return the folder of a hub model: the copy here if it is whole, else a download if that is wanted."""
    folder = fetch(download=False)
    if folder is not None and not check(folder):
        return folder
    if not download:
        return None
    folder = fetch(download=True)
    _raise(check(folder))
    return folder


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)


def kind_of_folder(folder: Path) -> BaseKind:
    """Return the kind of base that a checked folder is, or becomes with a motion adapter."""
    index = read_index(folder)
    return kind_of_classes(index["_class_name"], index["unet"][1])


def has_own_motion(base: str, download: bool = False) -> bool:
    """Say whether `base` is a text-to-video model, which needs no motion adapter.

    A hub id that is not on this machine is fetched if `download` is true, and is unknown otherwise.
    """
    return attempt(lambda: find_base(base, download), None, []) is not None


def needs_adapter(base: str) -> bool:
    """Say whether `base` is an image model on this machine, which makes videos only with a motion adapter."""
    return attempt(lambda: find_base(base, download=False, adapter="to be named"), None, []) is not None


def pipeline_index(folder: Path, scheduler: str) -> dict[str, Any]:
    """Return a model_index.json that stock diffusers reads: only the library and the class of each part.

    `scheduler`: the class of the scheduler.
    """
    kind, index = kind_of_folder(folder), read_index(folder)
    versions = {name: value for name, value in index.items() if name == "_diffusers_version"}
    parts = {**CLASSES, "unet": ("diffusers", kind.unet), "scheduler": ("diffusers", scheduler),
             **dict.fromkeys(kind.empty_parts, (None, None))}
    return {"_class_name": kind.pipeline, **versions, **{part: list(names) for part, names in parts.items()}}


def scheduler_config(folder: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Return the config of the base's scheduler, with its class. With an adapter, the noise levels are those
    that the adapter was trained with."""
    own = part_config(folder, "scheduler")
    if adapter is None:
        return {**own, "_class_name": read_index(folder)["scheduler"][1]}
    kept = {key: own[key] for key in ("prediction_type", "num_train_timesteps") if key in own}
    return {**kind_of_folder(folder).scheduler, **kept}


def unet_config(folder: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Return the config of the base's UNet, with what an adapter adds to it."""
    keys = kind_of_folder(folder).adapter_keys
    if adapter is None:
        return {**keys, **part_config(folder, "unet")}
    return assembled_config(folder, adapter, keys)


def tensor_shapes(folder: Path, part: str, adapter: Path | None = None) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the weights of a part, read from the headers of its files."""
    if part != "unet":
        return shapes_of(weight_files(folder / part))
    constants = kind_of_folder(folder).constants
    return {name: shape for name, shape in shapes_of(unet_files(folder, adapter)).items()
            if not re.search(constants, name)}


def tensor_sizes(folder: Path, part: str, adapter: Path | None = None) -> dict[str, int]:
    """Return {name: number of elements} of the weights of a part."""
    return {name: math.prod(shape) for name, shape in tensor_shapes(folder, part, adapter).items()}


def pixel_strides(folder: Path) -> tuple[int, int]:
    """Return the pixels per latent cell, and the pixels per cell of the UNet's coarsest level."""
    vae_levels = len(part_config(folder, "vae")[LEVELS])
    unet_levels = len(part_config(folder, "unet")[LEVELS])
    return 2 ** (vae_levels - 1), 2 ** (vae_levels - 1 + unet_levels - 1)


def num_timesteps(folder: Path) -> int:
    """Return the number of noise levels the base was trained with: the most steps that sampling can take."""
    return part_config(folder, "scheduler").get("num_train_timesteps", 1000)


def encoded_sizes(folder: Path) -> tuple[int, int]:
    """Return how many values the encoders of a base make of a latent cell and of a caption."""
    vae, text = part_config(folder, "vae"), part_config(folder, "text_encoder")
    return vae.get("latent_channels", 4), text.get("max_position_embeddings", 77) * text["hidden_size"]


def own_scheduler(folder: Path, adapter: Path | None = None) -> Any:
    """Return the scheduler of a base, an object of a diffusers class: that of its motion adapter if it has
    one."""
    import diffusers

    config = scheduler_config(folder, adapter)
    with loading(folder / "scheduler"):
        return getattr(diffusers, config["_class_name"]).from_config(config)


def most_frames(folder: Path, adapter: Path | None = None) -> int | None:
    """Return the most frames that a window or a video of this base can have; None: any number."""
    key = kind_of_folder(folder).frames_key
    return unet_config(folder, adapter).get(key) if key else None


def native_size(base: str, folder: Path) -> tuple[int, int] | None:
    """Return width and height in pixels that a base was made for; None if nothing says it.

    A known base is told by its name, by its folder's name or, once converted, by the name of its original.
    """
    config = part_config(folder, "unet")
    names = f"{HUB_ALIASES.get(base, base)} {folder} {config.get('_name_or_path')}"
    for name, size in NATIVE_SIZES.items():
        if name in names:
            return size
    cells = config.get("sample_size")   # one side, or height and width
    sides = cells if isinstance(cells, list) else [cells, cells]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        return None
    stride, _ = pixel_strides(folder)
    return sides[1] * stride, sides[0] * stride
