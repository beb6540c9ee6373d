"""Reading and writing the training configuration: YAML and `key=value`, with everything wrong said at once.

The keys and their constraints are those of training/config.py. A key of the published program that does
nothing here is accepted and named; any other unknown key is an error.
"""

import dataclasses
import difflib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from training.config import KEYS, Config
from training.config_text import first_line, leaves, literal, override_leaves, yaml_leaves
from training.learning_rate import schedule_notes
from training.published_keys import ALIASES, UNSUPPORTED, section_without_effect
from utils.errors import UserError
from utils.files import expanded, is_text, read_text
from utils.prompts import tokens_in, with_spare_tokens

SECTIONS = tuple(field.name for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type))
SOURCES = {   # type of dataset -> the key of train_data that names its files, what to name
    "folder": ("path", "the folder of your exemplar clips"),
    "single_video": ("single_video_path", "your exemplar clip"),
    "image": ("image_dir", "the folder of your pictures"),
    "json": ("json_path", "the file that lists your clips and their captions"),
}


class Examined(NamedTuple):
    """What was read of a config, right or wrong."""

    config: Config         # with defaults in the place of values that are wrong
    notes: list[str]       # for the user
    problems: list[str]    # a line each; the config of a run has none
    unknown: set[str]      # keys whose value is not known, because it is wrong or the key is misspelt


class Given(NamedTuple):
    """One value that the user gave."""

    origin: str    # the file, or the command line
    key: str       # with its section
    value: Any


def load_config(path: str | Path, overrides: list[str] = ()) -> tuple[Config, list[str]]:
    """Read a YAML file and `key=value` overrides into a checked Config; also return notes for the user.

    Raises UserError with one line for everything that is wrong, each naming the file or the command line.
    """
    return _checked(examine_config(path, overrides))


def parse_config(text: str, source: str, overrides: list[str] = ()) -> tuple[Config, list[str]]:
    """Do what `load_config` does for YAML text; `source` is what errors call it."""
    return _checked(_examine(text, source, overrides))


def examine_config(path: str | Path, overrides: list[str] = ()) -> Examined:
    """Do what `load_config` does, but return the problems, so that the caller can look for more of them.

    Raises UserError if the file cannot be read as YAML.
    """
    return _examine(read_text(Path(path), "Give the path of a YAML config."), str(path), overrides)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(config_yaml(config), encoding="utf-8")


def config_yaml(config: Config) -> str:
    """Return the resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(literal(dataclasses.asdict(config))))


def flat_config(config: Config) -> dict[str, Any]:
    """Return {key with its section: value}, for comparing two configs."""
    return {name: float(value) if KEYS[name].kind is float else value
            for name, value in leaves(dataclasses.asdict(config))}


def _checked(examined: Examined) -> tuple[Config, list[str]]:
    if examined.problems:
        raise UserError(*examined.problems)
    return examined.config, examined.notes


def _examine(text: str, source: str, overrides: list[str]) -> Examined:
    given, problems = [Given(source, *leaf) for leaf in yaml_leaves(text, source)], []
    for override in overrides:
        try:
            given += [Given("command line", *leaf) for leaf in override_leaves(override)]
        except ValueError as error:
            problems.append(f"command line: {error}")
    config, without_effect, unknown = OmegaConf.structured(Config), [], set()
    named = {item.key for item in given}
    for origin, key, value in given:
        key = key if ALIASES.get(key) in named else ALIASES.get(key, key)
        if (idle := section_without_effect(key)) or key in ALIASES or key in UNSUPPORTED and not value:
            without_effect.append(idle or key)
        elif key in UNSUPPORTED:
            problems.append(f"{origin}: {key} is {value!r}. {UNSUPPORTED[key]}")
        elif key in SECTIONS and value in (None, {}) or value == "???":   # ???: the user is to fill it in
            continue
        elif wrong := _set(config, key, value):
            problems.append(f"{origin}: {key}{wrong}")
            unknown |= {key, *_nearest(key)}
    origins = {key: origin for origin, key, _ in given}
    for key, wrong in list(_impossible_values(config)):
        problems.append(f"{origins.get(key, source)}: {key}{wrong}")
        unknown.add(key)
        OmegaConf.update(config, key, KEYS[key].default)
    config = OmegaConf.to_object(config)
    without_effect += _settle(config)
    notes = [f"without effect here: {', '.join(dict.fromkeys(without_effect))}"] * bool(without_effect)
    notes += schedule_notes(config, origins)
    notes += [f"{origins[key]}: {key} has no effect with lora_rank: 0, which trains whole weights."
              for key in ("lora_alpha", "lora_dropout") if getattr(config, key) and not config.lora_rank]
    return Examined(config, notes, problems, unknown)


def _settle(config: Config) -> list[str]:
    """Put values in the place of null and of synonyms; return the keys of dataset types that are not used."""
    data, types, unused = config.train_data, config.dataset_types, []
    if data.train_weights == "temporal":
        data.train_weights = "all"
    for key in KEYS.values():
        section, _, name = key.name.rpartition(".")
        if trained := key.constraints.get("as_trained"):
            if getattr(config.validation_data, name) is None:
                setattr(config.validation_data, name, getattr(data, trained))
        users = key.constraints.get("datasets")
        if users and not set(users) & set(types) and (value := getattr(data, name)) != key.default:
            unused += [key.name] * (value not in (None, ""))
            setattr(data, name, key.default)
    if isinstance(data.path, list):
        config.placeholder_token = with_spare_tokens(config.placeholder_token, len(data.path))
    if data.json_path and data.json_data:
        data.json_data, unused = None, [*unused, "train_data.json_data"]
    return unused


def _nearest(key: str) -> list[str]:
    """Return the known key that was probably meant by `key`, as a list of one, or none."""
    known = [*KEYS, *SECTIONS]
    by_last_part = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return (by_last_part or difflib.get_close_matches(key, known, n=1, cutoff=0.6))[:1]


def _set(config: DictConfig, key: str, value: Any) -> str:
    """Set one key, converting the value as the type of the key says; return what is wrong, or nothing."""
    if key in SECTIONS:
        return f" is {value!r}. It is a section; its keys go below it, indented."
    if key not in KEYS:
        return " is not a key." + "".join(f" Did you mean {name}?" for name in _nearest(key))
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    for text in texts:
        if not is_text(text):
            return f": {text!r} is not UTF-8 text."
        if any(unicodedata.category(letter) == "Cc" and not letter.isspace() for letter in text):
            return f": {text!r} has control characters."
        if text == "???":   # in a list; OmegaConf's mark of a value that is to be filled in
            return " still has ??? in it. Fill it in."
    holds = KEYS[key].constraints.get("holds")
    try:
        if holds == "steps":
            value = _steps(value)
        elif holds == "texts":
            value = _texts(value)
        elif holds == "paths":
            value = _paths(value)
        elif KEYS[key].constraints.get("is_words"):
            value = _joined(value)
        elif holds == "names" and isinstance(value, str):
            value = [value]
        elif KEYS[key].constraints.get("is_path") and isinstance(value, str):
            value = expanded(value)
        OmegaConf.update(config, key, literal(value))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        if value is None:
            return " has no value. Give it one, or leave the key out."
        return f": {first_line(error).removesuffix('.')}."
    return ""


def _steps(value: Any) -> int | list[int] | None:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(step, bool) or not isinstance(step, int) or step < 0 for step in values):
        raise ValueError(f"{value!r} is neither a list of steps nor one whole number of steps")
    return value


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None or value == "" else [value]
    if any(isinstance(text, (dict, list)) for text in values):
        raise ValueError(f"{value!r} is neither a text nor a list of texts")
    return [str(text).strip() for text in values if text is not None and str(text).strip()]


def _paths(value: Any) -> str | list[str] | None:
    """Return the paths, expanded: a list only of several."""
    paths = [expanded(path) for path in _texts(value)]
    return paths if len(paths) > 1 else paths[0] if paths else None


def _joined(value: Any) -> Any:
    """Return words as one text with commas, from a list or from what is typed for one: [sks, zwx]."""
    if isinstance(value, str) and "," in value:
        value = value.removeprefix("[").removesuffix("]").split(",")
    return ",".join(str(word).strip() for word in value) if isinstance(value, list) else value


def _impossible_values(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for values that have the right type and cannot be."""
    values = {name: OmegaConf.select(config, name) for name in KEYS}
    for key in KEYS.values():
        if wrong := key.fault(values[key.name]):
            yield key.name, wrong
    rules = values["lr_step_rules"] or ""
    is_piecewise = values["lr_scheduler"] == "piecewise_constant"
    factor = r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
    if is_piecewise and not re.fullmatch(rf"({factor}:\d+,)+{factor}", rules):
        yield "lr_step_rules", (f" is {rules!r}. "
                                f"piecewise_constant needs factors and steps, such as 1:100,0.1:200,0.01.")
    tokens = tokens_in(values["placeholder_token"])
    if len(set(tokens)) < len(tokens):
        yield "placeholder_token", f" is {','.join(tokens)!r}. Two motions need two words."
    for kind, (own, what) in SOURCES.items():
        instead = "json_data" if kind == "json" else "path"
        is_given = values[f"train_data.{own}"] or values[f"train_data.{instead}"]
        if kind in values["dataset_types"] and not is_given:
            wanted = f", for dataset_types: {kind}" if kind != "folder" else ""
            yield f"train_data.{own}", f" is not set. Name {what}{wanted}."
