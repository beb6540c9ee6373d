"""Stopping on request: after the first Ctrl-C or SIGTERM the current step finishes, a second one stops at
once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list given. The second signal raises KeyboardInterrupt."""
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
    """Say whether any process was asked to stop, with the same answer in all processes."""
    if accelerator.num_processes == 1:
        return bool(received)
    return bool(accelerator.reduce(torch.tensor(float(bool(received)), device=accelerator.device), "sum"))


def exit_code(received: list[int]) -> int:
    """Return the exit code that shells expect of a process that a signal ended."""
    return 128 + (received[0] if received else signal.SIGTERM)
