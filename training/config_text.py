"""The text of a configuration: YAML and `key=value` read into pairs of key and value.

A key that is text takes what was typed: 007, no and `a cat: V* dance` are words there.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from training.config import KEYS
from training.published_keys import section_without_effect
from utils.errors import UserError


def yaml_leaves(text: str, source: str) -> list[tuple[str, Any]]:
    """Return the (key with its section, value) pairs of YAML text. Raises UserError if it is none."""
    try:
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{source}: is not valid YAML: {first_line(error)}") from None
    except AssertionError:   # the library raises it for a text that is one number
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{source}: does not hold `key: value` lines.")
    return list(_as_written(content, text))


def override_leaves(override: str) -> list[tuple[str, Any]]:
    """Return the (key with its section, value) pairs of `key=value`; the value of a key that is text is taken
    as it was typed.

    Raises ValueError with the reason if it cannot be read.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"{override!r} is not of the form key=value.")
    known = KEYS.get(key)
    if known and known.is_text:
        return [(key, None if text == "null" or known.is_optional and not text else text)]
    takes_texts = known and known.is_text_list
    if takes_texts and text != "null" and not (text.startswith("[") and text.endswith("]")):
        return [(key, text)]
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=True)
        return list(_as_written(content, text, f"{key}."))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        if takes_texts:   # `[slow] a cat [dances]` is a prompt
            return [(key, text)]
        raise ValueError(f"{override!r} cannot be read: {first_line(error)}") from None


def _as_written(content: dict, text: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a config, numbers and truth values of keys that are text as they stand in `text`:
    007 and no are words."""
    # a loader for which every scalar is text; the parser is the one that OmegaConf uses
    written = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(text).get_single_data()
    if not isinstance(written, dict):
        written, prefix = {prefix[:-1]: written}, ""
    written = dict(leaves(written, prefix))
    for name, value in leaves(content):
        key = KEYS.get(name)
        if key and (key.is_text or key.is_text_list):
            value = _words(value, written.get(name))
        yield name, value


def _words(value: Any, written: Any) -> Any:
    if isinstance(value, list):
        is_alike = isinstance(written, list) and len(written) == len(value)
        return [_words(*pair) for pair in zip(value, written if is_alike else value)]
    if not isinstance(value, (bool, int, float)):
        return value
    return written if isinstance(written, str) and "${" not in written else str(value)


def first_line(error: Exception) -> str:
    """Return what a person should know of a YAML or OmegaConf error."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:   # of a YAML error the line number is what helps
        return f"line {mark.line + 1}, {error.problem}."
    return str(error).splitlines()[0].strip()


def leaves(content: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key with its section, value); lists are values, and so is what `json_data` holds."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        is_value = key in KEYS or section_without_effect(key)
        if value and isinstance(value, dict) and not is_value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def literal(content: Any) -> Any:
    """Return `content` with its texts escaped for OmegaConf, which would read ${...} as a reference."""
    if isinstance(content, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", content)
    if isinstance(content, dict):
        return {name: literal(value) for name, value in content.items()}
    return [literal(value) for value in content] if isinstance(content, list) else content
