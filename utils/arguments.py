"""Types for argparse: functions that parse one word of a command, and say what is wrong with it."""

import argparse
import math
import re
from collections.abc import Callable

from utils.hub import REPO_NAME
from utils.prompts import MAX_SEED


def seed(text: str) -> int | None:
    """Parse --seed; None stands for random."""
    if text == "random":
        return None
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number of 0 or above nor random")
    return int(text)


def fixed_seed(text: str) -> int:
    """Parse a seed that cannot be random."""
    return not_negative(int, MAX_SEED)(text)


def resolution(text: str) -> tuple[int, int]:
    """Parse --res: WIDTHxHEIGHT, or one number for both."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if not match or not int(match[1]) or match[2] and not int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor WIDTHxHEIGHT")
    return int(match[1]), int(match[2] or match[1])


def repository(text: str) -> str:
    if not re.fullmatch(REPO_NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} has not the form USER/NAME")
    return text


def finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(kind: type, most: float = math.inf) -> Callable[[str], float]:
    """Return a parser of numbers of a kind, int or float, above zero and at most `most`."""
    return lambda text: _number(text, kind, most, lambda number: number > 0, "above zero")


def not_negative(kind: type, most: float = math.inf) -> Callable[[str], float]:
    """Return a parser of numbers of a kind, int or float, from zero to `most`."""
    return lambda text: _number(text, kind, most, lambda number: number >= 0, "of 0 or above")


def _number(text: str, kind: type, most: float, is_allowed: Callable[[float], bool], allowed: str) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and is_allowed(number)):
        what = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what} {allowed}")
    if number > most:
        raise argparse.ArgumentTypeError(f"{text!r} is above {most:g}")
    return number
