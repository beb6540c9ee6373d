"""Words for people: lists that are cut short, counted things, tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any


def first_few(names: Sequence[object], most: int) -> str:
    """Return at most so many names with commas between them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 video, 2 videos."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]
