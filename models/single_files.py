"""Single files that are named where a folder or a motion of this program is wanted: what they are, told by
the names of their tensors, and what to do with them.

People have Stable Diffusion checkpoints, motion modules and LoRAs as single files. This program reads folders
of diffusers, in which every part has a config, and its own motion.safetensors.
"""

import json
import os
import re
from pathlib import Path

from utils.commands import inline_command
from utils.errors import UserError
from utils.tensor_files import read_metadata, read_shapes

CHECKPOINT, MODULE, LORA = "a Stable Diffusion checkpoint", "a motion module", "a LoRA"
IN_TENSORS = {   # kind -> what is found in the names of its tensors; the first kind that is found counts
    LORA: r"(^|[._])lora[._]",   # kohya's lora_unet_, peft's .lora_A. and AnimateDiff's _lora.down
    CHECKPOINT: r"^model\.diffusion_model\.",
    MODULE: r"(^|\.)motion_modules\.|temporal_transformer"}
IN_NAME = {   # the same for pickles, which are not opened: what is found in the name of the file
    LORA: r"(?i)lora",
    MODULE: r"(?i)(^|[._-])mm|motion|temporal|animatediff",
    CHECKPOINT: r""}
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# kind -> the class of diffusers that converts it, and what to do with the new folder
CONVERTERS = {
    CHECKPOINT: ("StableDiffusionPipeline", "as the base, with a motion adapter"),
    MODULE: ("MotionAdapter", "as the motion adapter (motion_adapter_path, --adapter) of an image model")}


def refuse_file(path: str) -> None:
    """Raise UserError if `path`, which is to be a base or an adapter, is a file."""
    if not os.path.isfile(path):   # unlike Path.is_file, no error where a name is too long to be one
        return
    if path.endswith(".safetensors") and read_metadata(Path(path)).get("format", "").startswith("motion-"):
        raise UserError(f"{path}: holds motion weights, which are no base and no adapter. Name it with -m.")
    raise UserError(refusal_of_file(Path(path)) or f"{path}: is a file. Name a diffusers folder or a hub id.")


def refusal_of_file(path: Path) -> str | None:
    """Return why a file is neither a base, an adapter nor a motion of this program, and what to do with it;
    None if it is of no kind that is known here. Raises UserError if it is damaged."""
    if path.suffix == ".safetensors":
        if (path.parent / "config.json").is_file():
            above = path.parent.parent
            folder = above if (above / "model_index.json").is_file() else path.parent
            return f"{path}: is one file of a folder of diffusers. Name the folder, {folder}."
        kind = next((kind for kind, mark in IN_TENSORS.items()
                     if any(re.search(mark, name) for name in read_shapes(path))), None)
        said, convert = f"{path}: is {kind} in one file", "Convert it"
    elif path.suffix in PICKLES:
        kind = next(kind for kind, mark in IN_NAME.items() if re.search(mark, path.stem))
        said = f"{path}: is a pickle, which can carry code and is not loaded; by its name it is {kind}"
        convert = "If you trust it, convert it"
    else:
        return None
    if kind == LORA:
        return (f"{said}. It is no motion of this program. To use it, add it to its base with diffusers "
                f"(load_lora_weights, fuse_lora, save_pretrained), and name the saved folder as the base.")
    if kind is None:
        return None
    converter, use = CONVERTERS[kind]
    return (f"{said}. This program reads folders of diffusers. {convert}, which downloads a few small files, "
            f"and name the new folder {use}: {_conversion(converter, path)}")


def _conversion(converter: str, path: Path) -> str:
    """Return a shell command that writes a single file as a folder of diffusers beside it."""
    source, target = (json.dumps(str(where)) for where in (path, path.with_name(f"{path.stem}_diffusers")))
    return inline_command(f"from diffusers import {converter} as P; "
                          f"P.from_single_file({source}).save_pretrained({target})")
