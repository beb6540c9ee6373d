"""The cases of studies/benchmark.py: bases of several sizes, and a config to train each of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rendering.sampling import Rendering
from studies.random_base import SIZES, write_random_base, write_random_clip
from studies.step_costs import ALL_ON, LADDER, OTHERS, PLAIN, Variant
from utils.commands import ROOT

NUM_FRAMES = (8, 16, 32, 64)   # of a clip, by which the cost of a step grows
LARGE_GPU = 100 * 2**30   # bytes; plain and all on of the ZeroScope size fit into it together


@dataclass(frozen=True)
class Case:
    """A base, the batch it trains on, and the number of rounds."""

    what: str
    pixels: int                       # width and height of clips
    num_frames: int
    rounds: int                       # steps timed of each variant
    videos: Rendering | None = None
    is_random: bool = True            # a base of studies/random_base.py; otherwise the bundled base and clips
    at_once: int = len(LADDER) + len(OTHERS)   # variants that are in memory together


CASES = {
    "bundled": Case("the bundled base, 4 + 4 clips of 8 frames, 64x64", 64, 8, 7,
                    Rendering(64, 64, 8, 25, 4.0), is_random=False),
    "small": Case("a 5 M parameter UNet, 1 + 1 clips of 16 frames, 256x256", 256, 16, 5,
                  at_once=3),   # 3.5 GB the largest
    "zeroscope": Case("the ZeroScope-size UNet, 1 + 1 clips of 16 frames, 384x384", 384, 16, 5,
                      Rendering(384, 384, 16, 25, 9.0), at_once=1),
    "tiny": Case("a network for trying this script, 1 + 1 clips of 4 frames, 64x64", 64, 4, 1,
                 Rendering(64, 64, 4, 2, 4.0)),
}


def groups_in_turn(case: Case, variants: Sequence[Variant]) -> list[list[Variant]]:
    """Return `variants` in groups. A group is in memory together, and its variants take turns.

    Plain and all on are compared with each other, so both are in the first group if there is room for two.
    """
    ends_first = sorted(variants, key=lambda variant: variant not in (PLAIN, ALL_ON))
    first = max(case.at_once, 2 if gpu_bytes() > LARGE_GPU else 1)
    rest = range(first, len(variants), case.at_once)
    return [ends_first[:first], *(ends_first[start : start + case.at_once] for start in rest)]


def gpu_bytes() -> int:
    """Return the memory of the GPU; 0 without one."""
    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0


@dataclass(frozen=True)
class Setting:
    """One process measures this: a variant of training with a config."""

    config: str
    overrides: tuple[str, ...]
    variant: Variant = ALL_ON


def prepare(name: str, work: Path) -> Setting:
    """Return the setting of a case. The base and clips of a random case are written into `work`."""
    case, folder = CASES[name], work / name
    common = (f"output_dir={folder}", "checkpointing_steps=[]", "validation_steps=[]")
    if not case.is_random:
        data = ROOT / "data" / "puppets"
        return Setting(str(ROOT / "config.yaml"), (
            *common, f"pretrained_model_path={ROOT / 'models' / 'puppet-theatre'}",
            f"train_data.path={data / 'exemplars'}", f"train_data.class_path={data / 'regularization'}",
            "train_data.num_shifts=0", "train_batch_size=4"))
    write_random_base(folder / "base", SIZES[name])
    for role in ("exemplars", "regularization"):
        write_random_clip(folder / role / "clip.apng", max(NUM_FRAMES), case.pixels)
    return Setting(os.devnull, (
        *common, f"pretrained_model_path={folder / 'base'}", f"train_data.path={folder / 'exemplars'}",
        f"train_data.class_path={folder / 'regularization'}", "train_data.fps=8",
        f"train_data.n_sample_frames={case.num_frames}", f"train_data.width={case.pixels}",
        f"train_data.height={case.pixels}"))
