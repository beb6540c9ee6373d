"""The file that a run produces: the trained tensors, and a description that says how to use them.

It is a safetensors file with the description in the header's metadata. It holds only the tensors that
trained: whole weights, or the matrices of low-rank updates (models/lora_files.py). Applying it checks
everything first, and changes the network only when everything fits.
"""

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.fingerprints import heads, is_related, rounded_fingerprints
from models.kinds import kind_of
from models.lora_files import (
    Lora,
    described,
    description,
    file_tensors,
    lora_misfits,
    misfits,
    squared_changes,
    without_alpha,
)
from models.single_files import refusal_of_file
from models.tunable import select_tunable, union
from utils.devices import DTYPES
from utils.errors import UserError, attempt
from utils.files import file_digest
from utils.tensor_files import iter_tensors, read_digest, read_metadata, read_tensors, write_tensors

FORMAT = "motion-weights-2"
OLD_FORMAT = "motion-weights-1"   # written before files carried a digest
LORA_FORMAT = "motion-lora-1"     # the tensors are matrices of low-rank updates
STORED_DTYPES = {"fp16": DTYPES["fp16"], "fp32": DTYPES["no"]}   # by motion_dtype
OPTIONAL = ("lora", "noise_schedule", "rounded_fingerprints")   # fields that not every file has
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft")


@dataclass(frozen=True)
class MotionInfo:
    """The description in a file of motion weights."""

    base: str                # folder or hub id, as the user gave it
    base_fingerprint: str    # hash of the base's UNet
    groups: list[str]        # trainable_modules
    placeholder_token: str
    step: int                # optimizer steps trained
    fps: float               # frames per second at which the motion was learned
    config: str              # the resolved training config, YAML
    versions: dict[str, str]
    lora: Lora | None = None   # of low-rank updates; None: the file holds whole weights
    # of the base, as models/same_base.py compares it; empty in files of earlier versions
    noise_schedule: dict[str, Any] = field(default_factory=dict)
    # of the base's UNet, as models/fingerprints.py compares them; empty in files of earlier versions
    rounded_fingerprints: dict[str, str] = field(default_factory=dict)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute the weights."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def save_motion(path: Path, tensors: Mapping[str, Tensor], info: MotionInfo, dtype: str) -> None:
    """Write the trained tensors in `dtype` (fp16 or fp32), or in fp32 if a value is too large for fp16.

    In a file of low-rank updates alpha is the rank, for programs that do not read the description. Raises
    UserError, and writes nothing, if a value is not finite.
    """
    stored = without_alpha(tensors, info.lora) if info.lora else tensors
    broken = [name for name, tensor in stored.items()
              if not tensor.detach().to(STORED_DTYPES[dtype]).isfinite().all()]
    if broken and dtype == "fp16":
        return save_motion(path, tensors, info, "fp32")
    if broken:
        raise UserError(f"{path}: {len(broken)} tensors have values that are not finite, the first "
                        f"{broken[0]}. Nothing was written. Try a lower learning_rate.")
    fields = {name: value if isinstance(value, str) else json.dumps(value)
              for name, value in vars(info).items() if name != "lora"}
    if info.lora:
        stored = file_tensors(stored)
        fields |= description(info.lora.rank, stored)
    file_format = LORA_FORMAT if info.lora else FORMAT
    write_tensors(path, stored, {"format": file_format, **fields}, STORED_DTYPES[dtype])


def read_motion_info(path: Path) -> MotionInfo:
    """Return the description in a file of motion weights. Raises UserError if it is another kind of file."""
    metadata = read_metadata(path)
    found = metadata.get("format", "")
    if found not in (FORMAT, OLD_FORMAT, LORA_FORMAT):
        is_later = found.startswith("motion-")   # a file of a later version of this program
        raise UserError(not is_later and refusal_of_file(path) or
                        f"{path}: holds no motion weights of this program ({FORMAT}, {LORA_FORMAT}). "
                        f"Give a run folder, a checkpoint folder or a motion.safetensors.")
    try:
        fields = {name: metadata[name] for name in MotionInfo.__dataclass_fields__ if name not in OPTIONAL}
        parsed = {name: json.loads(fields[name]) for name in ("groups", "step", "fps", "versions")}
        for name in ("noise_schedule", "rounded_fingerprints"):
            parsed[name] = json.loads(metadata.get(name, "{}"))
        _check_fields(parsed)
        lora = described(metadata) if metadata["format"] == LORA_FORMAT else None
        return MotionInfo(**{**fields, **parsed}, lora=lora)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its description is damaged ({error}). Copy the file again.") from None


def _check_fields(parsed: Mapping[str, Any]) -> None:
    """Raise ValueError if a value of a description is of another type than MotionInfo has for it."""
    for name, kind in (("groups", list), ("step", int), ("fps", (int, float)), ("versions", dict),
                       ("noise_schedule", dict), ("rounded_fingerprints", dict)):
        if not isinstance(parsed[name], kind):
            raise ValueError(f"{name} {parsed[name]!r}")
    if not all(isinstance(group, str) for group in parsed["groups"]) or not 0 < parsed["fps"] < math.inf:
        raise ValueError(f"groups {parsed['groups']!r}, fps {parsed['fps']!r}")


def apply_motion(unet: nn.Module, base_fingerprint: str, path: Path, strength: float = 1.0) -> MotionInfo:
    """Set the tuned tensors of `unet` to base + strength * (tuned - base), or add low-rank updates times
    `strength`, and return the file's description.

    Raises UserError, and leaves `unet` as it was, if the file was trained on another base, lacks tensors of
    its groups, or has a tensor of another shape or a value that is not finite.
    """
    return apply_motions(unet, base_fingerprint, [(path, strength)])[0]


def apply_motions(unet: nn.Module, base_fingerprint: str,
                  motions: Sequence[tuple[Path, float]]) -> list[MotionInfo]:
    """Set the tensors of `unet` to base + the sum of strength * (tuned - base) over `motions`, which are
    pairs of a file and its strength, and add low-rank updates beside them. Return the descriptions.

    The order of `motions` changes nothing, to the last bit. Raises UserError with the problems of all files,
    and leaves `unet` as it was, if one of them does not fit, as for `apply_motion`.
    """
    problems, parameters = [], dict(unet.named_parameters())
    read = [attempt(lambda path=path: read_fitting(path, unet, base_fingerprint), None, problems)
            for path, _ in motions]
    if problems:
        raise UserError(*problems)

    def content(index: int) -> tuple[str, float]:
        path, strength = motions[index]
        return read_digest(path) or file_digest(path), strength   # old files carry no digest

    # sums of three or more depend on their order in the last bit, so the files are sorted by their content
    summands = [(motions[index][1], *read[index]) for index in sorted(range(len(motions)), key=content)]
    changes: dict[str, list[tuple[float, Tensor]]] = {}
    for strength, info, tuned in summands:
        if strength and not info.lora:
            for name, tensor in tuned.items():
                changes.setdefault(name, []).append((strength, tensor))
    for name, several in changes.items():
        parameter = parameters[name].data
        parameter.copy_(_summed(parameter, several))
    if any(info.lora for info, _ in read):
        from models.lora import apply_lora  # imports diffusers, for which a dry run should not wait

        for number, (strength, info, matrices) in enumerate(summands):
            if info.lora:   # after the whole weights: it wraps layers, whose weights then have other names
                apply_lora(unet, matrices, info.lora, strength, adapter=f"motion{number}")
    return [info for info, _ in read]


def _summed(before: Tensor, summands: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return `before` + the sum of strength * (tuned - before), added in the order of `summands`."""
    if len(summands) == 1 and summands[0][0] == 1:
        return summands[0][1].to(before.dtype)   # before + (tuned - before) would round
    changes = [strength * (tuned.to(before.dtype) - before) for strength, tuned in summands]
    return before + sum(changes[1:], changes[0])


def read_fitting(path: Path, unet: nn.Module, base_fingerprint: str) -> tuple[MotionInfo, dict[str, Tensor]]:
    """Return the description and the tensors of a file. Raises UserError if they do not fit the base, whose
    `unet` has not been changed yet."""
    info = read_motion_info(path)
    tuned = read_tensors(path, may_lack_digest=read_metadata(path)["format"] == OLD_FORMAT)
    shapes = {name: tuple(parameter.shape) for name, parameter in unet.named_parameters()}
    if info.base_fingerprint != base_fingerprint:
        kind = kind_of(shapes)
        now = rounded_fingerprints(unet.state_dict(), kind, heads(unet, kind))
        if not is_related(info.rounded_fingerprints, now, tuned, kind):
            raise other_weights(path, info)
    problems = lora_misfits(path, tuned, info.lora, shapes, info.groups) if info.lora else \
        misfits(path, tuned, {name: shapes[name] for name in union(select_tunable(shapes, info.groups))},
                info.groups)
    if problems:
        raise UserError(*problems)
    return info, tuned


def other_weights(path: Path, info: MotionInfo) -> UserError:
    return UserError(f"{path}: was trained on {info.base}, and this base has other weights. Use the base it "
                     f"was trained on.")


def relative_change(unet_files: list[Path], tensors: Mapping[str, Tensor],
                    selected: Mapping[str, list[str]], lora: Lora | None = None) -> dict[str, float]:
    """Return for each group how far training has moved it: norm of the change / norm in the base.

    `tensors`: the trained weights, or the matrices of `lora`. The base's tensors are read from the files
    of its UNet one at a time.
    """
    changes, norms = squared_changes(tensors, lora.scale) if lora else {}, {}
    for name, before in iter_tensors(unet_files, union(selected)):
        before = before.double()
        norms[name] = before.square().sum().item()
        if not lora:
            changes[name] = (tensors[name].detach().cpu().double() - before).square().sum().item()

    def relative(names: Iterable[str]) -> float:
        names = list(names)   # low-rank updates do not change all of them
        changed, norm = sum(changes.get(name, 0) for name in names), sum(norms[name] for name in names)
        return (changed / max(norm, 1e-30)) ** 0.5

    return {group: relative(names) for group, names in selected.items()}
