"""Learned motions in other forms: a LoRA made of whole weights, and a LoRA in the keys that ComfyUI reads."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.lora_files import PREFIX, Lora, lora_weights, matrix_shapes, squared_changes
from models.motion_weights import STORED_DTYPES, read_fitting, save_motion
from models.tunable import select_tunable
from utils.errors import UserError
from utils.tensor_files import write_tensors

SHOWN_RANKS = (8, 16, 32)
# diffusers' names of the layers that AnimateDiff's own motion LoRAs change
COMFY_LAYER = re.compile(
    r"(.*motion_modules\.\d+)\.(transformer_blocks\.\d+)\.attn([12])\.(to_[qkv]|to_out)(?:\.0)?")


def export_lora(unet: nn.Module, base_fingerprint: str, motion: Path, rank: int, path: Path,
                strength: float = 1.0, progress: Callable[[Iterable], Iterable] = iter) -> str:
    """Write the nearest low-rank updates of `rank` to the whole weights in the file `motion`, and return a
    report of how much of their squared change each rank keeps.

    Raises UserError, and writes nothing, if the file does not fit the base or holds no whole weights.
    """
    base = dict(unet.named_parameters())
    info, tuned = read_fitting(motion, unet, base_fingerprint)
    if info.lora:
        raise UserError(f"{motion}: is a LoRA already, of rank {info.lora.rank}. Use it as it is.")
    shapes = {name: tuple(tensor.shape) for name, tensor in tuned.items()}
    layers, matrices, values, squared = set(lora_weights(shapes, tuned)), {}, {}, {}
    if not layers:
        raise UserError(f"{motion}: has no Linear layer and no convolution, and a LoRA can hold nothing "
                        f"else. Use it as it is.")
    for name, tensor in progress(tuned.items()):
        change = strength * (tensor.float() - base[name].detach().float())
        squared[name], values[name] = change.double().square().sum().item(), torch.zeros(0)
        if name in layers:
            layer = name.removesuffix(".weight")
            matrices[f"{layer}.lora_A.weight"], matrices[f"{layer}.lora_B.weight"], values[name] = \
                nearest_low_rank(change, rank)
    stored = next(name for name, dtype in STORED_DTYPES.items() if dtype == next(iter(tuned.values())).dtype)
    save_motion(path, matrices, replace(info, lora=Lora(rank, rank)), stored)
    return kept_report(values, squared, select_tunable(base, info.groups), sorted({*SHOWN_RANKS, rank}))


def nearest_low_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A and B, so that B A is the matrix of `rank` nearest to `change` (out in ...), and the squared
    singular values of `change`, largest first.

    Where `change` has fewer rows or columns than `rank`, zeros fill up A and B.
    """
    left, values, right = torch.linalg.svd(change.flatten(1), full_matrices=False)   # (o k) (k) (k i*...)
    num = min(rank, len(values))
    down, up = change.new_zeros(rank, right.shape[1]), change.new_zeros(len(left), rank)
    roots = values[:num].sqrt()   # both sides get the root: equally large, they keep most digits in fp16
    down[:num], up[:, :num] = roots[:, None] * right[:num], left[:, :num] * roots
    shapes = matrix_shapes(tuple(change.shape), rank)
    return down.reshape(shapes["lora_A"]), up.reshape(shapes["lora_B"]), values.double().square()


def kept_report(values: Mapping[str, Tensor], squared: Mapping[str, float],
                selected: Mapping[str, list[str]], ranks: Iterable[int]) -> str:
    """Return a table of the share of the squared change that low-rank updates of each rank keep, by group.

    `values`: the squared singular values of each tensor's change, empty where a LoRA leaves the tensor out.
    `squared`: the sum of the squares of each change.
    """
    ranks = list(ranks)
    lines = ["kept of the squared change", f"  {'rank':<16}" + "".join(f"{rank:>8}" for rank in ranks)]
    for group, names in {**selected, "together": list(squared)}.items():
        whole = max(sum(squared[name] for name in names), 1e-30)
        shares = [sum(values[name][:rank].sum().item() for name in names) / whole for rank in ranks]
        lines.append(f"  {group:<16}" + "".join(f"{share:>8.1%}" for share in shares))
    return "\n".join(lines)


def export_comfy(unet: nn.Module, base_fingerprint: str, motion: Path, path: Path,
                 strength: float = 1.0) -> str:
    """Write the attention layers of a LoRA's motion modules in the keys of AnimateDiff's motion LoRAs, and
    return what was written and how much of the change was not.

    The published motion LoRAs hold nothing else. Whether ComfyUI would read, for example, feed-forward layers
    from such a file was not tried, so they are left out. These files have no alpha, so it is multiplied into
    `up`, with `strength`. Raises UserError, and writes nothing, if the file does not fit the base, holds
    whole weights, or has nothing of motion modules.
    """
    info, tensors = read_fitting(motion, unet, base_fingerprint)
    if not info.lora:
        raise UserError(f"{motion}: holds whole weights. Make a LoRA of it first: --export-lora 32 FILE.")
    written = {}
    for key, tensor in tensors.items():
        layer, _, matrix = key.removeprefix(PREFIX).partition(".lora_")
        if found := COMFY_LAYER.fullmatch(layer):
            module, block, number, projection = found.groups()
            place = (f"{module}.temporal_transformer.{block}.attention_blocks.{int(number) - 1}.processor."
                     f"{projection}_lora")
            if matrix == "A.weight":
                written[f"{place}.down.weight"] = tensor
            else:
                scaled = info.lora.scale * strength * tensor.float()
                written[f"{place}.up.weight"] = scaled.to(tensor.dtype)
    if not written:
        raise UserError(f"{motion}: has no attention in motion modules, and a motion LoRA of AnimateDiff "
                        f"holds nothing else. Train one on an AnimateDiff base, with the group temporal.")
    write_tensors(path, written)
    squared = squared_changes({key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}, 1)
    lost = {name: square for name, square in squared.items()
            if not COMFY_LAYER.fullmatch(name.removesuffix(".weight"))}
    share = sum(lost.values()) / max(sum(squared.values()), 1e-30)
    return (f"{len(squared) - len(lost)} layers of attention along time. Left out: {len(lost)} other layers, "
            f"with {share:.1%} of the squared change. They are not written, because AnimateDiff's own motion "
            f"LoRAs hold attention along time alone.")
