"""Commands that run for hours: their output in a log, stopped at a deadline in a way that lets them save."""

import math
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError


class OutOfTime(Exception):
    """The deadline has come."""


def run_logged(command: Sequence[str], log_path: Path, deadline: float = math.inf) -> None:
    """Run a command to its end, its output added to a log; `deadline` is of time.monotonic().

    At the deadline, or on Ctrl-C, it gets one SIGTERM and time to save; not SIGINT, which the background jobs
    of a shell script, and all that these start, ignore. Raises OutOfTime at the deadline, and UserError with
    the log's last line if the command fails.
    """
    if time.monotonic() >= deadline:
        raise OutOfTime
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "a", encoding="utf-8") as log:
        print(f"$ {' '.join(command)}", file=log, flush=True)
        # a session of its own: Ctrl-C reaches it once, through us, and not twice, which would stop it unsaved
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
