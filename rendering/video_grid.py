"""Several videos beside each other in one animated GIF, such as the picture in the README."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from utils.files import replacing
from utils.video import probe, read_frames

GAP = 4   # pixels between videos
MOST_GIF_FPS = 50   # a browser slows a GIF down to 10 frames a second if it asks for more


def write_grid(videos: Sequence[Path], path: Path, columns: int, size: tuple[int, int],
               beside: Sequence[Path] = ()) -> None:
    """Write a GIF of `videos`, each of `size` (width and height in pixels), as long as the shortest one,
    at the rate of the first one. Above MOST_GIF_FPS, frames are left out.

    Videos `beside` make a column of their own to the left, such as the exemplars of a motion. If there are
    more of them than rows, they are chosen at even distances.
    """
    rows = min(len(beside), math.ceil(len(videos) / columns))
    beside = [beside[row * len(beside) // rows] for row in range(rows)]
    infos = [probe(video) for video in (*videos, *beside)]
    fps, num_frames = infos[0].fps, min(info.num_frames for info in infos)
    step = math.ceil(fps / MOST_GIF_FPS)
    shown = range(0, num_frames, step)
    tiles = np.stack([read_frames(video, shown, size) for video in (*videos, *beside)])
    frames = arrange(tiles[: len(videos)], columns)                                            # (f h w c)
    if beside:
        frames = place_beside(arrange(tiles[len(videos) :], 1), frames)
    grid = [Image.fromarray(frame) for frame in frames]
    # in hundredths of a second, as a GIF counts
    starts = [round(100 * frame / fps) for frame in (*shown, min(num_frames, shown[-1] + step))]
    with replacing(path) as partial:
        grid[0].save(partial, save_all=True, append_images=grid[1:], loop=0, optimize=True,
                     duration=[10 * max(2, end - start) for start, end in zip(starts, starts[1:])])


def place_beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return frames (f h w c) of two grids, with a wide white gap between, and white below the left one."""
    below = right.shape[1] - left.shape[1]
    left = np.pad(left, ((0, 0), (0, below), (0, 4 * GAP), (0, 0)), constant_values=255)
    return np.concatenate([left, right], axis=2)


def arrange(videos: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (f h w c) of a grid of videos (n f h w c), with white between them."""
    columns = min(columns, len(videos))
    num_missing = -len(videos) % columns   # in the last row
    tiles = np.pad(videos, ((0, num_missing), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    grid = rearrange(tiles, "(rows columns) f h w c -> f (rows h) (columns w) c", columns=columns)
    return grid[:, :-GAP, :-GAP]
