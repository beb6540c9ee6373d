"""Video files of odd kinds, whose frames show their number: ten bars, white for 1 and black for 0."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from utils.video import VideoInfo, probe, read_frames

NUM_BITS = 10
WIDTH, HEIGHT = 240, 180


def ffmpeg(*arguments: object, input: bytes | None = None) -> bytes:
    """Run the bundled ffmpeg and return what it writes to stdout."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, input=input, stdout=subprocess.PIPE).stdout


def numbered_frames(num_frames: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return grey frames with their number in bars, and a square that wanders: uint8 (f h w c)."""
    frames = np.full((num_frames, height, width, 3), 96, np.uint8)
    for number, frame in enumerate(frames):
        for bit in range(NUM_BITS):
            left, right = (round(width * (bit + edge) / NUM_BITS) for edge in (0, 1))
            frame[height // 3 : height * 2 // 3, left:right] = 235 if number >> bit & 1 else 16
        left = number * 7 % (width - height // 8)
        frame[height * 5 // 6 :, left : left + height // 8] = (200, 60, 30)
    return frames


def numbers_shown(frames: np.ndarray) -> list[int]:
    """Return the number each frame (h w c) shows; -1 where a bar is neither black nor white."""
    _, height, width, _ = frames.shape
    numbers = []
    for frame in frames:
        number = 0
        for bit in range(NUM_BITS):
            middle = round(width * (bit + 0.5) / NUM_BITS)
            light = frame[height * 4 // 9 : height * 5 // 9, max(0, middle - 2) : middle + 3].mean()
            number = -1 if number < 0 or 96 < light < 160 else number | (light > 128) << bit
        numbers.append(number)
    return numbers


def write_source(path: Path, num_frames: int, fps: float = 24,
                 size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write numbered frames without loss (FFV1), to make other files from."""
    pixels = numbered_frames(num_frames, *size).tobytes()
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", fps, "-i", "-",
           "-c:v", "ffv1", "-pix_fmt", "yuv420p", path, input=pixels)
    return path


def shown_by_ffmpeg(path: Path) -> tuple[list[int], list[float]]:
    """Return the numbers that ffmpeg's own sequential decode shows, and when, from the first frame on."""
    pixels = ffmpeg("-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-vf", f"scale={WIDTH}:{HEIGHT}",
                    "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    lines = ffmpeg("-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-enc_time_base", "1:1000000",
                   "-f", "framecrc", "-").decode().splitlines()
    stamps = [int(line.split(",")[2]) / 1e6 for line in lines if not line.startswith("#")]
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    return numbers_shown(frames), [stamp - stamps[0] for stamp in stamps]


def read_numbers(path: Path, indices: Sequence[int] | None = None) -> tuple[VideoInfo, list[int]]:
    """Return what is found in a file, and the numbers that its frames show: all, or those of `indices`."""
    info = probe(path)
    return info, numbers_shown(read_frames(path, range(info.num_frames) if indices is None else indices))
