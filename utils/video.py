"""Videos in and out: probing, reading frames at the trained size, writing H.264 that browsers play.

The only file that knows decord. Frames are uint8 (f h w c), RGB.
"""

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.containers import is_cut_off
from utils.errors import UserError
from utils.files import free_space, replacing

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_FPS = 1000   # beyond it, containers and decoders round
CRF = 14   # H.264 quality; 18 already shows on flat colours at 64x64


@dataclass(frozen=True)
class VideoInfo:
    num_frames: int
    fps: float
    width: int    # pixels, as displayed (rotation applied)
    height: int


def probe(path: Path) -> VideoInfo:
    """Return what the container says of a video or an image. Raises UserError if it cannot be read."""
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes). Remove it or copy it again.")
        if is_cut_off(path):
            raise UserError(f"{path}: is cut off: the file ends before the video does. Copy it again.")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    frames, fps = _open(path)
    height, width, _ = _pick(frames, [0], path)[0].shape
    return VideoInfo(len(frames), fps, width, height)


def read_frames(path: Path, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the frames at `indices` as uint8 (f h w c), scaled and centre-cropped to `size` (width, height).

    Never stretched: the largest centred box of the new aspect ratio is scaled, with antialiasing.
    Raises UserError if a frame cannot be decoded.
    """
    return np.concatenate(list(iter_frames(path, indices, size, chunk=max(1, len(indices)))))


def iter_frames(
    path: Path, indices: Sequence[int], size: tuple[int, int] | None = None, chunk: int = 16
) -> Iterator[np.ndarray]:
    """Yield the frames of `read_frames` in pieces of `chunk`, so a long clip is never whole in memory."""
    frames, _ = _open(path)
    for first in range(0, len(indices), chunk):
        pixels = _pick(frames, list(indices[first : first + chunk]), path)
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
    process = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
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


def _open(path: Path):
    """Return (frames, fps): a decord reader, or an array (f h w c) for the formats decord does not read."""
    suffix = path.suffix.lower()
    if suffix == ".gif" or suffix in IMAGE_SUFFIXES:
        return _open_with_pillow(path)
    # by default decord retries the end of a damaged file 10,240 times
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "128")
    import decord

    decord.logging.set_level(decord.logging.QUIET)   # what is wrong is said by us, once
    try:
        with _quiet_stderr():
            reader = decord.VideoReader(str(path), num_threads=2)
        if not len(reader) or not 0 < reader.get_avg_fps() < MAX_FPS:
            raise RuntimeError("no frames")
        with _quiet_stderr():
            is_padded = _is_padded(reader)
        return _open_with_ffmpeg(path) if is_padded else (reader, reader.get_avg_fps())
    except (RuntimeError, _decord_error()) as error:
        raise UserError(f"{path}: is not a video that can be read. "
                        f"Remove it, or re-encode it as H.264.") from error


def _is_padded(reader) -> bool:
    """Say whether decord stumbles over the rows of its own frames, as it does below 80 pixels width."""
    try:
        reader.get_batch([0]).asnumpy()
    except _decord_error() as error:
        return "ndarray" in str(error)
    return False


def _open_with_ffmpeg(path: Path) -> tuple[np.ndarray, float]:
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(path))
    facts = next(frames)
    width, height = facts["size"]
    pixels = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]
    return np.stack(pixels), facts["fps"]


def _pick(frames, indices: list[int], path: Path) -> np.ndarray:
    """Return the frames of `_open` at `indices`, (f h w c)."""
    try:
        return frames[indices] if isinstance(frames, np.ndarray) else frames.get_batch(indices).asnumpy()
    except (RuntimeError, IndexError, _decord_error()) as error:
        raise UserError(f"{path}: frames {indices[0]} to {indices[-1]} cannot be decoded. "
                        f"Copy the file again or re-encode it.") from error


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence what the decoder's C++ prints; the exception that follows says the same in our words."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _open_with_pillow(path: Path) -> tuple[np.ndarray, float]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as image:
            frames, milliseconds = [], []
            for frame in ImageSequence.Iterator(image):
                frames.append(np.asarray(frame.convert("RGB")))
                # as browsers do where a GIF gives none
                milliseconds.append(frame.info.get("duration") or 100)
        return np.stack(frames), 1000 * len(frames) / sum(milliseconds)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: is not a picture that can be read. Remove it or save it again.") from error


@functools.cache
def _decord_error() -> type[Exception]:
    from decord import DECORDError

    return DECORDError
