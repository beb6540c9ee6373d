"""What a base model's folder says without loading a weight: is it whole, is it text-to-video, which tensors
it has.

A base is a diffusers folder of TextToVideoSDPipeline (ModelScope text-to-video-ms-1.7b, ZeroScope v2,
fine-tunes), or the id of one on the Hugging Face hub. Only safetensors are read: other formats can carry
code.
"""

import json
import os
import re
from pathlib import Path

from utils.errors import UserError
from utils.tensor_files import read_shapes

HUB_ALIASES = {"zs": "cerspense/zeroscope_v2_576w"}
# width and height in pixels that known bases were made for, whose folders do not say it
NATIVE_SIZES = {"zeroscope_v2_576w": (576, 320)}
PARTS = {   # part of the pipeline -> the files it cannot do without
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("tokenizer_config.json",),
    "scheduler": ("scheduler_config.json",),
}
LEVELS = "block_out_channels"   # of a network's config: one entry per level, each half as wide as the last
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def is_hub_id(base: str) -> bool:
    """Say whether `base` is to be looked up on the hub: it is no path here and has the form of an id."""
    return not os.path.exists(base) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) is not None


def find_base(base: str, download: bool = True) -> Path | None:
    """Return the local folder of `base`, downloading a hub id if need be; HF_HUB_OFFLINE is honoured.

    Without `download`, None stands for a hub id that has not been downloaded yet. Raises UserError with every
    part that is missing, or if `base` is not a text-to-video model this program can train.
    """
    base = HUB_ALIASES.get(base, base)
    if is_hub_id(base):
        folder = _hub_folder(base, download)
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
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        return [f"{folder}: has no model_index.json, so it is not a diffusers pipeline folder."]
    if problems := _check_kind(index_path, str(folder)):
        return problems
    problems = []
    for part, files in PARTS.items():
        missing = [name for name in files if not (folder / part / name).is_file()]
        problems += [f"{folder / part / name}: is missing. Copy the whole base again." for name in missing]
        if part in WEIGHTS and not missing:
            problems += _check_weights(folder / part, WEIGHTS[part])
        problems += _check_json(folder / part, [name for name in files if name not in missing])
    return problems or _check_vocabulary(folder / "tokenizer") + _check_prediction(folder)


def weight_files(part_folder: Path) -> list[Path]:
    """Return the safetensors of a part: one file, several shards, or, where there is no other, its fp16
    variant."""
    files = sorted(part_folder.glob("*.safetensors"))
    plain = [path for path in files if ".fp16" not in path.name]
    return plain or files


def weight_variant(folder: Path) -> str | None:
    """Return "fp16" where a base has its weights only in that variant."""
    files = [path for part in WEIGHTS for path in weight_files(folder / part)]
    return "fp16" if all(".fp16" in path.name for path in files) else None


def tensor_sizes(folder: Path, part: str) -> dict[str, int]:
    """Return {name: number of elements} of a part's tensors, read from the headers of its files."""
    sizes = {}
    for path in weight_files(folder / part):
        for name, (shape, _) in read_shapes(path).items():
            sizes[name] = 1
            for side in shape:
                sizes[name] *= side
    return sizes


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
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        unet_class = index["unet"][1]
    except (ValueError, KeyError, IndexError, TypeError):
        return [f"{base}: its model_index.json does not describe a pipeline with a unet. It is not a "
                f"text-to-video model."]
    if index.get("_class_name") != "TextToVideoSDPipeline" or unet_class != "UNet3DConditionModel":
        return [f"{base}: is a {index.get('_class_name')} with a {unet_class}. This program trains "
                f"TextToVideoSDPipeline with a UNet3DConditionModel (ModelScope, ZeroScope and their "
                f"fine-tunes)."]
    return []


def _config(folder: Path, part: str) -> dict:
    return json.loads((folder / part / PARTS[part][0]).read_text(encoding="utf-8"))


def _check_weights(part_folder: Path, stem: str) -> list[str]:
    if weight_files(part_folder):
        return _unreadable(weight_files(part_folder))
    if list(part_folder.glob("*.bin")) or list(part_folder.glob("*.ckpt")):
        return [_convert(part_folder, part_folder.parent)]
    return [f"{part_folder / stem}.safetensors: is missing. Copy the whole base again."]


def _check_vocabulary(tokenizer: Path) -> list[str]:
    # the library makes an empty vocabulary of a missing one, and every caption becomes noise
    if (tokenizer / "tokenizer.json").is_file() or (
            (tokenizer / "vocab.json").is_file() and (tokenizer / "merges.txt").is_file()):
        return []
    return [f"{tokenizer}: its vocabulary is missing (vocab.json and merges.txt, or tokenizer.json). Copy "
            f"the whole base again."]


def _check_prediction(folder: Path) -> list[str]:
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


def _check_json(part_folder: Path, names: list[str]) -> list[str]:
    needed = LEVELS if part_folder.name in ("unet", "vae") else None
    problems = []
    for name in names:
        try:
            content = json.loads((part_folder / name).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or needed and not isinstance(content.get(needed), list):
                raise ValueError
        except (OSError, ValueError):
            problems.append(f"{part_folder / name}: is damaged. Copy the whole base again.")
    return problems


def _download(base: str) -> Path:
    """Download the safetensors of a hub model, in its fp16 variant where there is no other."""
    from diffusers import DiffusionPipeline

    for variant in (None, "fp16"):
        try:
            return Path(DiffusionPipeline.download(base, use_safetensors=True, variant=variant))
        except (OSError, ValueError) as error:   # how the library says that there are none of this kind
            if "safetensors" not in str(error) and "variant" not in str(error):
                raise
    raise UserError(_convert(base, base))


def _convert(where: object, base: object) -> str:
    return (f"{where}: has its weights only as pickle (.bin), which can carry code and is not loaded. "
            f"Convert a base you trust with: python -c \"from diffusers import DiffusionPipeline as P; "
            f"P.from_pretrained('{base}', use_safetensors=False).save_pretrained('converted')\", and use "
            f"converted as the base.")


def _hub_folder(base: str, download: bool) -> Path | None:
    from huggingface_hub import (
        hf_hub_download,  # imported late: local bases never need it
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        index = hf_hub_download(base, "model_index.json", local_files_only=not download)
        if not download:
            folder = Path(index).parent
            return folder if not check_base_folder(folder) else None
        if problems := _check_kind(Path(index), base):   # before gigabytes are downloaded
            raise UserError(*problems)
        return _download(base)
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
        raise UserError(f"{base}: has no model_index.json on the hub, so it is not a diffusers "
                        f"pipeline.") from error
    except OSError as error:
        raise UserError(f"{base}: could not be downloaded ({str(error).splitlines()[0]}).") from error
