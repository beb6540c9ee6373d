"""What a process knows of those that `accelerate launch` started with it, before they have met."""

import os
from datetime import timedelta

# for which processes wait while one encodes clips, renders samples, or has videos left to render; by the
# default of GPUs, ten minutes, they would give up
LONGEST_WAIT = timedelta(days=1)


def num_processes() -> int:
    """Return how many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Say whether this process is the one that reports."""
    return os.environ.get("RANK", "0") == "0"
