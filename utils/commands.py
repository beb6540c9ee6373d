"""Commands for the user to type, which work where they are printed."""

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
    """Return what runs the Python of this process: python, where that is what it runs, else its path."""
    found = shutil.which("python")
    return "python" if found and os.path.samefile(found, sys.executable) and _same_environment(found) \
        else path_from_here(Path(sys.executable))


def path_from_here(path: Path) -> str:
    """Return a path relative to the current folder if it lies below, else absolute; links are kept."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _same_environment(found: str) -> bool:
    # a virtual environment's interpreter is a link to the one it was made from: the folder tells them apart
    return Path(found).parent == Path(sys.executable).parent
