"""What the bundled recognizers learn from: drawn clips for the motion, single frames for all else.

Shapes: n clips, b of a batch, f frames, h w c pixels and colours, k labels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from puppets import theatre, world
from puppets.recognizer_labels import MOTIONS, NUMBERS, OTHER, draw_scene, shown_labels

MOTION_SEED, FRAME_SEED, HELD_OUT_SEED = 5201, 5202, 5203    # of the clips; the last only to measure on
SHARD_CLIPS = 1024                                # drawn at once
FROZEN, SHUFFLED = 0.05, 0.10                     # shares of the clips shown so, to teach what is no motion
SLOW = 0.4                                        # share of clips of up to two seconds, at lower frame rates
LOWEST_FPS = 3.7                                  # 8 frames out of 16 at 8 frames a second


def draw_clips(index: int) -> dict[str, Tensor]:
    """Shard `index`: frames uint8 (n f h w c) and labels (n). Most clips last a second, some up to two."""
    frames, labels = [], []
    for first in range(index * SHARD_CLIPS, (index + 1) * SHARD_CLIPS, 64):
        rng = np.random.default_rng((MOTION_SEED, 1, first))
        num = min(64, (index + 1) * SHARD_CLIPS - first)
        scenes = [draw_scene(rng) for _ in range(num)]
        fps = rng.uniform(LOWEST_FPS, 8) if rng.random() < SLOW else 8
        frames.append(theatre.draw_clips(num, MOTION_SEED, first, fps=fps, scenes=scenes).frames)
        labels.append(shown_labels(scenes)["motion"])
    return {"frames": torch.from_numpy(np.concatenate(frames)),
            "labels": torch.from_numpy(np.concatenate(labels))}


def with_stills(frames: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Freeze some clips and shuffle others, and return them with the wanted probabilities (b k).

    A clip that stands still at any moment of a motion is `standing`, one in a wrong order OTHER. Else a pose
    would be enough to tell the motion.
    """
    frames, target = frames.clone(), F.one_hot(labels, len(MOTIONS)).float()
    standing, other = MOTIONS.index("standing"), MOTIONS.index(OTHER)
    for i, draw in enumerate(rng.random(len(frames))):
        if draw < FROZEN:
            frames[i] = frames[i, rng.integers(frames.shape[1])]
            target[i] = F.one_hot(torch.tensor(standing), len(MOTIONS))
        elif draw < FROZEN + SHUFFLED and labels[i] != standing:
            frames[i] = frames[i, torch.from_numpy(shuffled_order(rng, frames.shape[1]))]
            target[i] = F.one_hot(torch.tensor(other), len(MOTIONS))
    return frames, target


def shuffled_order(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """An order of frames that keeps no more than a fourth of the neighbours together."""
    while True:
        order = rng.permutation(num_frames)
        if (np.abs(np.diff(order)) == 1).sum() <= num_frames // 4:
            return order


def draw_frames(index: int) -> dict[str, Tensor]:
    """Shard `index`: two moments of each clip, uint8 (n 2 h w c), and what they show (n 3)."""
    first = index * SHARD_CLIPS
    rng = np.random.default_rng((FRAME_SEED, 1, first))
    scenes = [draw_scene(rng) for _ in range(SHARD_CLIPS)]
    clips = theatre.draw_clips(SHARD_CLIPS, FRAME_SEED, first, num_frames=2, fps=1.3, scenes=scenes)
    labels = shown_labels(scenes)
    shown = np.stack([labels["character"], labels["number"], labels["place"]], axis=1)
    return {"frames": torch.from_numpy(clips.frames), "shown": torch.from_numpy(shown)}


def scene_of(shown: list[int]) -> world.Scene:
    character, number, place = shown
    return world.Scene(world.CHARACTERS[character], "", world.PLACES[place], NUMBERS[number])
