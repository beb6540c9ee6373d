"""What the decoder's own process does: opens files from the internet, in libraries that can crash or hang.

The only file that knows decord. utils/decoder.py starts it and asks it, a line of JSON per request; it
answers with a line of JSON and, for frames, their bytes. Frames are uint8 (f h w c), RGB.
"""

import faulthandler
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from utils.containers import is_cut_off
from utils.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_FPS = 1000         # beyond it, containers and decoders round
MAX_WHOLE_BYTES = 4e9  # of a clip that is decoded whole, because no reader of its kind can seek


def serve() -> None:
    """Answer requests {"path", "wanted", "seconds"} until there are no more.

    `wanted`: "info", "complaint", or a list of frames. A request that takes longer than its `seconds` ends
    the process, whatever the libraries are at.
    """
    answers = os.fdopen(os.dup(1), "wb")
    null = open(os.devnull, "w")
    os.dup2(null.fileno(), 1)   # what the libraries print must not get among the answers
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        faulthandler.dump_traceback_later(request["seconds"], exit=True, file=null)
        facts, frames = answer(Path(request["path"]), request["wanted"])
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(facts).encode() + b"\n")
        if frames is not None:
            answers.write(np.ascontiguousarray(frames).data)
        answers.flush()


def answer(path: Path, wanted: str | list[int]) -> tuple[dict, np.ndarray | None]:
    """Return what is to be said about a file, and its frames if any are wanted."""
    try:
        if wanted == "info":
            return describe(path), None
        if wanted == "complaint":
            return {"complaint": complaint(path)}, None
        frames = pick(opened(path, *identity(path))[0], wanted, path)
        return {"shape": frames.shape}, frames
    except UserError as error:
        return {"error": str(error)}, None
    except Exception as error:   # a damaged file finds errors in libraries that nobody foresaw
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:100]}"
        return {"error": f"{path}: cannot be decoded ({reason}). Remove it, or re-encode it as H.264."}, None


def describe(path: Path) -> dict:
    """Return the fields of VideoInfo. Raises UserError if the file cannot be read."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes). Remove it or copy it again.")
        if is_cut_off(path):
            raise UserError(f"{path}: is cut off: the file ends before the video does. Copy it again.")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    frames, fps = opened(path, *identity(path))
    height, width, _ = pick(frames, [0], path)[0].shape
    return {"num_frames": len(frames), "fps": fps, "width": width, "height": height}


def complaint(path: Path) -> str:
    """Return the first thing the decoder has printed about a file since it was opened; empty if nothing.

    A damaged video is often decoded without an error, into frames that are not those recorded.
    """
    opened(path, *identity(path))
    os.lseek(2, 0, os.SEEK_SET)
    printed = os.read(2, 10_000).decode(errors="replace").strip().splitlines()
    os.lseek(2, 0, os.SEEK_END)
    return re.sub(r"^\[[^]]*\] *", "", printed[0])[:100].rstrip(". ") if printed else ""


def identity(path: Path) -> tuple[int, int, int]:
    """Return what changes when the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=1)
def opened(path: Path, *_: int):
    """Return (frames, fps): a decord reader, or an array (f h w c) for the formats decord does not read."""
    os.ftruncate(2, 0)   # complaints are about the file that is open
    os.lseek(2, 0, os.SEEK_SET)
    suffix = path.suffix.lower()
    if suffix == ".gif" or suffix in IMAGE_SUFFIXES:
        return _open_with_pillow(path)
    # by default decord retries the end of a damaged file 10,240 times
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "128")
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    try:
        reader = decord.VideoReader(str(path), num_threads=2)
        if not len(reader) or not 0 < reader.get_avg_fps() < MAX_FPS:
            raise RuntimeError("no frames")
        return _open_with_ffmpeg(path) if _is_padded(reader) else (reader, reader.get_avg_fps())
    except (RuntimeError, _decord_error()) as error:
        raise UserError(f"{path}: is not a video that can be read. "
                        f"Remove it, or re-encode it as H.264.") from error


def pick(frames, indices: list[int], path: Path) -> np.ndarray:
    """Return the frames of `opened` at `indices`, (f h w c)."""
    try:
        return frames[indices] if isinstance(frames, np.ndarray) else frames.get_batch(indices).asnumpy()
    except (RuntimeError, IndexError, _decord_error()) as error:
        raise UserError(f"{path}: frames {indices[0]} to {indices[-1]} cannot be decoded. "
                        f"Copy the file again or re-encode it.") from error


def _is_padded(reader) -> bool:
    """Say whether decord stumbles over the rows of its own frames, as it does below 80 pixels width."""
    try:
        reader.get_batch([0]).asnumpy()
    except _decord_error() as error:
        return "ndarray" in str(error)
    return False


def _open_with_ffmpeg(path: Path) -> tuple[np.ndarray, float]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    reader.close()
    width, height = facts["size"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path),
               "-pix_fmt", "rgb24", "-c:v", "rawvideo", "-f", "image2pipe", "-"]
    frames, num_bytes = [], width * height * 3
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        while len(pixels := process.stdout.read(num_bytes)) == num_bytes:
            frames.append(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
            _check_room(path, frames)
    if not frames:
        raise RuntimeError("no frames")
    return np.stack(frames), facts["fps"]


def _open_with_pillow(path: Path) -> tuple[np.ndarray, float]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as image:
            frames, milliseconds = [], []
            for frame in ImageSequence.Iterator(image):
                frames.append(np.asarray(frame.convert("RGB")))
                # as browsers do where a GIF gives none
                milliseconds.append(frame.info.get("duration") or 100)
                _check_room(path, frames)
        return np.stack(frames), 1000 * len(frames) / sum(milliseconds)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is not a picture that can be read. Remove it or save it again.") from error


def _check_room(path: Path, frames: list[np.ndarray]) -> None:
    if len(frames) * frames[0].nbytes > MAX_WHOLE_BYTES:
        raise UserError(f"{path}: is too long to be decoded whole, as its kind must be. Cut it, or re-encode "
                        f"it as H.264 at 80 pixels width or more.")


@functools.cache
def _decord_error() -> type[Exception]:
    from decord import DECORDError

    return DECORDError


if __name__ == "__main__":
    serve()
