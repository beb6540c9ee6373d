"""Frames that carry their number, and what a player shows of a video file.

The frames that are filmed have their number on them as black and white bars, so a frame that was decoded says
which one it is. What a player shows is asked of ffmpeg: its own sequential decode, with timestamps.
"""

import operator
import re
import subprocess
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
PATCHES = np.array([(200, 40, 40), (40, 160, 40), (50, 70, 210), (128, 128, 128), (255, 255, 255)])
HIDDEN = (255, 0, 255)   # the colour of the last patch where it is transparent
PICTURES = (".gif", ".webp", ".apng", ".png")
SHORTEST, INSTEAD = 0.011, 0.1   # seconds: browsers show a picture of less than the first for the second
WIDTH, HEIGHT = 240, 180
EXACT = 1e-6             # seconds, for what floats do to a moment
BITS = 5                 # per row of bars; two rows make a number, and two more repeat it inverted
SQUARE = 0.8             # side of the square that has bars and patches, as a part of the frame's shorter side
BARS = 0.72              # height of all bars, as a part of the square; the patches have the rest


# ------------------------------------------------------------------------------------------ the filmed frames

def regions(width: float, height: float) -> np.ndarray:
    """Return the boxes (n, 4) of left, top, right, bottom: 4 rows of 7 bars, then 5 patches, in pixels.

    The first bar of a row is white and the last one black, so that a mirrored frame has no number.
    """
    side = SQUARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    boxes = []
    for row in range(4):
        for bar in range(BITS + 2):
            boxes.append((bar / (BITS + 2), row * BARS / 4, (bar + 1) / (BITS + 2), (row + 1) * BARS / 4))
    boxes += [(patch / len(PATCHES), BARS, (patch + 1) / len(PATCHES), 1) for patch in range(len(PATCHES))]
    return np.array(boxes) * side + (left, top, left, top)


def draw(num_frames: int, width: int = WIDTH, height: int = HEIGHT, alpha: bool = False) -> np.ndarray:
    """Return frames 0, 1, ... (f h w c) with their number, uint8, RGB or RGBA with a transparent patch."""
    y, x = np.mgrid[:height, :width]
    background = np.stack([60 + 60 * x / width, 60 + 60 * y / height, np.full(x.shape, 90), x * 0 + 255], -1)
    frames = np.repeat(background.astype(np.uint8)[None], num_frames, axis=0)
    boxes = np.round(regions(width, height)).astype(int)
    colours = np.concatenate([np.zeros((len(boxes), 3), int), np.full((len(boxes), 1), 255)], axis=1)
    colours[4 * (BITS + 2) :, :3] = PATCHES
    if alpha:
        colours[-1] = (*HIDDEN, 0)
    for index, frame in enumerate(frames):
        bits = [index >> bit & 1 for bit in range(2 * BITS)]
        inverted = [1 - bit for bit in bits]
        rows = [(1, *row, 0) for row in (bits[:BITS], bits[BITS:], inverted[:BITS], inverted[BITS:])]
        colours[: 4 * (BITS + 2), :3] = 255 * np.array(rows).reshape(-1, 1)
        for (left, top, right, bottom), colour in zip(boxes, colours):
            frame[top:bottom, left:right] = colour
    return frames if alpha else frames[..., :3]


def look(frames: np.ndarray, boxes: np.ndarray) -> tuple[list[int | None], np.ndarray]:
    """Return the numbers that `frames` (f h w c) show, None where unreadable, and their patches (f n c)."""
    inner = boxes * 0.75 + boxes[:, [2, 3, 0, 1]] * 0.25   # away from the edges
    inner = np.concatenate([np.floor(inner[:, :2]), np.ceil(inner[:, 2:])], axis=1).astype(int)
    means = np.stack([frames[:, top:bottom, left:right].mean(axis=(1, 2))
                      for left, top, right, bottom in inner.tolist()], axis=1)
    bars = means[:, : 4 * (BITS + 2)].mean(axis=-1).reshape(-1, 4, BITS + 2)
    white, black = bars[..., :1], bars[..., -1:]
    is_white = (bars > (white + black) / 2)[..., 1:-1].reshape(-1, 2, 2 * BITS)
    readable = (white - black > 60).all(axis=(1, 2)) & (is_white[:, 0] != is_white[:, 1]).all(axis=1)
    values = (is_white[:, 0] << np.arange(2 * BITS)).sum(axis=1)
    return [int(value) if good else None for value, good in zip(values, readable)], \
        means[:, 4 * (BITS + 2) :]


def numbers_on(frames: np.ndarray) -> list[int | None]:
    """Return the number that each frame (h w c), whole and not stretched, shows; None where unreadable."""
    return look(frames, regions(frames.shape[2], frames.shape[1]))[0]


def ffmpeg(*arguments: object, input: bytes | None = None) -> bytes:
    """Run the bundled ffmpeg and return what it writes to stdout."""
    command = [FFMPEG, "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, input=input, stdout=subprocess.PIPE).stdout


def write_source(path: Path, num_frames: int) -> Path:
    """Write filmed frames of 24 fps without loss (FFV1), to make other files from."""
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", 24, "-i", "-",
           "-c:v", "ffv1", "-pix_fmt", "yuv420p", path, input=draw(num_frames).tobytes())
    return path


def regions_of_crop(displayed: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Return where `regions` are once the largest centred box of the frames is scaled to `size`."""
    scale = max(size[0] / displayed[0], size[1] / displayed[1])
    offset = (np.array(displayed) - np.array(size) / scale) / 2
    return (regions(*displayed) - (*offset, *offset)) * scale


# ---------------------------------------------------------------------------------------- what a player shows

class Unclear(Exception):
    """What a player shows is unclear: the frames of a file have no order in time, or there are none."""


@dataclass(frozen=True)
class Shown:
    """What ffmpeg decodes of a file, in sequence."""

    codes: list[int | None]    # the number of each frame, in the order shown
    seconds: list[float]       # when each is shown, after the first
    end: float                 # when the last one goes
    clock: float               # tick of the container's clock, in seconds
    size: tuple[float, float]  # width and height as displayed
    patches: np.ndarray        # (f n c) colours

    @property
    def tick(self) -> float:
        """Seconds by which a moment may be off: more than 1 ms is no rounding."""
        return min(self.clock, 1e-3)

    def samples(self, fps: float) -> list[tuple[list[set[int]], int]]:
        """Return the right ways of sampling the file: the frames that are right for each sample, and how many
        samples there are at least.

        A file whose median rate is above `fps` is sampled at the moments k / fps, give or take a tick. Of
        a slower file every frame is taken once; where its rate varies, sampling it by moments is right too.
        """
        moments = np.arange(int((self.end + self.tick) * fps) + 1) / fps
        by_moment = [{max(0, bisect_right(self.seconds, moment + shift) - 1)
                      for shift in (-self.tick - EXACT, 0, self.tick + EXACT)} for moment in moments]
        every_frame = [{index} for index in range(len(self.codes))]
        gaps = np.diff(self.seconds, append=self.end)
        usual = [np.percentile(some, 50, method=method) for some in (gaps[:-1], gaps) if len(some)
                 for method in ("lower", "higher")]
        varies = len(gaps) > 1 and max(gaps) - min(gaps) > 0.1 * usual[0] + 2 * self.tick
        if len(gaps) > 1 and max(gaps) - min(gaps) < self.clock * 1.01:   # nothing but rounding
            usual.append(np.mean(gaps[:-1]))
        ways = []
        if varies or min(usual) < 1 / fps + self.tick:
            ways.append((by_moment, int((self.seconds[-1] - self.tick) * fps) + 1))
        if max(usual) > 1 / fps - self.tick:
            ways.append((every_frame, len(every_frame)))
        return ways


def shown(path: Path) -> Shown:
    """Ask ffmpeg, with its defaults: edit lists are honoured, frames turned upright. Raises Unclear."""
    command = [FFMPEG, "-nostdin", "-hide_banner", "-i", str(path), "-an", "-sn", "-dn",
               "-vf", "showinfo=checksum=0", "-fps_mode", "passthrough", "-f", "rawvideo",
               "-pix_fmt", "rgb24", "-"]
    process = subprocess.run(command, capture_output=True)
    said = process.stderr.decode(errors="replace")
    lines = re.findall(r" n: *\d+ pts: *(-?\d+) .*?duration: *(\S+) .*? sar:(\d+)/(\d+) s:(\d+)x(\d+)", said)
    if not lines:
        raise Unclear("ffmpeg shows nothing of the file")
    unit = Fraction(*map(int, re.search(r"config in time_base: (\d+)/(\d+)", said).groups()))
    times = [int(line[0]) * unit for line in lines]
    across, down, width, height = map(int, lines[0][2:])
    frames = np.frombuffer(process.stdout, np.uint8).reshape(-1, height, width, 3)
    if len(frames) != len(times) or times != sorted(set(times)):
        raise Unclear("time goes back within the file, or is not given")
    last = int(lines[-1][1]) * unit if lines[-1][1].isdigit() else 0
    gaps = np.array([float(gap) for gap in (*map(operator.sub, times[1:], times), last)])
    if path.suffix in PICTURES:
        gaps[gaps < SHORTEST], unit = INSTEAD, max(unit, Fraction(1, 1000))
    if len(gaps) > 1:   # some containers do not say how long the last frame is shown
        gaps[-1] = max(gaps[-1], np.median(gaps[:-1]))
    seconds = np.cumsum([0, *gaps]).tolist()
    displayed = (width * across / down, height) if across else (width, height)
    codes, patches = look(frames, regions(*displayed) * [width / displayed[0], 1, width / displayed[0], 1])
    return Shown(codes, seconds[:-1], seconds[-1], float(unit), displayed, patches)
