"""What scripts/benchmark.py measures: bases of several sizes, and a config to train each by."""

import os
from dataclasses import dataclass
from pathlib import Path

from models.random_base import SIZES, write_random_base, write_random_clip
from models.sampling import Rendering
from models.step_costs import ALL_ON, LADDER, OTHERS, Variant
from utils.commands import ROOT

NUM_FRAMES = (8, 16, 32, 64)   # of a clip, by which the cost of a step grows


@dataclass(frozen=True)
class Case:
    """A base, the batch it trains on, and how long it is measured."""

    what: str
    pixels: int                       # width and height of clips
    num_frames: int
    rounds: int                       # steps timed of each variant
    videos: Rendering | None = None
    is_random: bool = True            # a base of models/random_base.py; else the bundled one on its own clips
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


@dataclass(frozen=True)
class Setting:
    """What one process measures: a variant of training by a config."""

    config: str
    overrides: tuple[str, ...]
    variant: Variant = ALL_ON


def prepare(name: str, work: Path) -> Setting:
    """Return the setting of a case; write its base and clips into `work` where it has none of its own."""
    case, folder = CASES[name], work / name
    common = (f"output_dir={folder}", "checkpointing_steps=[]", "validation_steps=[]")
    if not case.is_random:
        data = ROOT / "data" / "puppets"
        return Setting(str(ROOT / "config.yaml"), (
            *common, f"pretrained_model_path={ROOT / 'models' / 'puppet-theatre'}",
            f"train_data.path={data / 'exemplars'}", f"train_data.class_path={data / 'regularization'}"))
    write_random_base(folder / "base", SIZES[name])
    for role in ("exemplars", "regularization"):
        write_random_clip(folder / role / "clip.mp4", max(NUM_FRAMES), case.pixels)
    return Setting(os.devnull, (
        *common, f"pretrained_model_path={folder / 'base'}", f"train_data.path={folder / 'exemplars'}",
        f"train_data.class_path={folder / 'regularization'}", "train_data.fps=8",
        f"train_data.n_sample_frames={case.num_frames}", f"train_data.width={case.pixels}",
        f"train_data.height={case.pixels}"))
