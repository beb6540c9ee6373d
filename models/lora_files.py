"""LoRA as files and numbers: which layers get low-rank updates, their shapes, and the keys of a LoRA file.

A layer with weight W (out, in, ...) gets two matrices. It then computes with W + alpha / rank * B A, where A
is (rank, in, ...) and B is (out, rank, 1, ...). The file has the keys and the description that diffusers
gives a LoRA of a UNet, so that diffusers loads it. models/lora.py puts the matrices into a network.
Source: Hu et al. 2021, arXiv 2106.09685.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.tunable import select_tunable, union

DESCRIPTION = "lora_adapter_metadata"   # the key under which diffusers keeps the settings of a LoRA
PREFIX = "unet."                        # of the UNet's keys, among those of a whole pipeline
MATRICES = ("lora_A", "lora_B")
# diffusers calls these layers with a keyword that peft's layers do not take
LEFT_OUT = r"(^|\.)motion_modules\.\d+\.proj_(in|out)\.weight"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Lora:
    """The settings of low-rank updates."""

    rank: int
    alpha: float
    dropout: float = 0.0   # of the input of A, while training

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / self.rank


def lora_weights(shapes: Shapes, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are weights of layers with low-rank updates: Linear and convolutions."""
    return [name for name in names
            if name.endswith(".weight") and len(shapes[name]) > 1 and not re.search(LEFT_OUT, name)]


def matrix_shapes(shape: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of A and B for a weight of `shape`."""
    return {"lora_A": (rank, *shape[1:]), "lora_B": (shape[0], rank, *(1 for _ in shape[2:]))}


def num_low_rank(shapes: Shapes, names: Iterable[str], rank: int) -> dict[str, int]:
    """Return {weight: the number of values of its A and B} for those of `names` that get low-rank updates."""
    return {name: sum(map(math.prod, matrix_shapes(shapes[name], rank).values()))
            for name in lora_weights(shapes, names)}


def check_lora(shapes: Shapes, selected: Mapping[str, list[str]]) -> list[str]:
    """Return the groups that have no layer for low-rank updates, a line each."""
    return [f"lora_rank: {group!r} of trainable_modules has no Linear layer and no convolution, so nothing "
            f"of it would train. Leave {group!r} out, or set lora_rank: 0."
            for group, names in selected.items() if not lora_weights(shapes, names)]


def all_matrices(shapes: Shapes, names: Iterable[str], rank: int) -> dict[str, tuple[int, ...]]:
    """Return {key without prefix: shape} of the matrices for those of `names` that get low-rank updates."""
    return {f"{name.removesuffix('weight')}{matrix}.weight": shape for name in lora_weights(shapes, names)
            for matrix, shape in matrix_shapes(shapes[name], rank).items()}


def without_alpha(matrices: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """Return matrices with the factor of B A multiplied in, which make the same updates with alpha = rank.

    Programs that do not read the description take the rank for alpha. A factor below one goes into A, because
    the values of B begin at zero and are small: in fp16 they would lose digits. Of a power of two, as 8 / 4,
    nothing is rounded.
    """
    scaled = ".lora_A." if lora.scale < 1 else ".lora_B."
    return {name: lora.scale * matrix.detach() if scaled in name and lora.scale != 1 else matrix
            for name, matrix in matrices.items()}


def file_tensors(trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices under their keys in a file.

    In a network, peft puts the name of the adapter between lora_A and weight. The keys in a file lack it.
    """
    return {PREFIX + re.sub(r"\.(lora_[AB])\.[^.]+\.weight$", r".\1.weight", name): tensor
            for name, tensor in trained.items()}


def description(rank: int, keys: Iterable[str]) -> dict[str, str]:
    """Return the metadata by which diffusers loads a file with `keys`, whose alpha is the rank."""
    layers = sorted({key.removeprefix(PREFIX).partition(".lora_")[0] for key in keys})
    settings = {"r": rank, "lora_alpha": rank, "target_modules": layers,
                "rank_pattern": {}, "alpha_pattern": {}}   # diffusers 0.34 to 0.39 must find these two
    return {DESCRIPTION: json.dumps({PREFIX + name: value for name, value in settings.items()})}


def described(metadata: Mapping[str, str]) -> Lora:
    """Return the settings in the metadata of a file. Raises KeyError or ValueError if they are damaged."""
    settings = json.loads(metadata[DESCRIPTION])
    if not isinstance(settings, dict):
        raise ValueError(f"{DESCRIPTION} {settings!r}")
    rank, alpha = settings[f"{PREFIX}r"], settings[f"{PREFIX}lora_alpha"]
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)) or \
            not math.isfinite(alpha):
        raise ValueError(f"rank {rank!r}, alpha {alpha!r}")
    return Lora(rank, alpha)


def lora_misfits(path: Path, tensors: Mapping[str, Tensor], lora: Lora, shapes: Shapes,
                 groups: list[str]) -> list[str]:
    """Return what keeps a file's tensors from being low-rank updates of the groups of a network with
    `shapes`."""
    names = union(select_tunable(shapes, groups))
    expected = {PREFIX + key: shape for key, shape in all_matrices(shapes, names, lora.rank).items()}
    known = sorted(expected.keys() & tensors)
    if not known:
        return [f"{path}: none of its {len(tensors)} tensors belongs to a layer of this base (the first is "
                f"{min(tensors, default='none')}). Use the base it was trained on."]
    ranks = {key: tensors[key].shape[key.endswith(".lora_B.weight")] for key in known
             if tensors[key].ndim == len(expected[key])}
    wrong = [f"{path}: {key} is of rank {rank}, and its description says {lora.rank}. Copy the file again."
             for key, rank in ranks.items() if rank != lora.rank]
    return wrong[:10] or misfits(path, tensors, expected, groups)


def misfits(path: Path, tensors: Mapping[str, Tensor], expected: Shapes, groups: list[str]) -> list[str]:
    """Return what keeps a file's tensors from being the tensors of `groups`, which have `expected` names and
    shapes: a line each, at most ten."""
    missing, unknown = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    problems = []
    if missing:
        problems.append(f"{path}: lacks {len(missing)} tensors of {groups}, the first {missing[0]}. Copy it "
                        f"again.")
    if unknown:
        problems.append(f"{path}: has {len(unknown)} tensors that are not of {groups}, the first "
                        f"{unknown[0]}.")
    for name in sorted(expected.keys() & tensors):
        tensor, shape = tensors[name], expected[name]
        if tensor.shape != shape:
            problems.append(f"{path}: {name} has shape {tuple(tensor.shape)}, and this base needs {shape}.")
        elif not tensor.is_floating_point() or not tensor.isfinite().all():
            problems.append(f"{path}: {name} has values that are not finite numbers. Copy the file again.")
    return problems[:10]


def squared_changes(trained: Mapping[str, Tensor], scale: float) -> dict[str, float]:
    """Return {weight: squared norm of scale * B A}, without computing B A, which is large.

    |B A|^2 is the sum of (B' B) * (A A'), two matrices of rank x rank.
    """
    matrices = {name: tensor.detach().cpu().double().flatten(1)
                for name, tensor in file_tensors(trained).items()}
    squared = {}
    for key, down in matrices.items():
        if key.endswith(".lora_A.weight"):
            layer = key.removesuffix(".lora_A.weight")
            up = matrices[f"{layer}.lora_B.weight"]
            gram = (up.T @ up) * (down @ down.T)
            squared[f"{layer.removeprefix(PREFIX)}.weight"] = scale ** 2 * gram.sum().item()
    return squared
