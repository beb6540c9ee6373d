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
from utils.tensor_files import read_shapes, write_tensors

VERSION = 1   # raise when the meaning of what is cached changes


def cache_path(folder: Path, made_from: dict[str, Any]) -> Path:
    """Return where in `folder` the tensors made from `made_from`, plain JSON material, lie or will lie."""
    return folder / f"{digest_of({'version': VERSION, **made_from})}.safetensors"


def is_cached(path: Path) -> bool:
    """Say whether `path` holds tensors that can be read."""
    try:
        return path.exists() and bool(read_shapes(path))
    except UserError:
        return False


def fill_cache(path: Path, made_from: dict[str, Any], make: Callable[[], dict[str, torch.Tensor]]) -> Path:
    """Write what `make` returns to `path`, unless it is there already. Return `path`."""
    if not is_cached(path):
        write_tensors(path, make(), {"made_from": json.dumps(made_from)})
    return path
