"""What the bundled recognizers are trained on: clips for the motion, single frames for everything else.

Shapes: n clips, b of a batch, f frames, h w c pixels and colours, k labels.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from puppets import theatre, world
from puppets.recognizer_labels import MOTIONS, NUMBERS, OTHER, draw_any_scene, shown_labels

MOTION_SEED, FRAME_SEED = 5201, 5202   # of the clips that are trained on
CHECK_SEED = 5203                      # of clips that are only measured on
SHARD_CLIPS = 1024                     # clips in a file
FROZEN_SHARE, SHUFFLED_SHARE = 0.05, 0.10   # of the clips; they teach what is not a motion
SLOW_SHARE = 0.4                       # of the clips: up to two seconds long, at a lower frame rate
LOWEST_FPS = 3.7                       # about two seconds in 8 frames
BASE = Path("models/puppet-theatre")   # whose rendered videos the recognizers shall judge


def draw_motion_shard(index: int) -> dict[str, Tensor]:
    """Return shard `index`: frames uint8 (n f h w c) and labels (n). Most clips last one second, some two."""
    frames, labels = [], []
    for first in range(index * SHARD_CLIPS, (index + 1) * SHARD_CLIPS, 64):
        rng = np.random.default_rng((MOTION_SEED, 1, first))
        num = min(64, (index + 1) * SHARD_CLIPS - first)
        scenes = [draw_any_scene(rng) for _ in range(num)]
        fps = rng.uniform(LOWEST_FPS, 8) if rng.random() < SLOW_SHARE else 8
        clips = theatre.draw_clips(num, MOTION_SEED, first, fps=fps, scenes=scenes, trimmed=False,
                                   varied=True)
        frames.append(clips.frames)
        labels.append(shown_labels(scenes)["motion"])
    return {"frames": torch.from_numpy(np.concatenate(frames)),
            "labels": torch.from_numpy(np.concatenate(labels))}


def with_stills(frames: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Freeze some clips, shuffle others, and return all clips with their target probabilities (b k).

    The target of a frozen clip is `standing`, that of a shuffled clip OTHER. Without such clips the
    recognizer would tell the motion from a single pose.
    """
    frames, target = frames.clone(), F.one_hot(labels, len(MOTIONS)).float()
    standing, other = MOTIONS.index("standing"), MOTIONS.index(OTHER)
    for i, draw in enumerate(rng.random(len(frames))):
        if draw < FROZEN_SHARE:
            frames[i] = frames[i, rng.integers(frames.shape[1])]
            target[i] = F.one_hot(torch.tensor(standing), len(MOTIONS))
        elif draw < FROZEN_SHARE + SHUFFLED_SHARE and labels[i] != standing:
            frames[i] = frames[i, torch.from_numpy(shuffled_order(rng, frames.shape[1]))]
            target[i] = F.one_hot(torch.tensor(other), len(MOTIONS))
    return frames, target


def shuffled_order(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Return a random order of frames in which at most a fourth of the neighbours stay together."""
    while True:
        order = rng.permutation(num_frames)
        if (np.abs(np.diff(order)) == 1).sum() <= num_frames // 4:
            return order


def draw_frame_shard(index: int) -> dict[str, Tensor]:
    """Return shard `index`: two moments of each clip, uint8 (n 2 h w c), and what they show (n 3).

    The three columns are the indices of character, number and place.
    """
    first = index * SHARD_CLIPS
    rng = np.random.default_rng((FRAME_SEED, 1, first))
    scenes = [draw_any_scene(rng) for _ in range(SHARD_CLIPS)]
    clips = theatre.draw_clips(SHARD_CLIPS, FRAME_SEED, first, num_frames=2, fps=1.3, scenes=scenes,
                               trimmed=False)
    labels = shown_labels(scenes)
    shown = np.stack([labels["character"], labels["number"], labels["place"]], axis=1)
    return {"frames": torch.from_numpy(clips.frames), "shown": torch.from_numpy(shown)}


def scene_of(shown: list[int]) -> world.Scene:
    """Return the scene of a row of `draw_frame_shard`; its motion is left empty."""
    character, number, place = shown
    return world.Scene(world.CHARACTERS[character], "", world.PLACES[place], NUMBERS[number])


def load_vae() -> AutoencoderKL:
    """Return the autoencoder of BASE, frozen, in the memory format that is fastest on a CPU."""
    vae = AutoencoderKL.from_pretrained(BASE / "vae", use_safetensors=True).eval().requires_grad_(False)
    return vae.to(memory_format=torch.channels_last)
