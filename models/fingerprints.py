"""Hashes that tell bases apart: of the weights of a network, and of these weights as fp16 has them.

A base is often there twice, in float32 and in fp16. Rounded to fp16, both have the same values. A copy in
bf16 counts as another base: its values are rounded more.
"""

import hashlib
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from models.base_kind import BaseKind
from utils.files import digest_of

FINGERPRINT_VALUES = 1024   # of each tensor; any training changes some of them in every tensor it touches
WHOLE, ALONG_TIME = "whole", "along_time"   # what of a UNet is hashed


def unet_fingerprint(unet: nn.Module, kind: BaseKind) -> str:
    """Return the fingerprint of a UNet: its tensors, and what their shapes do not show."""
    return digest_of([fingerprint(unet.state_dict().items()), *heads(unet, kind)])


def heads(unet: nn.Module, kind: BaseKind) -> list[int]:
    return [unet.config[key] for key in kind.head_keys]


def fingerprint(tensors: Iterable[tuple[str, Tensor]], is_rounded: bool = False) -> str:
    """Return a hash of named tensors: names, shapes and the first values of each, rounded to fp16 or as they
    are."""
    parts = {}
    for name, tensor in tensors:
        values = tensor.flatten()[:FINGERPRINT_VALUES]
        values = (values.half() if is_rounded else values).float().cpu().numpy()
        parts[name] = f"{name} {tuple(tensor.shape)}".encode() + values.tobytes()
    return hashlib.sha256(b"".join(parts[name] for name in sorted(parts))).hexdigest()


def rounded_fingerprints(tensors: Mapping[str, Tensor], kind: BaseKind,
                         num_heads: list[int]) -> dict[str, str]:
    """Return hashes of a UNet's tensors as fp16 has them: of all and, where they come from a motion adapter,
    of those along time.

    `num_heads`: what the shapes of the tensors do not show.
    """
    found = {WHOLE: tensors}
    if kind.adapter:
        found[ALONG_TIME] = {name: tensor for name, tensor in tensors.items() if kind.is_along_time(name)}
    return {part: digest_of([fingerprint(some.items(), is_rounded=True), *num_heads])
            for part, some in found.items()}


def is_related(before: Mapping[str, str], now: Mapping[str, str], trained: Iterable[str],
               kind: BaseKind) -> bool:
    """Say whether weights that trained on a UNet with the rounded fingerprints `before` fit the UNet with the
    fingerprints `now`, although the exact fingerprints differ.

    They do if both are the same but for rounding. They also do if only layers along time trained and both
    UNets have the same: an image model with the same motion adapter. `trained`: names of tensors in the file.
    """
    parts = [WHOLE] + [ALONG_TIME] * all(kind.is_along_time(name) for name in trained)
    return any(part in before and before[part] == now.get(part) for part in parts)
