"""The processes that `accelerate launch` has started, as its environment variables describe them."""

import os
from datetime import timedelta

# How long processes wait for one that encodes clips, renders samples or has more videos left to render. The
# default on GPUs is ten minutes, after which the waiting processes would give up.
LONGEST_WAIT = timedelta(days=1)


def num_processes() -> int:
    """Return how many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Say whether this process is the one that reports."""
    return os.environ.get("RANK", "0") == "0"
