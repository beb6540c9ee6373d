"""Stopping on request: the first Ctrl-C or SIGTERM lets the step under way finish, a second one does not."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; the second raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, _) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_requested(received: list[int], accelerator) -> bool:
    """Say whether any process was asked to stop; all learn of it in the same step."""
    if accelerator.num_processes == 1:
        return bool(received)
    return bool(accelerator.reduce(torch.tensor(float(bool(received)), device=accelerator.device), "sum"))


def exit_code(received: list[int]) -> int:
    """Return the code that shells expect of a process that ended on a signal."""
    return 128 + (received[0] if received else signal.SIGTERM)
