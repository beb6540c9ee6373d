"""Videos in and out: probing, reading frames at the trained size, writing H.264 that browsers play.

Decoding is done by a process of its own (utils/decoder.py). Frames are uint8 (f h w c), RGB.
"""

import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from utils.decoder import ask, decode
from utils.errors import UserError
from utils.files import free_space, identity, replacing
from utils.timelines import shown_at

SAME_PICTURE = 0.02   # mean absolute difference, of 255, below which two frames show the same picture
CRF = 14   # H.264 quality; 18 already shows on flat colours at 64x64
HD_LINES = 720
SAME_RATE = 1.001   # rates that differ by a smaller factor count as equal, such as 23.976 and 24


@dataclass(frozen=True)
class VideoInfo:
    """What was found in a video or picture by decoding every frame once."""

    num_frames: int   # as many as players show
    fps: float        # of most frames: the median
    width: int        # pixels, as displayed: upright, and square
    height: int
    seconds: tuple[float, ...] = field(default=(), compare=False, repr=False)   # when each frame appears
    end: float = field(default=0, compare=False)                # when the last frame goes, in seconds
    tick: float = field(default=0, compare=False)               # to how many seconds the file rounds time
    changes: tuple[float, ...] = field(default=(), compare=False, repr=False)
    # how much each frame differs from the one before, as utils/films.py's `difference` measures it
    rates: tuple[float, float] | None = field(default=None, compare=False)   # lowest, highest, if it varies
    notes: tuple[str, ...] = field(default=(), compare=False)   # what is odd
    damage: str = field(default="", compare=False)              # what the decoder found wrong
    is_plain: bool = field(default=True, compare=False)         # any reader reads it alike, frame by frame
    comment: str = field(default="", compare=False, repr=False)   # the file's comment field
    stream: int = field(default=0, compare=False)   # number of the stream in the file
    matrix: str = field(default="", compare=False)  # between YUV and RGB, as ffmpeg calls it; empty for RGB

    @staticmethod
    def from_facts(facts: dict) -> "VideoInfo":
        """Return the VideoInfo of a dictionary that was JSON, which has lists in the place of tuples."""
        return VideoInfo(**{name: tuple(value) if isinstance(value, list) else value
                            for name, value in facts.items()})


def probe(path: Path) -> VideoInfo:
    """Decode a video or an image once and return what was found. Raises UserError if it cannot be read."""
    path = Path(path)
    try:
        numbers = identity(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return _found(path, *numbers)


def glance(path: Path) -> VideoInfo:
    """Return what `probe` returns, but without damage and comment, mostly without decoding the video.

    For a caller that decodes all of it itself. Where the container does not tell the times and the size for
    sure, the video is decoded. Raises UserError if it cannot be read.
    """
    return VideoInfo.from_facts(ask(Path(path), "glance"))


@functools.lru_cache(maxsize=64)
def _found(path: Path, *_: int) -> VideoInfo:   # the numbers are those of `identity`
    return VideoInfo.from_facts(ask(path, "look"))


def sampled_frames(info: VideoInfo, fps: float) -> tuple[int, ...]:
    """Return the numbers of the frames at `fps` frames a second: those shown at the moments k / fps.

    A video whose rate is constant and not above `fps` gives every frame once.
    """
    if info.rates is None and info.fps <= fps * SAME_RATE:
        return tuple(range(info.num_frames))
    return shown_at(info.seconds, info.end, info.tick, fps)


def sampled_fps(info: VideoInfo, fps: float) -> float:
    """Return the frames a second of `sampled_frames`."""
    return info.fps if info.rates is None and info.fps <= fps * SAME_RATE else fps


def read_frames(path: Path, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the frames at `indices` as uint8 (f h w c), scaled and centre-cropped to `size` (width, height).

    Never stretched: the largest centred box of the new aspect ratio is scaled, with antialiasing.
    Raises UserError if a frame cannot be decoded.
    """
    return np.concatenate(list(iter_frames(path, indices, size)))


def iter_frames(
    path: Path, indices: Sequence[int], size: tuple[int, int] | None = None, chunk: int = 16,
    is_plain: bool = False, shift: float = 0.0
) -> Iterator[np.ndarray]:
    """Yield the frames of `read_frames` in pieces of `chunk`, so a long clip is never whole in memory.

    `is_plain`: as in the file's VideoInfo; then decord may read it. `shift`: as for
    `resize_and_crop`, if there is a `size`.
    """
    for first in range(0, len(indices), chunk):
        pixels = decode(Path(path), list(indices[first : first + chunk]), is_plain)
        yield pixels if size is None else np.stack([resize_and_crop(frame, size, shift) for frame in pixels])


def resize_and_crop(frame: np.ndarray, size: tuple[int, int], shift: float = 0.0) -> np.ndarray:
    """Scale the largest centred box of `frame` (h w c) to `size` (width, height).

    The box has the aspect ratio of `size`, so nothing is stretched. `shift` moves the box to the right, in
    widths of the box. Where the box then reaches beyond the frame, the pixels at the frame's edge are
    repeated.
    """
    # imported late: --help and config errors should not wait for it
    from PIL import Image

    (height, width, _), (new_width, new_height) = frame.shape, size
    scale = max(new_width / width, new_height / height)
    box_width, box_height = new_width / scale, new_height / scale
    left, top = (width - box_width) / 2 + shift * box_width, (height - box_height) / 2
    if shift:
        beyond = max(0, math.ceil(-left), math.ceil(left + box_width - width))
        frame = np.pad(frame, ((0, 0), (beyond, beyond), (0, 0)), mode="edge")
        left, width = left + beyond, width + 2 * beyond
    box = (max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=box))


def frame_changes(frames: np.ndarray) -> list[float]:
    """Return (f - 1) mean absolute differences, 0 to 255, of each frame (f h w c) and the one before."""
    # pair by pair, because all frames as integers would take twice the memory
    return [float(np.abs(after.astype(np.int16) - before).mean()) for before, after in pairwise(frames)]


def trained_size(width: int, height: int, target: tuple[int, int], stride: int,
                 bucket: bool) -> tuple[int, int]:
    """Return the (width, height) at which a clip of `width` x `height` pixels is trained.

    With `bucket` it has about the area of `target` and the clip's own aspect ratio, in multiples of `stride`,
    the network's total downsampling; otherwise it is `target`.
    """
    if not bucket:
        return target
    ideal_width = (target[0] * target[1] * width / height) ** 0.5
    ideal_height = ideal_width * height / width

    def multiples(ideal: float) -> set[int]:
        return {max(stride, int(ideal // stride) * stride), max(stride, -int(-ideal // stride) * stride)}

    def distance(size: tuple[int, int]) -> float:   # how far shape and area are from the ideal, in log units
        return abs(np.log(size[0] / ideal_width)) + abs(np.log(size[1] / ideal_height))

    sizes = [(w, h) for w in sorted(multiples(ideal_width)) for h in sorted(multiples(ideal_height))]
    # landscape stays landscape: a square is as far as rounding may turn a clip
    sizes = [size for size in sizes if (size[0] - size[1]) * (width - height) >= 0] or sizes
    return min(sizes, key=distance)


def write_video(path: Path, frames: np.ndarray, fps: float, metadata: dict) -> None:
    """Write uint8 frames (f h w c) as an H.264 mp4 with `metadata`, as JSON, in the file's comment field.

    The file appears under its name only when it is whole. Raises UserError if the encoder fails.
    """
    import imageio.v2 as imageio

    with replacing(path) as partial:
        writer = imageio.get_writer(
            partial, format="FFMPEG", fps=fps, codec="libx264", pixelformat="yuv420p", quality=None,
            macro_block_size=2, ffmpeg_log_level="error",
            output_params=["-crf", str(CRF), "-movflags", "+faststart", *colour_options(frames.shape[1]),
                           "-metadata", f"title={metadata.get('prompt', '')}",
                           "-metadata", f"comment={json.dumps(metadata, ensure_ascii=False)}"],
        )
        try:
            for frame in frames:
                writer.append_data(frame)
        except OSError as error:   # it says a page of its log, and a user can only make room
            raise UserError(f"{path}: the video encoder stopped. {free_space(path)}") from error
        finally:
            writer.close()
        # the encoder may have died after its last frame was accepted (disk full): only reading it back tells
        if _num_readable(partial) != len(frames):
            raise UserError(f"{path}: the video encoder did not write all frames. {free_space(path)}")


def colour_options(height: int) -> list[str]:
    """Return the options by which ffmpeg writes, and names in the file, the colours that players expect.

    They take a video of 720 lines or more for BT.709 and a smaller one for BT.601 where nothing is said.
    """
    matrix, name = ("bt709", "bt709") if height >= HD_LINES else ("bt601", "smpte170m")
    return ["-vf", f"scale=out_color_matrix={matrix}:out_range=tv:flags=bicubic,format=yuv420p,"
                   f"setparams=colorspace={name}:color_primaries={name}:color_trc={name}:range=tv"]


def video_metadata(path: Path) -> dict:
    """Return what `write_video` stored in the file's comment field; empty if it did not write the file."""
    try:
        return metadata_in(ask(Path(path), "comment")["comment"])
    except UserError:
        return {}


def metadata_in(text: str) -> dict:
    """Return what `write_video` stored, given a comment field; empty if `write_video` did not write it."""
    try:
        metadata = json.loads(text)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _num_readable(path: Path) -> int:
    try:
        return probe(path).num_frames
    except UserError:
        return 0
