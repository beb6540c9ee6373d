"""Videos in and out: probing, reading frames at the trained size, writing H.264 that browsers play.

Decoding is done by a process of its own (utils/decoder.py). Frames are uint8 (f h w c), RGB.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.decoder import decode, describe
from utils.errors import UserError
from utils.files import free_space, replacing

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif")
SAME_PICTURE = 0.02   # mean absolute difference, of 255, below which two frames show the same picture
CRF = 14   # H.264 quality; 18 already shows on flat colours at 64x64
METADATA_SECONDS = 60   # for reading a file's comment field


@dataclass(frozen=True)
class VideoInfo:
    num_frames: int
    fps: float
    width: int    # pixels, as displayed (rotation applied)
    height: int


def probe(path: Path) -> VideoInfo:
    """Return what the container says of a video or an image. Raises UserError if it cannot be read."""
    return VideoInfo(**describe(Path(path)))


def read_frames(path: Path, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the frames at `indices` as uint8 (f h w c), scaled and centre-cropped to `size` (width, height).

    Never stretched: the largest centred box of the new aspect ratio is scaled, with antialiasing.
    Raises UserError if a frame cannot be decoded.
    """
    return np.concatenate(list(iter_frames(path, indices, size)))


def iter_frames(
    path: Path, indices: Sequence[int], size: tuple[int, int] | None = None, chunk: int = 16
) -> Iterator[np.ndarray]:
    """Yield the frames of `read_frames` in pieces of `chunk`, so a long clip is never whole in memory."""
    for first in range(0, len(indices), chunk):
        pixels = decode(Path(path), list(indices[first : first + chunk]))
        yield pixels if size is None else np.stack([resize_and_crop(frame, size) for frame in pixels])


def resize_and_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale the largest centred box of `frame` (h w c) to `size` (width, height).

    The box has the aspect ratio of `size`, so nothing is stretched.
    """
    # imported late: --help and config errors should not wait for it
    from PIL import Image

    (height, width, _), (new_width, new_height) = frame.shape, size
    scale = max(new_width / width, new_height / height)
    box_width, box_height = new_width / scale, new_height / scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    box = (max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=box))


def frame_changes(frames: np.ndarray) -> list[float]:
    """Return (f - 1) mean absolute differences, 0 to 255, of each frame (f h w c) and the one before."""
    # pair by pair, because all frames as integers would take twice the memory
    return [float(np.abs(after.astype(np.int16) - before).mean())
            for before, after in zip(frames, frames[1:])]


def frame_step(native_fps: float, fps: float) -> int:
    """Return n such that every n-th recorded frame is closest to `fps` frames a second; at least 1."""
    return max(1, round(native_fps / fps))


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
            output_params=["-crf", str(CRF), "-movflags", "+faststart",
                           "-metadata", f"title={metadata.get('prompt', '')}",
                           "-metadata", f"comment={json.dumps(metadata, ensure_ascii=False)}"],
        )
        try:
            for frame in frames:
                writer.append_data(frame)
        except OSError as error:   # a page of its log; what the user can do something about is the place
            raise UserError(f"{path}: the video encoder stopped. {free_space(path)}") from error
        finally:
            writer.close()
        # the encoder may have died after its last frame was accepted (disk full): only reading it back tells
        if _num_readable(partial) != len(frames):
            raise UserError(f"{path}: the video encoder did not write all frames. {free_space(path)}")


def read_metadata(path: Path) -> dict:
    """Return what `write_video` stored in the file's comment field; empty if it did not write the file."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    try:
        process = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL,
                                 timeout=METADATA_SECONDS)
    except subprocess.TimeoutExpired:
        return {}
    text = process.stdout.decode(errors="replace")
    match = re.search(r"^comment=((?:[^\\\n]|\\.)*)", text, re.MULTILINE | re.DOTALL)
    try:
        metadata = json.loads(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)) if match else {}
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _num_readable(path: Path) -> int:
    try:
        return probe(path).num_frames
    except UserError:
        return 0
