"""Asking the decoder, a process of its own: what crashes or hangs it is named, and this process lives on.

It is started when first needed, serves as long as it lives, and ends when this process does.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from utils.commands import ROOT
from utils.errors import UserError

SECONDS = 120   # for one request: opening a file, or decoding a few of its frames
TOOK_TOO_LONG = 1   # the exit code of a decoder whose time was up

_lock = threading.Lock()
_running: list[subprocess.Popen] = []   # the decoder, if there is one


def describe(path: Path) -> dict[str, Any]:
    """Return the fields of VideoInfo. Raises UserError if the file cannot be read."""
    with _lock:
        return _ask(path, "info")[0]


def complaint(path: Path) -> str:
    """Return what the decoder found wrong in what it has decoded of a file; empty if nothing."""
    with _lock:
        return _ask(path, "complaint")[0]["complaint"]


def decode(path: Path, indices: list[int]) -> np.ndarray:
    """Return the frames at `indices`, uint8 (f h w c). Raises UserError if one cannot be decoded."""
    with _lock:
        facts, process = _ask(path, indices)
        frames = np.empty(facts["shape"], np.uint8)
        if process.stdout.readinto(frames.reshape(-1).data) != frames.nbytes:
            raise _lost(process, path)
        return frames


def _ask(path: Path, wanted: str | list[int]) -> tuple[dict[str, Any], subprocess.Popen]:
    process = _decoder()
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
    return facts, process


def _decoder() -> subprocess.Popen:
    if not _running or _running[0].poll() is not None:
        # a session of its own: Ctrl-C is for the process that asks
        _running[:] = [subprocess.Popen(
            [sys.executable, "-m", "utils.decoding"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True)]
    return _running[0]


def _lost(process: subprocess.Popen, path: Path) -> UserError:
    process.kill()   # it may live and talk nonsense
    code = process.wait()
    _running.clear()
    why = f"takes longer than {SECONDS} s to decode" if code == TOOK_TOO_LONG else "takes the decoder down"
    return UserError(f"{path}: {why}. Remove it, or re-encode it as H.264.")
