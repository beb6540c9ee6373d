"""Drawn footage: scenes whose every frame can be told apart, written as real H.264."""

from pathlib import Path

import numpy as np

from utils.video import write_video

SIZE = (192, 128)   # width, height


def scene(num_frames: int, seed: int = 0, size: tuple[int, int] = SIZE, speed: float = 2) -> np.ndarray:
    """Return a bright square that crosses a textured background: uint8 (f h w c)."""
    width, height = size
    rng = np.random.default_rng(seed)
    cells = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3))
    background = np.kron(cells, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    frames = np.repeat(background[None], num_frames, axis=0)
    side, top = height // 4, height // 4 + seed * 5 % (height // 3)
    for index, frame in enumerate(frames):
        left = int(index * speed + seed * 7) % (width - side)
        frame[top:top + side, left:left + side] = rng.integers(0, 2, 3) * 60 + 190
        frame[top + 2:top + 6, left + 2:left + 6] = 0
    return frames


def black(num_frames: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((num_frames, size[1], size[0], 3), np.uint8)


def film(path: Path, *parts: np.ndarray, fps: float = 24) -> Path:
    """Write the parts one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.concatenate(parts), fps, {})
    return path
