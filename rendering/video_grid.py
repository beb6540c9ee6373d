"""Several videos beside each other in one animated GIF, such as the picture in the README."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import replacing
from utils.video import probe, read_frames

GAP = 4   # pixels between videos


def write_grid(videos: Sequence[Path], path: Path, columns: int, size: tuple[int, int]) -> None:
    """Write a GIF of `videos`, each of `size` (width and height in pixels), as long as the shortest one,
    at the rate of the first one."""
    infos = [probe(video) for video in videos]
    num_frames = min(info.num_frames for info in infos)
    tiles = [read_frames(video, range(num_frames), size) for video in videos]   # (f h w c)
    grid = [Image.fromarray(frame) for frame in arrange(np.stack(tiles), columns)]
    with replacing(path) as partial:
        grid[0].save(partial, save_all=True, append_images=grid[1:], duration=round(1000 / infos[0].fps),
                     loop=0, optimize=True)


def arrange(videos: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (f h w c) of a grid of videos (n f h w c), with white between them."""
    num, num_frames, height, width, channels = videos.shape
    columns = min(columns, num)
    rows = -(-num // columns)
    size = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP
    grid = np.full((num_frames, *size, channels), 255, np.uint8)
    for index, video in enumerate(videos):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        grid[:, top : top + height, left : left + width] = video
    return grid
