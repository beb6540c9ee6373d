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


def training_command(*arguments: object, num_processes: int) -> str:
    """Return a shell command that runs train_model.py in as many processes, spread as in this launch."""
    if num_processes == 1:
        return script_command("train_model.py", *arguments)
    kind = "ddp"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        kind = "zero2" if os.environ.get("FSDP_RESHARD_AFTER_FORWARD") == "false" else "fsdp"
    return shlex.join([python(), "-m", "accelerate.commands.launch", "--config_file",
                       path_from_here(ROOT / "configs" / "accelerate" / f"{kind}.yaml"), "--num_processes",
                       str(num_processes), path_from_here(ROOT / "train_model.py"), *map(str, arguments)])


def inline_command(code: str) -> str:
    """Return a shell command that runs a line of Python."""
    return shlex.join([python(), "-c", code])


def python() -> str:
    """Return the command that runs the Python of this process: `python` if that finds it, else its path."""
    found, ours = shutil.which("python"), Path(sys.executable)
    # the folders are compared too, because a virtual environment's interpreter is a link to another one
    is_ours = found and os.path.samefile(found, ours) and Path(found).parent == ours.parent
    return "python" if is_ours else path_from_here(ours)


def path_from_here(path: Path) -> str:
    """Return `path` relative to the current folder if it lies below it, else absolute. Links are kept."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
