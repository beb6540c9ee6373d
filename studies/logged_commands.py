"""Commands that run for hours: they write to a log, and are stopped at a deadline so that they can save."""

import math
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError


class OutOfTime(Exception):
    """The deadline has passed."""


def run_logged(command: Sequence[str], log_path: Path, deadline: float = math.inf) -> None:
    """Run a command to its end and add its output to a log. `deadline` is a time of time.monotonic().

    At the deadline, or on Ctrl-C, the command gets one SIGTERM and time to save. SIGINT would not do, because
    background jobs of a shell script ignore it, and so does everything they start. Raises OutOfTime at the
    deadline, and UserError with the last line of the log if the command fails.
    """
    if time.monotonic() >= deadline:
        raise OutOfTime
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "a", encoding="utf-8") as log:
        print(f"$ {' '.join(command)}", file=log, flush=True)
        # In a session of its own the command gets Ctrl-C only through us. The terminal would send it a second
        # time, and the command would stop without saving.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        left = deadline - time.monotonic()
        try:
            code = process.wait(None if left == math.inf else max(0, left))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
            process.terminate()
            process.wait()
            if isinstance(stopped, KeyboardInterrupt):
                raise
            raise OutOfTime from None
    if code:
        lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{log_path}: {Path(command[1]).name} ended with code {code}: {lines[-1]}")
