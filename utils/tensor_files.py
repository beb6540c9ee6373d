"""safetensors files, written whole or not at all, and read with the reason when they are damaged.

Files written here carry a digest of their tensors and metadata, so that a flipped bit is found too. Those of
a base, which others wrote, have none.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.errors import UserError
from utils.files import replacing

DIGEST = "digest"   # its key in the metadata


def write_tensors(path: Path, tensors: dict[str, torch.Tensor],
                  metadata: dict[str, str] | None = None) -> str:
    """Write tensors and string metadata to `path`; return their digest. Raises UserError if the disk is
    full."""
    tensors, metadata = {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or {}
    digest = tensors_digest(tensors, metadata)
    with replacing(path, tensor_bytes(tensors)) as partial:
        try:
            save_file(tensors, partial, {**metadata, DIGEST: digest})
        except SafetensorError as error:   # how the library reports a failed write
            raise OSError(str(error)) from error
    return digest


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how much `tensors` take on disk, near enough."""
    return sum(tensor.nbytes for tensor in tensors.values())


def tensors_digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors (names, types, shapes, every byte) and metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, its digest aside. Raises UserError if the header is
    damaged."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    return {name: value for name, value in metadata.items() if name != DIGEST}


def read_digest(path: Path) -> str | None:
    """Return the digest a safetensors file carries. Raises UserError if the header is damaged."""
    with _opened(path) as file:
        return (file.metadata() or {}).get(DIGEST)


def read_tensors(path: Path, may_lack_digest: bool = False) -> dict[str, torch.Tensor]:
    """Return all tensors of a file of `write_tensors`, on the CPU.

    Raises UserError if a single bit of it is not as written.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    digest = read_digest(path)
    if digest is None and may_lack_digest:
        return tensors
    if digest != tensors_digest(tensors, read_metadata(path)):
        raise UserError(f"{path}: is damaged: its content is not what was written. Remove it, or copy it "
                        f"again.")
    return tensors


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
