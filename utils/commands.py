"""Commands for the user to type, relative to the folder in which they are printed."""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECOGNIZER, CLIP = (ROOT / "models" / "puppet-recognizers" / name for name in ("motion", "clip"))   # bundled


def script_command(script: str, *arguments: object) -> str:
    """Return a shell command that runs `script` of this repository from the current folder."""
    return shlex.join([python(), path_from_here(ROOT / script), *map(str, arguments)])


def python() -> str:
    """Return the command that runs the Python of this process: `python` if that finds it, else its path."""
    found = shutil.which("python")
    return "python" if found and os.path.samefile(found, sys.executable) and _same_environment(found) \
        else path_from_here(Path(sys.executable))


def path_from_here(path: Path) -> str:
    """Return `path` relative to the current folder if it lies below it, else absolute. Links are kept."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _same_environment(found: str) -> bool:
    # a virtual environment's interpreter is a link to the interpreter it was made from, so folders are
    # compared
    return Path(found).parent == Path(sys.executable).parent
