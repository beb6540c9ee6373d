"""Errors that a user can fix: raised anywhere, printed by the command as plain lines, exit code 2."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from utils.processes import num_processes

INSTALL = "Install what this version needs: pip install -r requirements.txt"   # for messages


class UserError(Exception):
    """One or more problems the user can fix, a line each: what is wrong, where, and what to do.

    Each problem stays one line that every terminal can show, whatever characters file names and prompts have.
    """

    def __init__(self, *problems: str):
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


def printable(text: str) -> str:
    """Return `text` with its line ends, control characters and undecodable bytes spelt out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                   for letter in text)


def first_line(error: Exception) -> str:
    """Return the first line of what `error` says; the name of its type if it says nothing."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def attempt(check: Callable[[], Any], default: Any, problems: list[str]) -> Any:
    """Return the result of `check`. If it raises UserError, add its lines to `problems` and return
    `default`."""
    try:
        return check()
    except UserError as error:
        problems += error.problems
        return default


def plain_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make `parser` raise a UserError of one line for wrong arguments, instead of printing its usage."""
    def report(message: str):
        raise UserError(f"{message}. See {parser.prog} --help.")

    parser.error = report
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Call `main` and exit: with code 2 after printing a UserError alone, with code 130 after Ctrl-C.

    One of several processes exits without the interpreter's teardown. gloo's threads outlive the last step,
    and a thread that needs the interpreter during its teardown would crash a finished run.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")   # a file name may have bytes that are not text
    code = exit_code_of(main)
    if num_processes() > 1:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def exit_code_of(main: Callable[[], None]) -> int:
    """Call `main` and return the exit code, after printing on stderr why it is not 0."""
    try:
        main()
        return 0
    except SystemExit as stop:   # --help, or stopped by a signal
        return int(stop.code or 0)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:   # the reader of our output is gone, as with `| head`
        sys.stdout = None     # otherwise the interpreter would try to flush it, and complain
        return 1
    except OSError as error:   # the disk or a name is to blame; other OSErrors are mistakes of this program
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG,
                               errno.ELOOP):
            raise
        print(f"{error.filename or 'A file'}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What was finished is on disk.", file=sys.stderr)
        return 130
