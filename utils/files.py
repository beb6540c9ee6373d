"""Files that are either whole or absent: write under a temporary name, flush, then rename."""

import hashlib
import json
import os
import shutil
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError

STALE_SECONDS = 86_400   # no file takes a day to write
TEMPORARY_BYTES = 100    # of a name in a temporary name; file systems take 255 in all


class NotWritten(UserError):
    """The disk refused a write. `reason` is the system's error."""

    def __init__(self, path: Path, error: OSError, num_bytes: int | None):
        self.reason = error
        takes = f"It takes {format_bytes(num_bytes)}; " if num_bytes else ""
        super().__init__(f"{path}: could not be written ({error.strerror or error}). {takes}"
                         f"{free_space(path)}")


@contextmanager
def replacing(path: Path, num_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`. On success flush its file to disk and rename it to `path`.

    On any failure the temporary file is removed, and the file that stood at `path` before is untouched.
    Raises UserError if the disk is full or the folder cannot be written. Its message names `num_bytes`, the
    room that the file needs, if it is known.
    """
    path = Path(path)
    # the suffix stays last, because encoders choose the container by it; the dot hides the file from listings
    stem = shortened(path.stem, TEMPORARY_BYTES)
    partial = path.with_name(f".{stem}.{os.getpid()}.partial{shortened(path.suffix, TEMPORARY_BYTES)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    except OSError as error:
        raise NotWritten(path, error, num_bytes) from error
    finally:
        with suppress(OSError):   # the first error says more than a failure to clean up
            partial.unlink()


@contextmanager
def replacing_folder(path: Path, num_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `path`. On success flush its files and rename it to `path`.

    A folder that already stands at `path` is replaced, and if `path` is a link, the folder that it names.
    Raises UserError like `replacing`.
    """
    target, leftovers = Path(os.path.realpath(path)), []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{shortened(target.name, TEMPORARY_BYTES)}."
        partial = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=target.parent))
        replaced = partial.with_name(f"{partial.name}-replaced")
        leftovers = [partial, replaced]
        yield partial
        for file in partial.rglob("*"):
            flush(file)
        partial.chmod(0o755)   # mkdtemp makes it private
        if target.exists():   # renamed first: a kill while deleting must not leave half a folder there
            os.replace(target, replaced)
        os.replace(partial, target)
        flush(target.parent)
    except (OSError, NotWritten) as error:   # NotWritten names a file inside by the folder's temporary name
        raise NotWritten(path, getattr(error, "reason", error), num_bytes) from error
    finally:
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)


def shortened(name: str, num_bytes: int) -> str:
    """Return the beginning of a name of a file that is at most `num_bytes` long, whole letters only."""
    return os.fsencode(name)[:num_bytes].decode(errors="ignore")


def remove_stale(folder: Path) -> None:
    """Remove half-written files of killed processes in `folder`. A file of the last day may be at work."""
    for partial in Path(folder).glob(".*.partial*"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > STALE_SECONDS:
                partial.unlink()


def flush(path: Path) -> None:
    """Make the operating system write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_space(path: Path) -> str:
    """Return a sentence on the free space of the disk of `path`."""
    return f"{format_bytes(free_bytes(path))} are free there."


def free_bytes(path: Path) -> int:
    """Return the bytes that are free on the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(_existing(path)).free


def format_bytes(num_bytes: float) -> str:
    """Return `num_bytes` for a person to read: 512 bytes, 3.4 MB, 1.14 GB (powers of 1000)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable UTF-8 JSON, whole or not at all.

    What is not UTF-8 in the name of a file becomes an escape, \\udce9, which readers of JSON turn back.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8",
                           errors="backslashreplace")


def expanded(path: str) -> str:
    """Return `path` with ~ and environment variables such as $HOME replaced by what they stand for."""
    try:
        return os.path.expanduser(os.path.expandvars(path))
    except ValueError:   # no user has a name with such characters
        return path


def expanded_path(path: str) -> Path:
    """Do what `expanded` does, for the type of an argument."""
    return Path(expanded(path))


def nfc(name: str) -> str:
    """Return `name` with accented letters as one character each: macOS may store é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """Return a key that two file names share if they differ only in letter case, or in how accented letters
    are stored. Some file systems take such names for one."""
    return nfc(name).casefold()


def is_text(name: object) -> bool:
    """Say whether `name`, a path or a text, can be written as UTF-8: Linux takes any bytes for a name."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(name))


def read_text(path: Path, advice: str = "") -> str:
    """Return the content of a UTF-8 text file, with or without a byte order mark.

    Raises UserError, which ends in `advice` if there is no such file to read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {advice}".rstrip()) from None


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name for each path: its file name, and as many folders in front of it as tell it from the
    others."""
    names, num_parts = {path: path.name for path in paths}, 1
    while True:
        counts = Counter(names.values())
        alike = [path for path, name in names.items() if counts[name] > 1 and len(path.parts) > num_parts]
        if not alike:
            return names
        num_parts += 1
        names |= {path: "/".join(path.parts[-num_parts:]) for path in alike}


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def identity(path: Path) -> tuple[int, int, int]:
    """Return numbers that change when another file or other content stands at `path`."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """Return the SHA-256 of `content`, plain JSON material, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_writable(folder: Path) -> list[str]:
    """Return the problems, if any, with creating files in `folder`, which need not exist yet."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return []
    except OSError as error:
        return [f"{folder}: cannot be written ({error.strerror or error}). Choose another folder."]


def _existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
