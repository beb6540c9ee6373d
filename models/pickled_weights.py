"""Weights that a base or a motion adapter has only as pickles (.bin): the message that refuses them, with the
command that converts them.

Loading a pickle can run code that is in it, so this program opens none. The command loads tensors alone
(weights_only of torch) and writes safetensors. Every other file stays as it is, because a library may write
a file in a form that its other versions do not read: transformers 5 writes tokenizers that 4 cannot load.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.base_parts import DIFFUSERS_WEIGHTS, WEIGHTS, choose_weights, weights_stem
from utils.commands import ROOT, inline_command

# what the names of a part's weights begin with -> the same for pickles, where it is another text
PICKLED_STEMS = {"model": "pytorch_model"}
CONVERTED = "converted"   # folder of a base from the hub whose weights are converted


def pickles_of(names: Iterable[str], stem: str) -> list[str]:
    """Return those of `names` that are a part's weights as pickles, if it has no safetensors."""
    names = list(names)
    if choose_weights(names, stem):
        return []
    return choose_weights(names, PICKLED_STEMS.get(stem, stem), "bin")


def pickled_parts(names: Iterable[str]) -> dict[str, list[str]]:
    """Return {part: its pickles} for the parts of a base that have no safetensors. `names`: the files of the
    base, as PART/FILE."""
    names = list(names)
    found = {part: pickles_of([name.removeprefix(f"{part}/") for name in names
                               if name.startswith(f"{part}/")], stem) for part, stem in WEIGHTS.items()}
    return {part: files for part, files in found.items() if files}


def pickles_in(part_folder: Path) -> list[str]:
    """Return the names of the pickles of a part or of an adapter, if it has no safetensors."""
    return pickles_of((path.name for path in part_folder.glob("*")), weights_stem(part_folder))


def refusal(base: object, pickles: Mapping[str, list[str]], to_download: Sequence[str] = ()) -> str:
    """Return the message that refuses the `pickles` of the parts of `base`.

    `to_download`: the other files of a base that is a hub id, and empty for a folder, which is converted in
    place. The part of an adapter is ".".
    """
    whose = "has its weights" if "." in pickles else f"has the weights of its {', '.join(pickles)}"
    named = f" once, and name the new folder, {CONVERTED}, as the base" if to_download else ""
    return (f"{base}: {whose} only as pickle (.bin), which can carry code and is not loaded. If you trust "
            f"it, convert it{named}: {conversion_command(base, pickles, to_download)}")


def conversion_command(base: object, pickles: Mapping[str, list[str]], to_download: Sequence[str]) -> str:
    """Return a shell command that writes the pickles of each part into one safetensors beside them."""
    folder, fetch = str(base), ""
    if to_download:
        folder = CONVERTED
        wanted = [*to_download, *(f"{part}/{name}" for part, files in pickles.items() for name in files)]
        fetch = ("from huggingface_hub import snapshot_download as fetch; "
                 f'fetch("{base}", local_dir="{folder}", allow_patterns={json.dumps(wanted)}); ')
    files = [[f"{part}/{WEIGHTS.get(part, DIFFUSERS_WEIGHTS)}.safetensors",
              *(f"{part}/{name}" for name in names)] for part, names in pickles.items()]
    return inline_command(
        f"import sys, torch; from pathlib import Path; sys.path.insert(0, {json.dumps(str(ROOT))}); "
        f"from utils.tensor_files import write_tensors as write; {fetch}folder = Path({json.dumps(folder)}); "
        "[write(folder / new, {name: tensor for old in olds for name, tensor in "
        'torch.load(folder / old, "cpu", weights_only=True).items()}, {"format": "pt"}) '
        f"for new, *olds in {json.dumps(files)}]")
