"""Asking decoders, which are processes of their own. If a file crashes or hangs one, an error names the file,
and this process lives on.

A decoder is started when one is needed and none is free: there are as many as threads that ask at once, up to
MAX_DECODERS. They serve until `end_free_decoders`, or until this process ends.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from utils.commands import ROOT
from utils.errors import INSTALL, UserError

SECONDS = 120       # within which a decoder has to open a file, or to decode the next frame
MOST_CORES = 16     # that decode at the same time
TOOK_TOO_LONG = 1   # the exit code of a decoder whose time was up


def num_cores() -> int:
    """Return how many cores this process may use. Processes of one launch share them."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


MAX_DECODERS = min(MOST_CORES, max(2, num_cores()))
_lock, _turns = threading.Lock(), threading.Semaphore(MAX_DECODERS)
_free: list[tuple[str, subprocess.Popen]] = []   # decoders, each with the file it has open
_busy: set[subprocess.Popen] = set()


def ask(path: Path, wanted: str) -> dict[str, Any]:
    """Return what a decoder says of a file. Raises UserError if it cannot be read.

    `wanted`: "look" or "glance" of utils/looking.py, for the fields of VideoInfo; "comment", for {"comment"}.
    """
    with _decoder(path) as process:
        return _answer(process, path, wanted)


def decode(path: Path, indices: list[int], is_plain: bool = False) -> np.ndarray:
    """Return the frames at `indices`, uint8 (f h w c). Raises UserError if one cannot be decoded.

    `is_plain`: as in the file's VideoInfo; then decord may read it.
    """
    with _decoder(path) as process:
        facts = _answer(process, path, {"indices": indices, "is_plain": is_plain})
        frames = np.empty(facts["shape"], np.uint8)
        if process.stdout.readinto(frames.reshape(-1).data) != frames.nbytes:
            raise _lost(process, path)
        return frames


def end_free_decoders() -> None:
    """End all decoders that are at rest: each takes some 25 to 100 MB."""
    with _lock:
        while _free:
            _free.pop()[1].kill()


def kill_busy_decoders() -> None:
    """End all decoders that are at work. Whoever waits for one of them gets a UserError."""
    for process in list(_busy):
        process.kill()


@contextmanager
def _decoder(path: Path) -> Iterator[subprocess.Popen]:
    """Give this thread a decoder: the one that has the file open, else any free one, else a new one."""
    name = os.path.abspath(path)
    with _turns:
        with _lock:
            _free[:] = [entry for entry in _free if entry[1].poll() is None]
            chosen = next((entry for entry in _free if entry[0] == name), _free[0] if _free else None)
            if chosen:
                _free.remove(chosen)
        process = chosen[1] if chosen else _start()
        _busy.add(process)
        try:
            yield process
        except (KeyboardInterrupt, MemoryError):
            process.kill()   # the rest of its answer would be taken for the answer to the next request
            process.wait()
            raise
        finally:
            _busy.remove(process)
            if process.poll() is None:
                with _lock:
                    _free.append((name, process))


def _start() -> subprocess.Popen:
    if find_spec("av") is None:   # an environment of an earlier version; the decoder would die without a word
        raise UserError(f"The package av is missing, which reads videos. {INSTALL}")
    # a session of its own: Ctrl-C is for the process that asks
    return subprocess.Popen(
        [sys.executable, "-m", "utils.decoding"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True)


def _answer(process: subprocess.Popen, path: Path, wanted: str | dict) -> dict[str, Any]:
    request = {"path": os.path.abspath(path), "wanted": wanted, "seconds": SECONDS}
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = b""
    if not line.endswith(b"\n"):
        raise _lost(process, path)
    facts = json.loads(line)
    if "error" in facts:   # the file is called what the user calls it
        raise UserError(facts["error"].replace(request["path"], str(path)))
    return facts


def _lost(process: subprocess.Popen, path: Path) -> UserError:
    process.kill()   # it may live and talk nonsense
    code = process.wait()
    why = f"takes longer than {SECONDS} s to decode" if code == TOOK_TOO_LONG else "takes the decoder down"
    return UserError(f"{path}: {why}. Remove it, or re-encode it as H.264.")
