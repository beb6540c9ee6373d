"""The parts of a base's folder and the files of each part: which are its weights, and what they hold."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError, first_line
from utils.tensor_files import read_shapes

INDEX_NAME = "model_index.json"
PARTS = {   # part of the pipeline -> the file that describes it
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
# part -> the library and the class that load it. The UNet's class depends on the kind of base.
# model_index.json may name another module: the published program writes models.unet_3d_condition. A name in
# a folder never decides what is imported.
CLASSES = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
# key of a network's config with one entry per level; the picture of each level has half the width of the
# level before
LEVELS = "block_out_channels"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
# part with weights -> what the names of its weight files begin with
WEIGHTS = {"unet": DIFFUSERS_WEIGHTS, "vae": DIFFUSERS_WEIGHTS, "text_encoder": "model"}
VARIANTS = ("", ".fp16", ".bf16")   # what follows in these names; the first variant that is there is loaded


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of model_index.json, which names the class of each part."""
    return read_json(folder / INDEX_NAME)


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """Return the content of the file that describes a part."""
    return read_json(folder / part / PARTS[part])


def assembled_config(folder: Path, adapter: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an image model's UNet with the `keys` of a motion adapter's config, or their
    defaults."""
    added = read_json(adapter / "config.json")
    return part_config(folder, "unet") | {key: added.get(key, default) for key, default in keys.items()}


def weights_stem(part_folder: Path) -> str:
    """Return what the names of the weights of a part, or of a motion adapter, begin with."""
    return WEIGHTS.get(part_folder.name, DIFFUSERS_WEIGHTS)


def weight_files(part_folder: Path) -> list[Path]:
    """Return the safetensors of a part: one file or several shards, of the first variant that it has."""
    names = [path.name for path in part_folder.glob("*.safetensors")]
    return [part_folder / name for name in choose_weights(names, weights_stem(part_folder))]


def choose_weights(names: Iterable[str], stem: str, suffix: str = "safetensors") -> list[str]:
    """Return those of `names` that are a part's weights, in order: one file or several shards, of the first
    of VARIANTS that is there. Other variants, such as non_ema, are never chosen."""
    def matching(variant: str) -> list[str]:
        pattern = rf"{re.escape(stem + variant)}(-\d+-of-\d+)?\.{suffix}"
        return sorted(name for name in names if re.fullmatch(pattern, name))

    names = list(names)
    return next(filter(None, map(matching, VARIANTS)), [])


def unet_files(folder: Path, adapter: Path | None = None) -> list[Path]:
    """Return the safetensors of a base's UNet. A motion adapter names its tensors as the UNet does."""
    return weight_files(folder / "unet") + (weight_files(adapter) if adapter else [])


def weight_variant(part_folder: Path) -> str | None:
    """Return "fp16" or "bf16" where a part has its weights only in that variant."""
    files = weight_files(part_folder)
    return next((variant[1:] for variant in VARIANTS[1:] if any(variant in f.name for f in files)), None)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn what a library raises while it loads `folder` into a UserError.

    Damaged files raise errors of any class, even a plain Exception. Only too little memory stays what it is.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded ({first_line(error)}). If its files are damaged, copy "
                        f"them again.") from error


def load_network(network, part_folder: Path) -> Any:
    """Return a network of the class `network` from its files, in float32 on the CPU.

    Its weights are copied out of the files, which transformers and diffusers map into memory. The address of
    a mapped tensor depends on its place in the file, and on some CPUs the order of a sum depends on the
    address. Equal weights in two files would then train to weights that differ by rounding.

    Raises UserError if they cannot be loaded, or lack a weight, which transformers would fill with random
    values. Buffers may be missing, because they are computed.
    """
    import torch

    with loading(part_folder):
        loaded, report = network.from_pretrained(
            part_folder, use_safetensors=True, variant=weight_variant(part_folder), dtype=torch.float32,
            local_files_only=True, output_loading_info=True)
    if missing := sorted(dict(loaded.named_parameters()).keys() & set(report["missing_keys"])):
        raise UserError(f"{part_folder}: lacks {len(missing)} tensors, the first {missing[0]}. Copy the "
                        f"whole folder again.")
    for parameter in loaded.parameters():
        parameter.data = parameter.data.clone()
    return loaded


def stored_dtypes(paths: Iterable[Path]) -> dict[str, str]:
    """Return {name: dtype} of the tensors in safetensors."""
    return {name: dtype for path in paths for name, (_, dtype) in read_shapes(path).items()}


def shapes_of(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the tensors in safetensors, read from their headers."""
    return {name: shape for path in paths for name, (shape, _) in read_shapes(path).items()}
