"""rendering/video_grid.py: videos beside each other in one GIF."""

import imageio.v3 as iio
import numpy as np
import pytest

from rendering.video_grid import GAP, write_grid
from utils.video import probe

SIDE = 16
WHITE = 260   # 255 to the nearest ten


def write_plain(path, grey: int, num_frames: int = 4):
    frames = np.full((num_frames, SIDE, SIDE, 3), grey, np.uint8)
    iio.imwrite(path, frames, fps=8, macro_block_size=2)
    return path


def shades(frame: np.ndarray, rows: list[int], columns: list[int]) -> list[list[int]]:
    """Return the shade in the middle of each tile, to the nearest ten."""
    return [[round(int(frame[y + SIDE // 2, x + SIDE // 2, 0]), -1) for x in columns] for y in rows]


def test_exemplars_stand_in_a_column_of_their_own_to_the_left(tmp_path):
    videos = [write_plain(tmp_path / f"{grey}.mp4", grey) for grey in (40, 80, 120)]
    exemplars = [write_plain(tmp_path / f"exemplar{grey}.mp4", grey, 8) for grey in (160, 180, 200, 220)]
    write_grid(videos, tmp_path / "grid.gif", 2, (SIDE, SIDE), exemplars)
    frames = iio.imread(tmp_path / "grid.gif", mode="RGB")
    step, first = SIDE + GAP, SIDE + 4 * GAP
    assert frames.shape[1:] == (2 * step - GAP, first + 2 * step - GAP, 3)
    assert shades(frames[0], [0, step], [0, first, first + step]) == [[160, 40, 80], [200, 120, WHITE]]


def test_fewer_exemplars_than_rows_leave_white_below_them(tmp_path):
    videos = [write_plain(tmp_path / f"{grey}.mp4", grey) for grey in (40, 80)]
    write_grid(videos, tmp_path / "grid.gif", 1, (SIDE, SIDE), [write_plain(tmp_path / "exemplar.mp4", 160)])
    frame = iio.imread(tmp_path / "grid.gif", mode="RGB")[0]
    assert shades(frame, [0, SIDE + GAP], [0, SIDE + 4 * GAP]) == [[160, 40], [WHITE, 80]]


@pytest.mark.parametrize("fps, num_frames", [(8, 8), (12, 12), (30, 30), (60, 30)])
def test_gif_takes_as_long_as_its_videos(tmp_path, fps, num_frames):
    frames = np.stack([np.full((SIDE, SIDE, 3), 8 * shade, np.uint8) for shade in range(num_frames)])
    iio.imwrite(tmp_path / "a.mp4", frames, fps=fps, macro_block_size=2)
    write_grid([tmp_path / "a.mp4"], tmp_path / "grid.gif", 1, (SIDE, SIDE))
    info = probe(tmp_path / "grid.gif")
    assert info.num_frames / info.fps == pytest.approx(num_frames / fps, abs=0.03)


def test_without_exemplars_there_is_no_column_for_them(tmp_path):
    videos = [write_plain(tmp_path / f"{grey}.mp4", grey) for grey in (40, 80)]
    write_grid(videos, tmp_path / "grid.gif", 4, (SIDE, SIDE))
    frames = iio.imread(tmp_path / "grid.gif", mode="RGB")
    assert frames.shape[1:3] == (SIDE, 2 * SIDE + GAP)
