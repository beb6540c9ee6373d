"""What keeps a folder from being used as a base or as a motion adapter, found without loading a weight.

Only safetensors are read: other formats can carry code.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.base_kind import BaseKind, at_level
from models.base_parts import (
    CLASSES,
    INDEX_NAME,
    LEVELS,
    PARTS,
    WEIGHTS,
    assembled_config,
    part_config,
    read_index,
    read_json,
    shapes_of,
    weight_files,
    weights_stem,
)
from models.kinds import KINDS, kind_of_classes
from models.pickled_weights import pickles_in, refusal
from utils.errors import UserError
from utils.tensor_files import read_shapes

# what is raised where a value of a config is, for example, a list that is too short, or null
UNDESCRIBED = (LookupError, TypeError, ValueError, ArithmeticError)
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
EXAMPLE_ADAPTER = "guoyww/animatediff-motion-adapter-v1-5-3"


def check_base_folder(folder: Path, has_adapter: bool = False) -> list[str]:
    """Return what keeps `folder` from being used as a base, a line for each problem.

    `has_adapter`: the base is to be used with a motion adapter.
    """
    index_path = folder / INDEX_NAME
    if not index_path.is_file():
        return [f"{folder}: has no {INDEX_NAME}, so it is not a diffusers pipeline folder. "
                f"Name one, or a hub id."]
    if problems := check_index(index_path, str(folder), has_adapter):
        return problems
    pickles = {part: found for part in WEIGHTS if (found := pickles_in(folder / part))}   # none is opened
    problems = [refusal(folder, pickles)] if pickles else []
    for part, name in PARTS.items():
        if not (folder / part / name).is_file():
            problems.append(f"{folder / part / name}: is missing. Copy the whole base again.")
            continue
        if part in WEIGHTS and part not in pickles:
            problems += _check_weights(folder / part)
        problems += _check_json(folder / part / name, needs_levels=part in ("unet", "vae"))
    return problems or [*_check_vocabulary(folder / "tokenizer"), *_check_scheduler(folder),
                        *(_check_unet(folder) or _check_widths(folder))]


def check_index(index_path: Path, base: str, has_adapter: bool) -> list[str]:
    """Return what model_index.json says against `base`: a class that this program does not load, a motion
    adapter that is missing, or one that the base does not take."""
    import diffusers  # imported late: it takes seconds

    try:
        index = read_json(index_path)
        pipeline, unet = index["_class_name"], index["unet"][1]
        kind = kind_of_classes(pipeline, unet)
        if kind is None:
            known = ", or ".join(f"{known.pipeline} with a {known.unet} ({known.title})" for known in KINDS)
            return [f"{base}: is a {pipeline} with a {unet}. This program trains {known}."]
        named = {part: str(index[part][1]) for part in PARTS}
    except (ValueError, KeyError, IndexError, TypeError):
        return [f"{base}: its {INDEX_NAME} does not describe a pipeline with {', '.join(PARTS)}. It is not a "
                f"text-to-video model."]
    problems = [f"{base}: its {part} is a {named[part]}. This program loads a {wanted}."
                for part, (_, wanted) in CLASSES.items() if named[part] not in (wanted, f"{wanted}Fast")]
    if not named["scheduler"].endswith("Scheduler") or not hasattr(diffusers, named["scheduler"]):
        problems.append(f"{base}: its scheduler is a {named['scheduler']}, which diffusers does not have.")
    return problems or _check_pair(pipeline, kind, base, has_adapter)


def check_adapter_folder(adapter: Path, base: Path) -> list[str]:
    """Return what keeps `adapter` from being used with the image model in `base`, a line for each
    problem."""
    config_path = adapter / "config.json"
    if not config_path.is_file():
        return [f"{adapter}: has no config.json, so it is not a motion adapter. Name a MotionAdapter folder "
                f"of diffusers, or a hub id such as {EXAMPLE_ADAPTER}."]
    if problems := check_adapter_config(config_path, str(adapter)):
        return problems
    kind = next(kind for kind in KINDS if kind.adapter == read_json(config_path)["_class_name"])
    if pickles := pickles_in(adapter):
        return [refusal(adapter, {".": pickles})]
    return _check_weights(adapter) or _check_fit(adapter, base, kind)


def check_adapter_config(config_path: Path, adapter: str) -> list[str]:
    """Return what the config of a motion adapter says against using it."""
    if problems := _check_json(config_path, needs_levels=True):
        return problems
    config = read_json(config_path)
    known = [kind.adapter for kind in KINDS if kind.adapter]
    if config.get("_class_name") not in known:
        return [f"{adapter}: is a {config.get('_class_name')}, not a {' or '.join(known)}. Name a motion "
                f"adapter such as {EXAMPLE_ADAPTER}."]
    if config.get("conv_in_channels"):
        return [f"{adapter}: takes pictures beside the noise (conv_in_channels), as PIA does. This program "
                f"trains adapters that take noise alone, such as {EXAMPLE_ADAPTER}."]
    return []


def _check_pair(pipeline: str, kind: BaseKind, base: str, has_adapter: bool) -> list[str]:
    """Return a problem if an image model has no adapter, or a text-to-video model has one."""
    if pipeline == kind.image_pipeline and not has_adapter:
        return [f"{base}: is an image model ({pipeline}), which makes videos only with a motion adapter. "
                f"Name one as motion_adapter_path (generate_pretrained.py: --adapter), such as "
                f"{EXAMPLE_ADAPTER}."]
    if pipeline != kind.image_pipeline and has_adapter:
        images = " or ".join(known.image_pipeline for known in KINDS if known.image_pipeline)
        return [f"{base}: is a text-to-video model ({pipeline}) already. Leave out motion_adapter_path "
                f"(--adapter), which goes with an image model ({images})."]
    return []


def _check_fit(adapter: Path, base: Path, kind: BaseKind) -> list[str]:
    """Return a problem if the layers of an adapter do not fit between those of the image model."""
    try:
        layers = list(kind.layers(assembled_config(base, adapter, kind.adapter_keys)))
        theirs = _levels(read_json(adapter / "config.json"), "motion_layers_per_block")
    except UNDESCRIBED as error:
        return [_undescribed(adapter / "config.json", error)]
    if theirs != (ours := _levels(part_config(base, "unet"), "layers_per_block")):
        return [f"{adapter}: was made for another image model than {base}: it is for levels of {theirs}, and "
                f"the model has {ours}. For Stable Diffusion 1.5 take an adapter such as {EXAMPLE_ADAPTER}."]
    shapes = shapes_of(weight_files(adapter))
    for layer in layers:
        name = f"{layer.name}norm.weight"
        if layer.form == "temporal" and list(shapes.get(name, ())) != [layer.channels]:
            found = f"of shape {list(shapes[name])}" if name in shapes else "missing"
            return [f"{adapter}: does not fit {base}: {name} is {found}, and [{layer.channels}] is needed. "
                    f"Copy the adapter again, or name another one."]
    return []


def _levels(config: Mapping[str, Any], key: str) -> str:
    """Return the layers and the width of each level of a UNet for people: 2x320, 2x640. `key`: the key of its
    config that says how many layers a level has."""
    return ", ".join(f"{at_level(config.get(key, 2), level)}x{width}"
                     for level, width in enumerate(config[LEVELS]))


def _check_weights(part_folder: Path) -> list[str]:
    """Return what is wrong with the weights of a part or an adapter."""
    if files := weight_files(part_folder):
        return _unreadable(files) + _missing_shards(files)
    stem = weights_stem(part_folder)
    return [f"{part_folder / stem}.safetensors: is missing. Copy the whole base again."]


def _missing_shards(files: list[Path]) -> list[str]:
    """Return the shards that are missing, where the weights of a part are spread over several files."""
    counted = re.fullmatch(r"(.*-)\d+(-of-(\d+)\.safetensors)", files[0].name)
    numbers = range(1, int(counted[3]) + 1) if counted else ()
    wanted = [f"{counted[1]}{number:05d}{counted[2]}" for number in numbers]
    if counted and not list(files[0].parent.glob("*.safetensors.index*.json")):
        wanted.append(f"{weights_stem(files[0].parent)}.safetensors.index.json")
    return [f"{files[0].with_name(name)}: is missing. Copy the whole base again."
            for name in wanted if not files[0].with_name(name).is_file()]


def _check_vocabulary(tokenizer: Path) -> list[str]:
    # where the files are missing, transformers makes an empty vocabulary, and every caption becomes noise
    if (tokenizer / "tokenizer.json").is_file() or (
            (tokenizer / "vocab.json").is_file() and (tokenizer / "merges.txt").is_file()):
        return []
    return [f"{tokenizer}: its vocabulary is missing (vocab.json and merges.txt, or tokenizer.json). Copy "
            f"the whole base again."]


def _check_unet(folder: Path) -> list[str]:
    """Return a problem if the config of a base's UNet does not describe its layers."""
    index, config = read_index(folder), part_config(folder, "unet")
    kind = kind_of_classes(index["_class_name"], index["unet"][1])
    try:
        list(kind.layers({**kind.adapter_keys, **config}))
    except UNDESCRIBED as error:
        return [_undescribed(folder / "unet" / "config.json", error)]
    return []


def _undescribed(config_path: Path, error: Exception) -> str:
    return (f"{config_path}: does not describe the layers of a network ({type(error).__name__}: {error}). "
            f"Copy it again.")


def _check_scheduler(folder: Path) -> list[str]:
    config, problems = part_config(folder, "scheduler"), []
    prediction_type = config.get("prediction_type", PREDICTION_TYPES[0])
    if prediction_type not in PREDICTION_TYPES:
        problems.append(f"{folder / 'scheduler'}: has prediction_type {prediction_type!r}; this program "
                        f"trains {', '.join(PREDICTION_TYPES)}.")
    num_levels = config.get("num_train_timesteps", 1)
    if not isinstance(num_levels, int) or num_levels < 1:
        problems.append(f"{folder / 'scheduler'}: has num_train_timesteps {num_levels!r}, which is no number "
                        f"of noise levels. Copy the whole base again.")
    return problems


def _check_widths(folder: Path) -> list[str]:
    """Return a problem for each part whose output the UNet does not take, where both configs say it."""
    problems = []
    for part, makes, key, wording, name in (
            ("text_encoder", "hidden_size", "cross_attention_dim", "embeddings of {} values", "text encoder"),
            ("vae", "latent_channels", "in_channels", "latents of {} channels", "VAE")):
        made, taken = part_config(folder, part).get(makes), part_config(folder, "unet").get(key)
        if isinstance(made, int) and isinstance(taken, int) and made != taken:
            problems.append(f"{folder}: its {name} makes {wording.format(made)}, and its UNet takes {taken} "
                            f"({key}). Name a base whose parts belong together.")
    return problems


def _unreadable(weights: list[Path]) -> list[str]:
    problems = []
    for path in weights:
        try:
            read_shapes(path)
        except UserError as error:
            problems += error.problems
    return problems


def _check_json(path: Path, needs_levels: bool) -> list[str]:
    try:
        content = read_json(path)
        levels = content.get(LEVELS) if isinstance(content, dict) else None
        if isinstance(content, dict) and (not needs_levels or levels and isinstance(levels, list)):
            return []
    except (OSError, ValueError):
        pass
    return [f"{path}: is damaged. Copy the whole base again."]
