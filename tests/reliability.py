"""How much the tests of faults do: a seeded sample by default, the counts of docs/reliability.md on request.

    RELIABILITY=full RELIABILITY_REPORT=/var/tmp/reliability python -m pytest tests/faults/test_files.py

studies/prove_reliability.py sets both. Each test adds what it measured to a report, one file per subject.
"""

import json
import os
import random
import time
from pathlib import Path

IS_FULL = os.environ.get("RELIABILITY") == "full"
SEED = int(os.environ.get("RELIABILITY_SEED", "0"))


def count(sample: int, full: int) -> int:
    """Return how often to try something. RELIABILITY_COUNT is for a full count that time does not allow."""
    return int(os.environ.get("RELIABILITY_COUNT", full)) if IS_FULL else sample


def numbers(*key: object) -> random.Random:
    """Return the random numbers of one attempt: a function of the seed and `key`."""
    return random.Random(repr((SEED, *key)))


class Report:
    """What one subject did: how often, with which outcomes, and in how many seconds."""

    def __init__(self, subject: str):
        self.subject, self.outcomes, self.figures = subject, {}, {}
        self.began = time.monotonic()

    def add(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def write(self) -> None:
        """Write the report, where one is wanted."""
        folder = os.environ.get("RELIABILITY_REPORT")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            content = {"subject": self.subject, "seed": SEED, "count": sum(self.outcomes.values()),
                       "outcomes": dict(sorted(self.outcomes.items())), **self.figures,
                       "seconds": round(time.monotonic() - self.began, 1)}
            (Path(folder) / f"{self.subject}.json").write_text(json.dumps(content, indent=1) + "\n")
