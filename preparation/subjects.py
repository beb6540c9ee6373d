"""Who moves in each file, as the user says it, and the caption that follows.

From --subject, for all files; from tables of `file,subject` lines; or asked for on the terminal.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError, attempt
from utils.files import nfc, read_text
from utils.prompts import MOTION_TOKEN, checked_text
from utils.wording import first_few

TABLE_NAME = "subjects.csv"
HEADER = ["file", "subject"]


def caption_for(subject: str, motion: str | None, regularization: bool) -> str:
    """Return the caption of a clip: exemplars name the motion by V*, regularization clips in plain words."""
    if not regularization:
        return f"{subject} doing the {MOTION_TOKEN} {motion}"
    return f"{subject} {motion}" if motion else subject


def find_tables(inputs: Sequence[Path], footage: Sequence[Path]) -> list[Path]:
    """Return every subjects.csv beside footage, and above it up to what was named as input; deepest first."""
    roots = {path if path.is_dir() else path.parent for path in inputs}
    folders = {folder for path in footage for folder in path.parents
               if any(folder.is_relative_to(root) for root in roots)}
    tables = (folder / TABLE_NAME for folder in sorted(folders, key=lambda folder: -len(folder.parts)))
    return [table for table in tables if table.is_file()]


def read_subjects(table: Path, footage: Sequence[Path], is_found: bool = False) -> dict[Path, str]:
    """Return the subjects of those files that the table names, by name or by path from its folder.

    A table that `is_found` beside footage counts for the files below its folder alone. Its rows of other
    files that exist are ignored. Raises UserError with a line for everything wrong in it, such as names that
    no file has.
    """
    try:
        rows = list(csv.reader(read_text(table).splitlines()))
    except csv.Error as error:
        raise UserError(f"{table}: cannot be read ({error}).") from None
    if not rows or [cell.strip().lower() for cell in rows[0]] != HEADER:
        raise UserError(f"{table}: does not begin with the line `file,subject`.")
    if is_found:
        footage = [path for path in footage if path.is_relative_to(table.parent)]
    subjects, problems = {}, []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name, subject = (*(cell.strip() for cell in row), "", "")[:2]
        named = [path for path in footage if _names(table, name, path)]
        if len(row) != 2 or not name or not subject:
            problems.append(f"{table}, line {number}: is not of the form `file,subject`.")
        elif len(named) > 1:
            problems.append(f"{table}, line {number}: {name} fits {first_few(named, 3)}. Write the path of "
                            f"one, from the table's folder, such as ./{name}.")
        elif named:
            what = f"{table}, line {number}: the subject"
            subjects[named[0]] = attempt(lambda: checked_text(subject, what), "", problems)
        elif not (is_found and _exists(table, name)):
            problems.append(f"{table}, line {number}: {name} is not among the footage.")
    if problems:
        raise UserError(*problems)
    return subjects


def _names(table: Path, name: str, path: Path) -> bool:
    if "/" not in name:
        return nfc(name) in (nfc(path.name), nfc(path.stem))
    here, there = (nfc(str(file.resolve())) for file in (table.parent / name, path))
    return nfc(name) == nfc(str(path)) or here == there


def _exists(table: Path, name: str) -> bool:
    """Say whether a file below the table's folder has this name, or a file lies at this path."""
    below = table.parent.rglob("*")
    return (table.parent / name).is_file() or any(_names(table, name, path) for path in below)


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
            given = input(f"Who or what moves in {path.name} ({times})? ")
        except EOFError:
            raise UserError(f"{path}: nobody said who moves in it. Use --subject or {TABLE_NAME}.") from None
        try:
            if subject := checked_text(given, "the answer"):
                return subject
        except UserError as error:   # an arrow key types control characters
            print(error)
