"""Who moves in each file, as the user says it, and the caption that follows.

From --subject, for all files; from a subjects.csv of `file,subject` lines; or asked for on the terminal.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import read_text
from utils.prompts import MOTION_TOKEN, checked_text

TABLE_NAME = "subjects.csv"
HEADER = ["file", "subject"]


def caption_for(subject: str, motion: str | None, regularization: bool) -> str:
    """Return the caption of a clip: exemplars name the motion by V*, regularization clips in plain words."""
    if not regularization:
        return f"{subject} doing the {MOTION_TOKEN} {motion}"
    return f"{subject} {motion}" if motion else subject


def find_table(inputs: Sequence[Path]) -> Path | None:
    """Return the subjects.csv in an input folder or beside an input file; None if there is none."""
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in inputs)
    return next((folder / TABLE_NAME for folder in folders if (folder / TABLE_NAME).is_file()), None)


def read_subjects(table: Path, footage: Sequence[Path]) -> dict[Path, str]:
    """Return the subjects of those files that the table names, by name or by path.

    Raises UserError with a line for everything wrong in it, such as names no file has.
    """
    try:
        rows = list(csv.reader(read_text(table).splitlines()))
    except csv.Error as error:
        raise UserError(f"{table}: cannot be read ({error}).") from None
    if not rows or [cell.strip().lower() for cell in rows[0]] != HEADER:
        raise UserError(f"{table}: does not begin with the line `file,subject`.")
    subjects, problems = {}, []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name, subject = (*(cell.strip() for cell in row), "", "")[:2]
        named = [path for path in footage if name in (path.name, path.stem, str(path))]
        if len(row) != 2 or not subject:
            problems.append(f"{table}, line {number}: is not of the form `file,subject`.")
        elif not named:
            problems.append(f"{table}, line {number}: {name} is not among the footage.")
        else:
            subjects.update(dict.fromkeys(named, subject))
    if problems:
        raise UserError(*problems)
    return subjects


def check_text(what: str, text: str | None) -> str | None:
    """Return `text`, of one flag, with single spaces. Raises UserError if it is empty or no plain text."""
    if text is None:
        return None
    cleaned = checked_text(text, what)
    if not cleaned:
        raise UserError(f"{what} is empty. Give it a word, or leave it out.")
    return cleaned


def can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def ask(path: Path, times: str) -> str:
    """Return what the user types of one file. Raises UserError if nothing more can be typed."""
    while True:
        try:
            subject = " ".join(input(f"Who or what moves in {path.name} ({times})? ").split())
        except EOFError:
            raise UserError(f"{path}: nobody said who moves in it. Use --subject or {TABLE_NAME}.") from None
        if subject:
            return subject
