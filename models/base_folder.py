"""What the folder of a base says without loading a weight: is it whole, is it text-to-video, which tensors
has it.

A base is a diffusers folder of TextToVideoSDPipeline (ModelScope text-to-video-ms-1.7b, ZeroScope v2,
fine-tunes), or the id of one on the Hugging Face hub. Only safetensors are read: other formats can carry
code.
"""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.tensor_files import read_shapes

INDEX_NAME = "model_index.json"
HUB_ALIASES = {"zs": "cerspense/zeroscope_v2_576w"}
# width and height in pixels that known bases were made for, whose folders do not say it
NATIVE_SIZES = {"zeroscope_v2_576w": (576, 320)}
PIPELINE = "TextToVideoSDPipeline"
PARTS = {   # part of the pipeline -> the file that describes it
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
# part -> the library and the class that load it. model_index.json may name another module: the published
# program writes models.unet_3d_condition. Nothing is ever imported by a name that a folder gives.
CLASSES = {
    "unet": ("diffusers", "UNet3DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
LEVELS = "block_out_channels"   # of a network's config: one entry per level, each half as wide as the last
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def is_hub_id(base: str) -> bool:
    """Say whether `base` is to be looked up on the hub: it has the form of an id and is no path here.

    `results/dance-TIME`, where the folder `results` exists, is a mistyped path.
    """
    has_form = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) is not None
    return has_form and not os.path.exists(base) and not os.path.isdir(os.path.dirname(base))


def find_base(base: str, download: bool = True) -> Path | None:
    """Return the local folder of `base`, downloading a hub id if need be; HF_HUB_OFFLINE is honoured.

    Without `download`, None stands for a hub id that has not been downloaded yet. Raises UserError with every
    part that is missing, or if `base` is not a text-to-video model this program can train.
    """
    base = HUB_ALIASES.get(base, base)
    if is_hub_id(base):
        folder = _hub_folder(base, download=False) or (_hub_folder(base, download=True) if download else None)
        if folder is None:
            return None
    else:
        folder = Path(base)
        if not os.path.isdir(folder):   # unlike Path.is_dir, no error where a name is too long to be one
            raise UserError(f"{base}: does not exist. Name a diffusers folder or a hub id such as "
                            f"{HUB_ALIASES['zs']}.")
    problems = check_base_folder(folder)
    if problems:
        raise UserError(*problems)
    return folder


def check_base_folder(folder: Path) -> list[str]:
    """Return what keeps `folder` from being used as a base, a line each."""
    index_path = folder / INDEX_NAME
    if not index_path.is_file():
        return [f"{folder}: has no {INDEX_NAME}, so it is not a diffusers pipeline folder. "
                f"Name one, or a hub id."]
    if problems := _check_kind(index_path, str(folder)):
        return problems
    problems = []
    for part, name in PARTS.items():
        if not (folder / part / name).is_file():
            problems.append(f"{folder / part / name}: is missing. Copy the whole base again.")
            continue
        if part in WEIGHTS:
            problems += _check_weights(folder / part)
        problems += _check_json(folder / part / name)
    return problems or _check_vocabulary(folder / "tokenizer") + _check_scheduler(folder)


def weight_files(part_folder: Path) -> list[Path]:
    """Return the safetensors of a part: one file, several shards, or, where there is no other, its fp16
    variant."""
    names = [path.name for path in part_folder.glob("*.safetensors")]
    return [part_folder / name for name in choose_weights(names, WEIGHTS[part_folder.name])]


def choose_weights(names: Iterable[str], stem: str) -> list[str]:
    """Return those of `names` that are a part's weights, in order: one file or several shards, or, where
    there is no other, the fp16 variant. Other variants, such as non_ema, are never chosen."""
    def matching(variant: str) -> list[str]:
        pattern = rf"{re.escape(stem + variant)}(-\d+-of-\d+)?\.safetensors"
        return sorted(name for name in names if re.fullmatch(pattern, name))

    names = list(names)
    return matching("") or matching(".fp16")


def weight_variant(part_folder: Path) -> str | None:
    """Return "fp16" where a part has its weights only in that variant."""
    return "fp16" if any(".fp16" in path.name for path in weight_files(part_folder)) else None


def pipeline_index(folder: Path) -> dict[str, Any]:
    """Return the content of model_index.json with the libraries and classes that stock diffusers has for the
    parts of the pipeline, and without anything else."""
    index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
    versions = {name: value for name, value in index.items() if name == "_diffusers_version"}
    parts = {**CLASSES, "scheduler": ("diffusers", index["scheduler"][1])}
    return {"_class_name": PIPELINE, **versions, **{part: list(names) for part, names in parts.items()}}


def tensor_shapes(folder: Path, part: str) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a part's tensors, read from the headers of its files."""
    return {name: shape for path in weight_files(folder / part)
            for name, (shape, _) in read_shapes(path).items()}


def tensor_sizes(folder: Path, part: str) -> dict[str, int]:
    """Return {name: number of elements} of a part's tensors."""
    return {name: math.prod(shape) for name, shape in tensor_shapes(folder, part).items()}


def pixel_strides(folder: Path) -> tuple[int, int]:
    """Return the pixels per latent cell, and the pixels per cell of the UNet's coarsest level."""
    vae_levels = len(_config(folder, "vae")[LEVELS])
    unet_levels = len(_config(folder, "unet")[LEVELS])
    return 2 ** (vae_levels - 1), 2 ** (vae_levels - 1 + unet_levels - 1)


def num_timesteps(folder: Path) -> int:
    """Return the number of noise levels the base was trained with: the most steps that sampling can take."""
    return _config(folder, "scheduler").get("num_train_timesteps", 1000)


def native_size(base: str, folder: Path) -> tuple[int, int]:
    """Return width and height in pixels that a base was made for.

    A known base is told by its name, by that of its folder or, once converted, by the one it was loaded from.
    """
    config = _config(folder, "unet")
    names = f"{HUB_ALIASES.get(base, base)} {folder} {config.get('_name_or_path')}"
    for name, size in NATIVE_SIZES.items():
        if name in names:
            return size
    side = config["sample_size"] * pixel_strides(folder)[0]
    return side, side


def _check_kind(index_path: Path, base: str) -> list[str]:
    import diffusers  # imported late: it takes seconds

    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        kind, unet_class = index["_class_name"], index["unet"][1]
        if kind != PIPELINE or unet_class != CLASSES["unet"][1]:
            return [f"{base}: is a {kind} with a {unet_class}. This program trains {PIPELINE} with a "
                    f"{CLASSES['unet'][1]} (ModelScope, ZeroScope and their fine-tunes)."]
        named = {part: str(index[part][1]) for part in PARTS}
    except (ValueError, KeyError, IndexError, TypeError):
        return [f"{base}: its {INDEX_NAME} does not describe a pipeline with {', '.join(PARTS)}. It is not a "
                f"text-to-video model."]
    problems = [f"{base}: its {part} is a {named[part]}. This program loads a {wanted}."
                for part, (_, wanted) in CLASSES.items() if named[part] not in (wanted, f"{wanted}Fast")]
    if not named["scheduler"].endswith("Scheduler") or not hasattr(diffusers, named["scheduler"]):
        problems.append(f"{base}: its scheduler is a {named['scheduler']}, which diffusers does not have.")
    return problems


def _config(folder: Path, part: str) -> dict:
    return json.loads((folder / part / PARTS[part]).read_text(encoding="utf-8"))


def _check_weights(part_folder: Path) -> list[str]:
    if files := weight_files(part_folder):
        return _unreadable(files) + _missing_shards(files)
    if list(part_folder.glob("*.bin")) or list(part_folder.glob("*.ckpt")):
        library, name = CLASSES[part_folder.name]
        return [f"{part_folder}: has its weights only as pickle (.bin), which can carry code and is not "
                f"loaded. Convert a base you trust with: python -c \"from {library} import {name} as P; "
                f"P.from_pretrained('{part_folder}', use_safetensors=False)"
                f".save_pretrained('{part_folder}')\""]
    stem = WEIGHTS[part_folder.name]
    return [f"{part_folder / stem}.safetensors: is missing. Copy the whole base again."]


def _missing_shards(files: list[Path]) -> list[str]:
    """Return the shards that are missing, where the weights of a part are spread over several files."""
    counted = re.fullmatch(r"(.*-)\d+(-of-(\d+)\.safetensors)", files[0].name)
    wanted = range(1, int(counted[3]) + 1) if counted else ()
    wanted = [f"{counted[1]}{number:05d}{counted[2]}" for number in wanted]
    if counted and not list(files[0].parent.glob("*.safetensors.index*.json")):
        wanted.append(f"{WEIGHTS[files[0].parent.name]}.safetensors.index.json")
    return [f"{files[0].with_name(name)}: is missing. Copy the whole base again."
            for name in wanted if not files[0].with_name(name).is_file()]


def _check_vocabulary(tokenizer: Path) -> list[str]:
    # the library makes an empty vocabulary of a missing one, and every caption becomes noise
    if (tokenizer / "tokenizer.json").is_file() or (
            (tokenizer / "vocab.json").is_file() and (tokenizer / "merges.txt").is_file()):
        return []
    return [f"{tokenizer}: its vocabulary is missing (vocab.json and merges.txt, or tokenizer.json). Copy "
            f"the whole base again."]


def _check_scheduler(folder: Path) -> list[str]:
    kind = _config(folder, "scheduler").get("prediction_type", PREDICTION_TYPES[0])
    if kind in PREDICTION_TYPES:
        return []
    return [f"{folder / 'scheduler'}: has prediction_type {kind!r}; this program trains "
            f"{', '.join(PREDICTION_TYPES)}."]


def _unreadable(weights: list[Path]) -> list[str]:
    problems = []
    for path in weights:
        try:
            read_shapes(path)
        except UserError as error:
            problems += error.problems
    return problems


def _check_json(path: Path) -> list[str]:
    needs_levels = path.parent.name in ("unet", "vae")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (not needs_levels or isinstance(content.get(LEVELS), list)):
            return []
    except (OSError, ValueError):
        pass
    return [f"{path}: is damaged. Copy the whole base again."]


def files_to_download(base: str, names: list[str]) -> list[str]:
    """Return the files that a hub model is loaded from, out of the `names` of all its files: what describes
    the parts, and safetensors. Raises UserError if a part has its weights in another format only."""
    wanted = [INDEX_NAME]
    for part in PARTS:
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        weights = choose_weights(inside, WEIGHTS[part]) if part in WEIGHTS else []
        if part in WEIGHTS and not weights:
            raise UserError(
                f"{base}: has the weights of its {part} only as pickle (.bin), which can carry code and is "
                f"not loaded. If you trust it: hf download {base} --local-dir converted, and name converted "
                f"as the base. The next message says how to convert it.")
        wanted += [f"{part}/{name}" for name in inside if name in weights or name.endswith((".json", ".txt"))]
    return wanted


def _hub_folder(base: str, download: bool) -> Path | None:
    # imported late: local bases never need it
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        index = hf_hub_download(base, INDEX_NAME, local_files_only=not download)
        if not download:
            folder = Path(index).parent
            return folder if not check_base_folder(folder) else None
        if problems := _check_kind(Path(index), base):   # before gigabytes are downloaded
            raise UserError(*problems)
        wanted = files_to_download(base, HfApi().list_repo_files(base))
        return Path(snapshot_download(base, allow_patterns=wanted))
    except HFValidationError as error:
        raise UserError(f"{base}: is neither a folder here nor the id of a model on the hub.") from error
    except LocalEntryNotFoundError as error:
        if not download:
            return None
        raise UserError(f"{base}: is not on this machine, and the hub cannot be reached. Check the network "
                        f"and HF_HUB_OFFLINE, or name a local folder.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{base}: there is no such folder here and no such model on the hub.") from error
    except EntryNotFoundError as error:
        raise UserError(f"{base}: has no {INDEX_NAME} on the hub, so it is not a diffusers "
                        f"pipeline.") from error
    except OSError as error:
        raise UserError(f"{base}: could not be downloaded ({str(error).splitlines()[0]}).") from error
