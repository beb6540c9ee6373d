"""What every key of the configuration means, for `train_model.py --help-config`.

The comments in training/config.py are the meaning: those above a key and the one behind it. They are read
from its source, so that a key is described in one place.
"""

import ast
import inspect
import io
import textwrap
import tokenize

from training import config
from training.config import COMPARISONS, KEYS, Key
from utils.errors import UserError

WIDTH = 100   # of the text on the terminal


def meanings() -> dict[str, str]:
    """Return {key with its section: meaning}, for every key and every section."""
    source = inspect.getsource(config)
    comments = {token.start[0]: token for token in tokenize.generate_tokens(io.StringIO(source).readline)
                if token.type == tokenize.COMMENT}
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    sections = {node.annotation.id: f"{node.target.id}." for node in _fields(classes["Config"])
                if isinstance(node.annotation, ast.Name) and node.annotation.id in classes}
    found = {}
    for section, prefix in {"Config": "", **sections}.items():
        for node in _fields(classes[section]):
            first = node.lineno
            while first - 1 in comments and not comments[first - 1].line.split("#")[0].strip():
                first -= 1
            # a comment inside the value, such as on the line of a long list, is behind the key too
            texts = [comments[line].string.lstrip("# ") for line in range(first, node.end_lineno + 1)
                     if line in comments]
            above = " ".join(texts[:node.lineno - first]).rstrip(".")
            behind = " ".join(texts[node.lineno - first:])
            found[prefix + node.target.id] = "; ".join(filter(None, (above, behind)))
    return found


def config_help(word: str = "") -> str:
    """Return every key with its default, meaning and values; only those whose name or meaning has `word`.

    Raises UserError if there is none.
    """
    described = meanings()
    shown = [key for key in KEYS.values() if word.lower() in f"{key.name} {described[key.name]}".lower()]
    if not shown:
        raise UserError(f"--help-config: no key and no meaning of one has {word!r} in it. Give another word, "
                        f"or none for all keys.")
    lines, section = [], ""
    for key in shown:
        if (now := key.name.rpartition(".")[0]) != section:
            section = now
            lines.append(f"\n{section}: {described[section]}\n" if section else "")
        lines.append(f"{key.name}={written(key.default)}")
        meaning = described[key.name]
        lines += textwrap.wrap(meaning + values_of(key, meaning), WIDTH, initial_indent="    ",
                               subsequent_indent="    ")
    return "\n".join(lines).strip("\n")


def values_of(key: Key, meaning: str) -> str:
    """Return a sentence on the values that a key can have; nothing where type or `meaning` say it all."""
    limits = key.constraints
    if any(choice not in meaning for choice in limits.get("choices", ())):
        return f". It can be {', '.join(limits['choices'])}"
    bounds = [f"{word} {limits[name] or 'zero'}" for name, word, _ in COMPARISONS if name in limits]
    return f" ({' and '.join(bounds)})" if bounds else ""


def written(value: object) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [part for part in node.body if isinstance(part, ast.AnnAssign)]
