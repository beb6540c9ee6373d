"""Reading prompts: typed ones, a .txt file of `seed,prompt` lines, or a .csv file.

A typed prompt is taken as it is and has no seed in it. A .csv file is one as spreadsheets write it, with the
columns seed and prompt, or with a header that names them.
"""

import csv
import difflib
import io
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError
from utils.files import is_text, read_text
from utils.prompt_weights import check_weights
from utils.prompts import MAX_SEED, Prompt, checked_text, clean_text
from utils.wording import counted

LIST_SUFFIXES = (".txt", ".csv")
NUMBER = re.compile(r"[-+.]?\d[\d.eE_+-]*")
SEPARATORS, HEADER_NAMES = ",;\t", {"seed", "prompt"}   # of tables
HEADER = re.compile(r'"?(seed"?[,;\t] *"?prompt|prompt"?[,;\t] *"?seed)"?', re.IGNORECASE)
# names of columns in tables of other programs. A first row of such words alone is a header, not a prompt
OTHER_NAMES = {"caption", "captions", "text", "texts", "prompts", "seeds", "id", "ids", "index", "number",
               "no", "name", "file", "file_name", "filename", "video", "negative_prompt", "negative prompt",
               "negative"}
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(?!\w)")   # 5,000 paper cranes: one number, no seed 5


def read_prompts(given: str, seed: int | None = None) -> list[Prompt]:
    """Return the prompts of a .txt or .csv file, or of one or several prompts joined by `|`.

    `seed` is for prompts that name none; None draws a random one for each. A prompt given twice with one seed
    is returned once. Raises UserError naming every line that is wrong.
    """
    return examine_prompts(given, seed)[0]


def examine_prompts(given: str, seed: int | None = None) -> tuple[list[Prompt], list[str]]:
    """Do what `read_prompts` does, and also return a line for everything worth knowing of how it was read."""
    if not is_text(given):
        raise UserError(f"{given!r} is not UTF-8 text.")
    path = find_list(given)
    if path:
        found, notes = _read_list(path)
        num_seeds = sum(own_seed is not None for own_seed, _ in found)
        notes = [f"{counted(len(found), 'prompt')} from {path}, {num_seeds} with a seed of "
                 f"{'its' if num_seeds == 1 else 'their'} own", *notes]
    else:
        texts = [checked_text(text, "The prompt") for text in given.split("|")]
        found = [(None, text) for text in texts if text]
        if not found:
            raise UserError("The prompt is empty. "
                            "Say what to render, or name a .txt file of `seed,prompt` lines.")
        notes = [f"{text!r}: the number is part of the prompt. Give a seed with -s, or in a .txt file."
                 for _, text in found if re.match(r"\d+,", text) and not THOUSANDS.match(text)]
    check_weights(*(text for _, text in found))
    prompts = []
    for own_seed, text in found:
        given_seed = seed if own_seed is None else own_seed
        prompts.append(Prompt(secrets.randbelow(2**31) if given_seed is None else given_seed, text))
    return list(dict.fromkeys(prompts)), notes


def find_list(given: str) -> Path | None:
    """Return the file of prompts that `given` names, with or without its suffix; None: it is a prompt.

    Raises UserError if it looks like the path of a file and there is no such list.
    """
    expanded = os.path.expanduser(given)
    path = Path(expanded)
    if path.suffix.lower() in LIST_SUFFIXES:
        if os.path.isfile(path):   # unlike Path.is_file, no error where a name is too long to be one
            return path
        raise UserError(f"{path}: cannot be read (no such file). {_nearest_list(path)}")
    if "|" in given or len(given.split()) != 1:
        return None
    for suffix in LIST_SUFFIXES:
        if os.path.isfile(expanded + suffix):
            return Path(expanded + suffix)
    if os.path.exists(path) and ("/" in given or path.suffix):
        raise UserError(f"{path}: is not a list of prompts. Name a .txt or .csv file.")
    if "/" in given:
        raise UserError(f"{path}: there is no such file. {_nearest_list(path)} "
                        f"If it is a prompt, put spaces around the slash.")
    return None


def parse_prompt_line(line: str) -> tuple[int | None, str]:
    """Split `seed,prompt` at its first comma; a line that does not begin with a seed is all prompt.

    Quotes that a spreadsheet puts around a whole field are removed. `5,000 paper cranes` begins with a number
    and has no seed; `5, 101 dalmatians` has. Raises ValueError with the reason if a line cannot be read.
    """
    if HEADER.fullmatch(line.strip()):
        raise ValueError("it is the header of a table. Remove it, or name the file .csv")
    if pasted := re.match(r'\s*"?(\d+)"?[\t;]\s*(?=\S)', line):   # cells of a spreadsheet
        prompt = clean_text(line[pasted.end():])
        raise ValueError(f"a seed has a comma behind it. Write `{pasted[1]},{prompt}`")
    line = clean_text(line)
    head, comma, tail = line.partition(",")
    head = _unquoted(head)
    has_seed = comma and not THOUSANDS.match(line) and is_seed(head)
    text = _unquoted(tail if has_seed else line)
    if not text:
        raise ValueError(f"the seed {head} has no prompt behind it" if has_seed and head else
                         "there is no prompt in it")
    return int(head) if has_seed and head else None, text


def is_seed(head: str) -> bool:
    """Say whether `head`, which stands before a comma, is a seed or an empty seed column.

    Raises ValueError with the reason if it is a number and no seed; the `3D` of `3D, a robot` is no number.
    """
    if head.isascii() and head.isdigit():
        if int(head) > MAX_SEED:
            raise ValueError(f"the seed {head} is above {MAX_SEED}")
        return True
    if NUMBER.fullmatch(head):
        raise ValueError(f"{head!r} is not a whole number of 0 or above; "
                         f"a line is `seed,prompt` or a prompt alone")
    return not head


def _read_list(path: Path) -> tuple[list[tuple[int | None, str]], list[str]]:
    """Return the (seed or None, prompt) pairs of a file, and notes on lines that can be read in two ways."""
    text = read_text(path, "Name a file of `seed,prompt` lines.")
    found, notes, problems = [], [], []
    is_table = path.suffix.lower() == ".csv"
    for number, line in _csv_lines(path, text, notes) if is_table else _lines(text):
        try:
            own_seed, prompt = parse_prompt_line(line)
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}.")
            continue
        found.append((own_seed, prompt))
        if THOUSANDS.match(line):
            first, rest = prompt.split(",", 1)
            notes.append(f"{path}, line {number}: {prompt!r} has no seed. "
                         f"Write `{first}, {rest}` if {first} is its seed.")
    if problems:
        raise UserError(*problems)
    if not found:
        raise UserError(f"{path}: holds no prompts. Write one `seed,prompt` per line.")
    return found, notes


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # not splitlines(): a prompt may hold the rarer separators it also splits at
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _csv_lines(path: Path, text: str, notes: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, `seed,"prompt"`) for the rows of a table, with or without a header.

    What follows a separator without quotes belongs to the prompt, if the prompt is the last column. `notes`
    gets a line for columns that are not read, and for rows that can be read in two ways.
    """
    lines = list(io.StringIO(text, newline=""))
    separator = _separator(lines)
    if lines and (said := re.fullmatch(r'"?sep=(.)"?\s*', lines[0])):   # a line that Excel does not show
        lines[0], separator = "\n", said[1]
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    header, is_first, num_read = [], True, 0
    try:
        for row in rows:
            written, first_line = "".join(lines[num_read : rows.line_num]), num_read + 1
            num_read = rows.line_num
            where = f"{path}, line {num_read}"
            if first_line < num_read == len(lines) and written.count('"') % 2:
                raise UserError(f"{path}, line {first_line}: has a quote that nothing closes, so that all "
                                f"lines below it would belong to its prompt.")
            cells = [" ".join(cell.split()) for cell in row]
            while cells and not cells[-1]:   # spreadsheets fill up short rows
                cells.pop()
            if not cells or cells[0].startswith("#"):
                continue
            if is_first:
                is_first = False
                names = [cell.lower() for cell in cells]
                if HEADER_NAMES.intersection(names) or OTHER_NAMES.issuperset(names):
                    header = _checked_header(names, where)
                    if unread := [name for name in names if name and name not in HEADER_NAMES]:
                        notes.append(f"{path}: the columns seed and prompt are read, and not "
                                     f"{', '.join(unread)}")
                    continue
            has_seed = len(row) > 1 and NUMBER.fullmatch(cells[0] or "0")
            names = header or (["seed", "prompt"] if has_seed else ["prompt"])
            if len(cells) > len(names):
                if names[-1] != "prompt":
                    raise UserError(f"{where}: has {len(cells)} cells, the header {len(names)}. "
                                    f"Put quotes around the prompt.")
                cells[len(names) - 1 :] = [_rest_of_row(written, separator, len(names) - 1)]
            if not header and not has_seed and len(row) > 1 and re.fullmatch(r".*\D,\s*\d+", cells[-1]):
                notes.append(f"{where}: the number at the end is part of the prompt. If it is the seed, "
                             f"write the header `prompt,seed`.")
            named = dict(zip(names, cells))
            head, prompt = named.get("seed", ""), named.get("prompt", "")
            if header and not NUMBER.fullmatch(head or "0"):
                raise UserError(f"{where}: the seed {head!r} is not a whole number.")
            quoted = prompt.replace('"', '""')
            yield num_read, f'{head},"{quoted}"'
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: cannot be read as CSV ({error}).") from None


def _separator(lines: list[str]) -> str:
    """Return what separates the cells of a table: many countries' spreadsheets write semicolons.

    The first line tells, by the names in a header or by what follows a seed.
    """
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    cells = {separator: re.split(f' *"?{separator} *"?', first.strip().strip('"').lower())
             for separator in SEPARATORS}
    named = [separator for separator in SEPARATORS if HEADER_NAMES.intersection(cells[separator])
             or OTHER_NAMES.issuperset(cells[separator])]
    after_seed = re.match(r' *"?\d*"? *([,;\t])', first)
    return max(named, key=lambda separator: len(cells[separator]),
               default=after_seed[1] if after_seed else ",")


def _checked_header(names: list[str], where: str) -> list[str]:
    """Return the names of the columns. Raises UserError unless there is one prompt, and at most one seed."""
    for name in ("prompt", "seed"):
        num = names.count(name)
        if num > 1 or not num and name == "prompt":
            raise UserError(f"{where}: the header has {num or 'no'} column{'s' if num > 1 else ''} {name}. "
                            f"Name the columns seed and prompt.")
    return names


def _rest_of_row(written: str, separator: str, num: int) -> str:
    """Return what a row has behind its first `num` cells, as it was written."""
    cells = rf'(?:(?: *"(?:[^"]|"")*" *|[^{separator}]*){separator}){{{num}}}'
    return " ".join(written[re.match(cells, written).end() :].rstrip(f"{separator}\r\n ").split())


def _unquoted(field: str) -> str:
    """Return a field without the quotes that CSV puts around it, in which a quote is written twice."""
    field = field.strip()
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', field)
    return quoted[1].replace('""', '"').strip() if quoted else field


def _nearest_list(path: Path) -> str:
    """Return a sentence that names the list of prompts beside `path` whose name is most like it."""
    folder = path.parent if os.path.isdir(path.parent) else Path("data/prompts")
    names = sorted(found.name for found in folder.glob("*") if found.suffix.lower() in LIST_SUFFIXES)
    nearest = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {folder / nearest[0]}?" if nearest else "Name a .txt or .csv file of prompts."
