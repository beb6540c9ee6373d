"""safetensors files, written whole or not at all, and read with the reason when they are damaged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.errors import UserError
from utils.files import replacing


def write_tensors(path: Path, tensors: dict[str, torch.Tensor],
                  metadata: dict[str, str] | None = None) -> None:
    """Write tensors and string metadata to `path`. Raises UserError if the disk is full."""
    with replacing(path) as partial:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)
        except SafetensorError as error:   # how the library reports a failed write
            raise OSError(str(error)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file. Raises UserError if the file is damaged."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a safetensors file, on the CPU. Raises UserError if the file is damaged."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def read_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return {name: (shape, dtype)} from the header alone. Raises UserError if the file is damaged."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def read_rows(path: Path, start: int, stop: int) -> dict[str, torch.Tensor]:
    """Return rows start..stop of every tensor; only these bytes are read from the memory-mapped file."""
    with _opened(path) as file:
        return {name: file.get_slice(name)[start:stop] for name in file.keys()}


def iter_tensors(paths: Iterable[Path], names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) for `names`, one in memory at a time, wherever in `paths` it lies."""
    wanted = set(names)
    for path in paths:
        with _opened(path) as file:
            for name in wanted.intersection(file.keys()):
                yield name, file.get_tensor(name)


def _opened(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Remove it, or copy it again.") from None
