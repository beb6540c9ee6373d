"""What a decoder process does: opens files from the internet, in libraries that can crash or hang.

utils/decoder.py starts it and asks it, a line of JSON per request; it answers with a line of JSON and, for
frames, their bytes. Frames are uint8 (f h w c), RGB. The only file that knows decord.
"""

import faulthandler
import functools
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np

from utils.containers import is_picture_file
from utils.errors import INSTALL, UserError
from utils.files import identity, is_text
from utils.films import broken, open_video, read_film
from utils.looking import check_whole, glance, look
from utils.pictures import read_pictures

DECORD_FORMATS = ("mov", "matroska")
DECORD_WIDTH = 80   # pixels: decord stumbles over the rows of narrower frames


@dataclass
class Reading:
    """A file whose frames are decoded in order."""

    frames: Iterator[Callable[[], np.ndarray]]           # those to come, as `read_film` yields them
    number: int = -1                                     # of the last frame that was decoded
    get_pixels: Callable[[], np.ndarray] | None = None   # of that frame


def serve() -> None:
    """Answer requests {"path", "wanted", "seconds"} until there are no more.

    `wanted`: "look", "glance", "comment", or {"indices", "is_plain"} for frames. A process that decodes no
    frame for `seconds` ends itself, wherever in the libraries it is.
    """
    answers = os.fdopen(os.dup(1), "wb")
    null = open(os.devnull, "w")
    os.dup2(null.fileno(), 1)   # what the libraries print must not get among the answers
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    warnings.simplefilter("ignore")   # Pillow's warnings of odd metadata or large pictures are no damage
    for line in sys.stdin.buffer:
        request = json.loads(line)
        keep_alive = deadline(request["seconds"], null)
        facts, frames = answer(Path(request["path"]), request["wanted"], keep_alive)
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(facts).encode() + b"\n")
        if frames is not None:
            answers.write(np.ascontiguousarray(frames).data)
        answers.flush()


def deadline(seconds: float, file) -> Callable[[], None]:
    """End this process in `seconds`. A call of the returned function postpones the end by that time.

    The returned function ends this process at once if the process that asked is gone.
    """
    def postpone() -> None:
        nonlocal set_at
        if os.getppid() != asker:
            os._exit(1)
        if time.monotonic() - set_at > seconds / 4:   # a thread is started each time
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            set_at = time.monotonic()

    asker, set_at = os.getppid(), -float("inf")
    postpone()
    return postpone


def answer(path: Path, wanted: str | dict,
           keep_alive: Callable[[], None]) -> tuple[dict, np.ndarray | None]:
    """Return the facts about a file that are `wanted`, or its frames with their shape as the only fact."""
    try:
        if wanted in ("look", "glance"):
            forget_complaints()
            facts = (look if wanted == "look" else glance)(path, keep_alive)
            return {**facts, "damage": complaint() or facts.get("damage", "")}, None
        if wanted == "comment":
            return {"comment": comment(path)}, None
        frames = pick(path, wanted["indices"], wanted["is_plain"], keep_alive)
        return {"shape": frames.shape}, frames
    except UserError as error:
        return {"error": str(error)}, None
    except ImportError as error:
        return {"error": f"{path}: cannot be read here ({error}). {INSTALL}"}, None
    except Exception as error:   # a damaged file finds errors in libraries that nobody foresaw
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:100]}"
        return {"error": f"{path}: cannot be decoded ({reason}). Remove it, or re-encode it as H.264."}, None


def comment(path: Path) -> str:
    """Return the comment field of a video; empty if there is none."""
    check_whole(path)
    container, _ = open_video(path)
    with container:
        return container.metadata.get("comment", "")


def forget_complaints() -> None:
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)


def complaint() -> str:
    """Return the first thing that decoders have printed since complaints were forgotten; empty if nothing.

    A damaged video is often decoded without an error, into frames that are not the recorded ones.
    """
    os.lseek(2, 0, os.SEEK_SET)
    printed = os.read(2, 10_000).decode(errors="replace").strip().splitlines()
    os.lseek(2, 0, os.SEEK_END)
    return re.sub(r"^\[[^]]*\] *", "", printed[0])[:100].rstrip(". ") if printed else ""


def pick(path: Path, indices: list[int], is_plain: bool, keep_alive: Callable[[], None]) -> np.ndarray:
    """Return the frames at `indices` (f h w c), decoding in order from the last one asked for."""
    check_whole(path)
    reading, wanted, pixels = opened(path, is_plain, *identity(path)), sorted(set(indices)), {}
    if wanted[0] < reading.number:
        opened.cache_clear()
        reading = opened(path, is_plain, *identity(path))
    for number in wanted:
        while reading.number < number:
            reading.get_pixels = next(reading.frames, None)
            if reading.get_pixels is None:
                raise broken(path, number)
            reading.number += 1
            keep_alive()
        pixels[number] = reading.get_pixels()
    return np.stack([pixels[index] for index in indices])


@functools.lru_cache(maxsize=1)
def opened(path: Path, is_plain: bool, *_: int) -> Reading:   # the numbers are those of `identity`
    """Open a file. The file asked for last stays open."""
    if is_picture_file(path):
        frames = (lambda pixels=pixels: pixels for pixels, _, _ in read_pictures(path))
    else:
        frames = read_with_decord(path) if is_plain and suits_decord(path) else read_film(path)
    return Reading(frames)


def suits_decord(path: Path) -> bool:
    """Say whether decord is sure to read a plain file rightly: H.264 in mp4, mov or mkv, not too narrow."""
    container, stream = open_video(path)
    with container:
        return stream.codec_context.name == "h264" and container.format.name.startswith(DECORD_FORMATS) \
            and stream.codec_context.width >= DECORD_WIDTH and is_text(path)


def read_with_decord(path: Path) -> Iterator[Callable[[], np.ndarray]]:
    """Yield like `read_film`, for a plain file. decord mixes frames up where it seeks, so it never does.

    Where decord gives up, `read_film` goes on. decord looks only so many times whether its threads have a
    frame, and on a busy machine that is not enough, whatever the file.
    """
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    number = 0
    with suppress(RuntimeError, StopIteration, decord.DECORDError):
        reader = decord.VideoReader(str(path), num_threads=2)
        while number < len(reader):
            yield reader.next().asnumpy
            number += 1
    yield from islice(read_film(path), number, None)


if __name__ == "__main__":
    serve()
