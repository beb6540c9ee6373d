"""Looking at clips: every frame decoded once, several clips at a time, and what was found kept on disk.

A file that was looked at before, under whatever name, is not decoded again.
"""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from utils.decoder import MAX_DECODERS, kill_busy_decoders
from utils.errors import UserError
from utils.files import digest_of, file_digest, write_json
from utils.processes import is_first_process
from utils.video import VideoInfo, probe

VERSION = 2   # raise when what is found in a file, or its meaning, changes


def look_at_clips(paths: list[Path], cache_dir: Path | None,
                  progress: Callable[[Iterable, int], Iterable] = lambda done, num: done
                  ) -> dict[Path, tuple[str, VideoInfo] | UserError]:
    """Return the SHA-256 of each file and what was found in it, or what is wrong with it.

    `progress` wraps the files as they are finished; it gets their number too.
    """
    found = {}
    with ThreadPoolExecutor(MAX_DECODERS) as pool:
        jobs = {pool.submit(_look, path, cache_dir): path for path in paths}
        try:
            for job in progress(as_completed(jobs), len(jobs)):
                found[jobs[job]] = job.result()
        finally:   # Ctrl-C waits for no clip
            pool.shutdown(wait=False, cancel_futures=True)
            while any(job.running() for job in jobs):
                kill_busy_decoders()
                time.sleep(0.05)
    return found


def looking_bar(done: Iterable, num: int) -> Iterable:
    """Show how many clips have been looked at, where that takes more than a moment."""
    return tqdm(done, desc="looking at clips", total=num, delay=2, leave=False, dynamic_ncols=True,
                disable=not is_first_process())


def _look(path: Path, cache_dir: Path | None) -> tuple[str, VideoInfo] | UserError:
    try:
        digest = file_digest(path)
        key = digest_of({"kind": "clip", "version": VERSION, "clip": digest})
        entry = cache_dir and cache_dir / f"{key}.json"
        info = entry and _read_entry(entry)
        if not info:
            info = probe(path)
            if entry:
                _write_entry(entry, info)
        return digest, info
    except OSError as error:
        return UserError(f"{path}: cannot be read ({error.strerror}).")
    except UserError as error:
        return error


def _read_entry(path: Path) -> VideoInfo | None:
    """Return the facts kept in a cache file; None if the file is missing or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["digest"] == digest_of([path.stem, content["found"]]):
            return VideoInfo.from_facts(content["found"])
    return None


def _write_entry(path: Path, info: VideoInfo) -> None:
    found = json.loads(json.dumps(asdict(info)))   # tuples become lists, as when read back
    with suppress(UserError):   # make_plan reports a folder that cannot be written
        write_json(path, {"found": found, "digest": digest_of([path.stem, found])})
