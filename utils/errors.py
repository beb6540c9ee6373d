"""What a user can fix, told in plain lines: raised anywhere, printed once by the script, exit code 2."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from utils.processes import num_processes


class UserError(Exception):
    """One or more things the user can fix, one line each: what is wrong, where, what to do.

    Whatever file names and prompts hold, it stays one line, and one that every terminal can show.
    """

    def __init__(self, *problems: str):
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


def printable(text: str) -> str:
    """Return `text` with its line ends, control characters and undecodable bytes spelt out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                   for letter in text)


def attempt(check: Callable[[], Any], default: Any, problems: list[str]) -> Any:
    """Return what `check` returns; if it raises UserError, add its lines to `problems`, return `default`."""
    try:
        return check()
    except UserError as error:
        problems += error.problems
        return default


def plain_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make wrong arguments a UserError, one line like all others, instead of a page of usage."""
    def report(message: str):
        raise UserError(f"{message}. See {parser.prog} --help.")

    parser.error = report
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Call `main` and exit; a UserError is printed alone and ends with code 2, Ctrl-C with code 130.

    One of several processes leaves without the interpreter's teardown: threads of gloo outlive the last step,
    and one that needs the interpreter then takes a finished run down.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")   # file names need not be text
    code = exit_code_of(main)
    if num_processes() > 1:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def exit_code_of(main: Callable[[], None]) -> int:
    """Call `main` and return the code to exit with, having said on stderr why it is not 0."""
    try:
        main()
        return 0
    except SystemExit as stop:   # --help, or stopped by a signal
        return int(stop.code or 0)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:   # the reader of our output went away (`| head`)
        sys.stdout = None     # or the interpreter would try to flush it, and complain
        return 1
    except OSError as error:   # what no code below expected of the disk; other OSErrors are our own mistakes
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        print(f"{error.filename or 'A file'}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What was finished is on disk.", file=sys.stderr)
        return 130
