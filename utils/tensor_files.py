"""safetensors files: written whole or not at all, and checked when they are read.

Files written here carry a digest of their tensors and metadata, so that even a flipped bit is found. The
files of a base were written by other programs and carry none.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from utils.errors import UserError
from utils.files import replacing

DIGEST = "digest"   # the key of the digest in the metadata
DTYPE_NAMES = {   # the names of dtypes in a safetensors header
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL"}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None,
                  dtype: torch.dtype | None = None) -> str:
    """Write tensors, in `dtype` if it is given, and metadata to `path`. Return the digest.

    One tensor at a time is brought to the CPU, converted and written, because the safetensors library would
    need a converted copy of all of them at once. Raises UserError if the disk is full.
    """
    metadata = dict(metadata or {})
    digest = tensors_digest(tensors, metadata, dtype)
    with replacing(path, tensor_bytes(tensors, dtype)) as partial, open(partial, "wb") as file:
        # wide values first, because each tensor must begin at a multiple of its value's width
        names = sorted(tensors, key=lambda name: (-(dtype or tensors[name].dtype).itemsize, name))
        file.write(_header({name: tensors[name] for name in names}, {**metadata, DIGEST: digest}, dtype))
        file.writelines(_stored(tensors[name], dtype) for name in names)
    return digest


def tensor_bytes(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """Return the bytes that `tensors` take on disk, without the header."""
    return sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in tensors.values())


def tensors_digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str],
                   dtype: torch.dtype | None = None) -> str:
    """Return the SHA-256 of tensors (names, dtypes, shapes, every byte) and metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {dtype or tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_stored(tensor, dtype))
    return digest.hexdigest()


def _stored(tensor: torch.Tensor, dtype: torch.dtype | None) -> np.ndarray:
    """Return the bytes of a tensor as its file holds them."""
    values = tensor.detach().to(dtype or tensor.dtype).cpu()
    return values.reshape(-1).view(torch.uint8).numpy()


def _header(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str],
            dtype: torch.dtype | None) -> bytes:
    """Return the header of a safetensors file: the length of its JSON, then the place of every tensor."""
    header, end = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor_bytes({name: tensor}, dtype)
        header[name] = {"dtype": DTYPE_NAMES[dtype or tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file without its digest. Raises UserError if the header is damaged."""
    with _opened(path) as file:
        return {key: value for key, value in (file.metadata() or {}).items() if key != DIGEST}


def read_digest(path: Path) -> str | None:
    """Return the digest that a file carries. Raises UserError if the header is damaged."""
    with _opened(path) as file:
        return (file.metadata() or {}).get(DIGEST)


def read_tensors(path: Path, may_lack_digest: bool = False) -> dict[str, torch.Tensor]:
    """Return all tensors of a file of `write_tensors`, on the CPU.

    Raises UserError if a single bit of the file differs from the bits written.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = dict(file.metadata() or {})
    digest = metadata.pop(DIGEST, None)
    is_unchecked = digest is None and may_lack_digest
    if not is_unchecked and digest != tensors_digest(tensors, metadata):
        raise UserError(f"{path}: is damaged: its content is not what was written. Remove it, or copy it "
                        f"again.")
    return tensors


def read_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return {name: (shape, dtype)} from the header alone. Raises UserError if the file is damaged."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def read_rows(path: Path, start: int, stop: int) -> dict[str, torch.Tensor]:
    """Return rows start..stop of every tensor. Only these bytes are read from the memory-mapped file."""
    with _opened(path) as file:
        return {name: file.get_slice(name)[start:stop] for name in file.keys()}


def iter_tensors(paths: Iterable[Path], names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) for `names` from the files `paths`, with one tensor in memory at a time."""
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
