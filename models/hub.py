"""Bases and motion adapters on the Hugging Face hub: which files of a model are needed, and fetching them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from models.base_parts import (
    DIFFUSERS_WEIGHTS,
    INDEX_NAME,
    PARTS,
    WEIGHTS,
    choose_weights,
)
from models.pickled_weights import pickled_parts, refusal
from utils.errors import UserError
from utils.hub import explained, fetch


def is_hub_id(base: str) -> bool:
    """Say whether `base` is to be looked up on the hub: it has the form of an id and is no path here.

    `results/dance-TIME`, where the folder `results` exists, is a mistyped path.
    """
    has_form = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) is not None
    return has_form and not os.path.exists(base) and not os.path.isdir(os.path.dirname(base))


def files_to_download(base: str, names: list[str]) -> list[str]:
    """Return the files that a hub model is loaded from, out of the `names` of all its files: the descriptions
    of its parts, and safetensors. Raises UserError if a part has no weights in safetensors."""
    wanted, lacking = [INDEX_NAME], []
    for part in PARTS:
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        weights = choose_weights(inside, WEIGHTS[part]) if part in WEIGHTS else []
        if part in WEIGHTS and not weights:
            lacking.append(part)
        wanted += [f"{part}/{name}" for name in inside if name in weights or name.endswith((".json", ".txt"))]
    pickles = pickled_parts(names)
    if unknown := [part for part in lacking if part not in pickles]:
        raise UserError(f"{base}: has no weights of its {', '.join(unknown)} on the hub that this program "
                        f"knows. Name another base.")
    if pickles:
        raise UserError(refusal(base, pickles, wanted))
    return wanted


def adapter_files(adapter: str, names: list[str]) -> list[str]:
    """Return the files that a motion adapter on the hub is loaded from, out of the `names` of all its
    files."""
    weights = choose_weights(names, DIFFUSERS_WEIGHTS)
    if not weights:
        raise UserError(f"{adapter}: has no {DIFFUSERS_WEIGHTS}.safetensors on the hub. Other formats can "
                        f"carry code and are not loaded. Name an adapter that has one.")
    return [name for name in names if name in weights or name == "config.json"]


def hub_folder(model: str, index_name: str, check_index: Callable[[Path], list[str]],
               choose: Callable[[str, list[str]], list[str]], download: bool) -> Path | None:
    """Return the local folder of a hub model, or None if it is not on this machine and not to be downloaded.

    `check_index` returns what is wrong with the file `index_name`, before gigabytes are downloaded.
    `choose(model, names)` returns the files that are needed, out of the names of all. Raises UserError if
    there is no such model, or the hub cannot be reached.
    """
    # imported late: local bases never need it
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    with explained(model):
        try:
            index = fetch(model, index_name) if download else \
                Path(hf_hub_download(model, index_name, local_files_only=True))
        except LocalEntryNotFoundError:
            if not download:
                return None
            raise
        except HFValidationError as error:
            raise UserError(f"{model}: is neither a folder here nor the id of a model on the hub.") from error
        except EntryNotFoundError as error:
            wanted = "diffusers pipeline" if index_name == INDEX_NAME else "motion adapter"
            raise UserError(f"{model}: has no {index_name} on the hub, so it is not a {wanted}.") from error
    if problems := check_index(index):
        raise UserError(*problems)
    if not download:
        return index.parent
    with explained(model):
        return Path(snapshot_download(model, allow_patterns=choose(model, HfApi().list_repo_files(model))))
