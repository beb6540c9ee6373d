"""A folder of tensors that were costly to make, each under a hash of all that made it.

A changed clip, size, rate or encoder has another hash, so nothing stale is ever found. Files are written
whole; one that cannot be read is made again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import digest_of
from utils.tensor_files import read_metadata, read_tensors, write_tensors

VERSION = 1   # raise when the meaning of what is cached changes


def cache_path(folder: Path, made_from: dict[str, Any]) -> Path:
    """Return where in `folder` the tensors made from `made_from`, plain JSON material, lie or will lie."""
    return folder / f"{digest_of({'version': VERSION, **made_from})}.safetensors"


def is_cached(path: Path) -> bool:
    """Say whether `path` holds, to the last bit, what was written there."""
    try:
        if not path.exists() or not read_tensors(path):
            return False
        made_from = json.loads(read_metadata(path).get("made_from", "null"))
    except (UserError, ValueError):
        return False
    # another entry's file under this name is as wrong as a damaged one
    return isinstance(made_from, dict) and cache_path(path.parent, made_from) == path


def fill_cache(path: Path, made_from: dict[str, Any], make: Callable[[], dict[str, torch.Tensor]]) -> Path:
    """Write what `make` returns to `path`, unless it is there already. Return `path`."""
    if not is_cached(path):
        write_tensors(path, make(), {"made_from": json.dumps(made_from)})
    return path
