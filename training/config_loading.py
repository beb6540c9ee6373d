"""Reading and writing the training configuration: YAML and `key=value`, with everything wrong said at once.

A key the published implementation ignored is accepted and reported; any other unknown key is an error.
"""

import difflib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from training.config import Config
from training.config_checks import AS_TRAINED, impossible_values
from utils.errors import UserError
from utils.prompts import is_text

WITHOUT_EFFECT = (
    "initializer_token", "kwargs", "extra_unet_params", "enable_xformers_memory_efficient_attention",
    "enable_torch_2_attn", "cache_latents", "train_data.sample_start_idx", "train_data.frame_step",
    "train_data.add_token", "validation_data.sample_preview",
)
SECTIONS = ("train_data", "validation_data")
STEP_LISTS = ("checkpointing_steps", "validation_steps")
NAME_LISTS = ("trainable_modules", "dataset_types")
TEXT_LISTS = ("train_data.fallback_prompt", "train_data.class_prompt", "validation_data.prompt")


def load_config(path: str | Path, overrides: list[str] = ()) -> tuple[Config, list[str]]:
    """Read a YAML file and `key=value` overrides into a checked Config; also return notes for the user.

    Raises UserError with one line for everything that is wrong, each naming the file or the command line.
    """
    config, notes, problems = examine_config(path, overrides)
    if problems:
        raise UserError(*problems)
    return config, notes


def parse_config(text: str, source: str, overrides: list[str] = ()) -> tuple[Config, list[str]]:
    """Do what `load_config` does for YAML text; `source` is what errors call it."""
    config, notes, problems = _examine(text, source, overrides)
    if problems:
        raise UserError(*problems)
    return config, notes


def examine_config(path: str | Path, overrides: list[str] = ()) -> tuple[Config, list[str], list[str]]:
    """Do what `load_config` does, but return (config, notes, problems), so that more can be checked first.

    Where there are problems, the config has defaults in place of what is wrong, and is good for looking only.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). "
                        f"Give the path of a YAML config.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    return _examine(text, str(path), overrides)


def _examine(text: str, source: str, overrides: list[str]) -> tuple[Config, list[str], list[str]]:
    config, problems, notes = OmegaConf.structured(Config), [], []
    defaults, known = OmegaConf.structured(Config), list(_keys(config))
    given = [(source, key, value) for key, value in _leaves(_parse_yaml(text, source))]
    for override in overrides:
        try:
            given += [("command line", key, value) for key, value in _parse_override(override)]
        except ValueError as error:
            problems.append(f"command line: {error}")
    for origin, key, value in given:
        if _is_without_effect(key):
            notes.append(f"{origin}: {key} has no effect.")
        elif key in SECTIONS and value in (None, {}) or value == "???":   # ???: to be filled in
            continue
        elif key in SECTIONS:
            problems.append(f"{origin}: {key} is {value!r}. It is a section; its keys go below it, indented.")
        elif key not in known:
            problems.append(f"{origin}: {key} is not a key.{_suggestion(key, known)}")
        else:
            problems += _set(config, origin, key, value)
    sources = {key: origin for origin, key, _ in given}
    for key, wrong in list(impossible_values(dict(_leaves(config)))):
        problems.append(f"{sources.get(key, source)}: {key}{wrong}")
        OmegaConf.update(config, key, OmegaConf.select(defaults, key))
    for key, trained in AS_TRAINED.items():
        if OmegaConf.select(config, key) is None:
            OmegaConf.update(config, key, OmegaConf.select(config, trained))
    if config.lr_warmup_steps and config.lr_scheduler == "constant":
        notes.append(f"{sources['lr_warmup_steps']}: lr_warmup_steps has no effect with "
                     f"lr_scheduler: constant; constant_with_warmup has a warm-up.")
    if any(f"train_data.{key}" in problem for problem in problems for key in ("n_sample_frames", "fps")):
        # how long a window is may be among what is wrong, and no clip should be called too short by mistake
        config.train_data.allow_short_clips = True
    return OmegaConf.to_object(config), notes, problems


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(config_yaml(config), encoding="utf-8")


def config_yaml(config: Config) -> str:
    """Return the resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flat_config(config: Config) -> dict[str, Any]:
    """Return {dotted key: value}, for comparing two configs."""
    return dict(_leaves(OmegaConf.structured(config)))


def _parse_yaml(text: str, source: str) -> DictConfig:
    try:
        content = OmegaConf.create(text)
        OmegaConf.resolve(content)
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{source}: is not valid YAML: {_first_line(error)}") from None
    except AssertionError:   # how the library meets a text that is one number
        content = None
    if not isinstance(content, DictConfig):
        raise UserError(f"{source}: does not hold `key: value` lines.")
    return content


def _parse_override(override: str) -> list[tuple[str, Any]]:
    """Return the (dotted key, value) pairs of `key=value`.

    Raises ValueError with the reason if it cannot be read.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"{override!r} is not of the form key=value.")
    if key in TEXT_LISTS and text != "null" and not text.startswith(("[", '"', "'")):
        return [(key, text)]   # a prompt is taken as typed: `a cat: V* dance` and `*` are no YAML
    try:
        return list(_leaves(OmegaConf.from_dotlist([override])))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{override!r} cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:   # of a YAML error the line number is what helps
        return f"line {mark.line + 1}, {error.problem}."
    return str(error).splitlines()[0].strip()


def _leaves(config: DictConfig, prefix: str = ""):
    """Yield (dotted key, value); sections are entered, lists are values."""
    items = OmegaConf.to_container(config, resolve=True).items() if prefix == "" else config.items()
    for key, value in items:
        dotted = f"{prefix}{key}"
        if value and isinstance(value, dict) and not _is_without_effect(dotted):
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def _keys(config: DictConfig):
    for key, _ in _leaves(config):
        yield key


def _is_without_effect(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def _suggestion(key: str, known: list[str]) -> str:
    known = [*known, *SECTIONS]
    by_last_part = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = by_last_part or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def _set(config: DictConfig, source: str, key: str, value: Any) -> list[str]:
    """Set one key, converting as the schema says; return the problems instead of raising them."""
    if not all(is_text(text) for text in (value if isinstance(value, list) else [value])
               if isinstance(text, str)):
        return [f"{source}: {key}: {value!r} is not UTF-8 text."]
    try:
        if key in STEP_LISTS:
            value = _steps(value)
        elif key in TEXT_LISTS:
            value = _texts(value)
        elif key in NAME_LISTS and isinstance(value, str):
            value = [value]
        elif key == "mixed_precision" and value is False:   # YAML 1.1 reads a bare no as false
            value = "no"
        OmegaConf.update(config, key, value)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        if value is None:
            return [f"{source}: {key} has no value. Give it one, or leave the key out."]
        return [f"{source}: {key}: {_first_line(error).removesuffix('.')}."]
    return []


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
