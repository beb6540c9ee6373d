"""`train_model.py --new-config FILE`: five questions, and a commented config that passes --dry-run.

One more question asks for the motion adapter, where the base is an image model on this machine. Every answer
is checked at once. The answers come from standard input, one a line. Nothing is written before all questions
are answered.
"""

import importlib.util
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.base_check import EXAMPLE_ADAPTER
from models.base_folder import find_adapter, find_base, native_size, needs_adapter, tensor_sizes
from training.clips import Clip, find_clips
from training.config import Config, TrainData
from training.config_help import meanings
from training.config_loading import parse_config
from training.config_text import literal
from training.looking import looking_bar
from training.plan import TYPICAL_STRIDES, make_plan
from training.plan_report import MOST_ON_CPU
from utils.commands import ROOT, path_from_here, script_command
from utils.devices import has_gpu
from utils.errors import UserError
from utils.files import check_writable, expanded, replacing
from utils.prompts import MOTION_TOKEN, with_identifiers
from utils.video import sampled_frames
from utils.wording import counted

ZEROSCOPE, BUNDLED = "cerspense/zeroscope_v2_576w", ROOT / "models" / "puppet-theatre"
EXEMPLARS, REGULARIZATION = (ROOT / "data" / "puppets" / name for name in ("exemplars", "regularization"))
NONE = "none"
# what fits into so many GB with a base of ZeroScope's size (the README's tables): side in pixels, frames of a
# window, whether activations are recomputed, and what must be small for it: nothing, the optimizer (8bit), or
# what trains (lora)
FITS = ((44, 384, 16, False, ""), (16, 384, 16, True, ""), (12, 384, 16, True, "8bit"),
        (7, 384, 16, True, "lora"), (0, 256, 8, True, "lora"))
LORA = {"lora_rank": 16, "learning_rate": 1e-4}
# of a base as small as the bundled one, as in config.yaml
SMALL_BASE = {"max_train_steps": 1000, "train_batch_size": 1, "learning_rate": 7e-4, "prior_lambda": 0.15,
              "lr_scheduler": "cosine", "gradient_checkpointing": False, "checkpointing_steps": 500,
              "validation_steps": 500}
SMALL_DATA = {"num_shifts": 7, "sampling": "uniform"}
SMALL_SAMPLES = {"num_inference_steps": 15, "guidance_scale": 2.0, "batch_size": 4}


@dataclass(frozen=True)
class Answers:
    """What the user said, checked."""

    base: str
    folder: Path | None          # of the base; None if it is on the hub and not here
    adapter: str | None          # the motion adapter, where the base is an image model
    adapter_folder: Path | None  # None if it is on the hub and not here
    exemplars: list[Clip]
    path: str
    regularization: list[Clip]
    class_path: str | None
    memory: float                # of the GPU, in GB; 0: none
    output_dir: str

    @property
    def is_small(self) -> bool:
        """Say whether the base is one that a CPU can train."""
        if self.folder is None:
            return False
        return sum(tensor_sizes(self.folder, "unet", self.adapter_folder).values()) <= MOST_ON_CPU


def ask_for_config(path: Path) -> None:
    """Ask, write the config to `path`, and print what to type next.

    Raises UserError if `path` exists, if the answers end too early, or if they do not go together.
    """
    if path.exists():
        raise UserError(f"{path}: exists, and is not overwritten. Name another file.")
    if problems := check_writable(path.parent):
        raise UserError(*problems)
    text = config_text(ask())
    config, _ = parse_config(text, str(path))
    make_plan(config, download=False)   # what --dry-run would say is said now
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"\nwrote {path}. Look before you train:\n"
          f"  {script_command('train_model.py', '--config', path, '--dry-run')}")


def ask() -> Answers:
    """Ask the questions. An empty answer is the default, in brackets."""
    gpu = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else 0
    base, folder = answer("1 of 5. The base to teach: a diffusers folder, or a hub id",
                          ZEROSCOPE if has_gpu() else path_from_here(BUNDLED), _base)
    adapter, adapter_folder = None, None
    if needs_adapter(expanded(base)):
        adapter, adapter_folder = answer("This base makes images. The motion adapter that makes them move: a "
                                         "diffusers folder, or a hub id", EXAMPLE_ADAPTER,
                                         partial(_adapter, folder))
    path, exemplars = answer("2 of 5. The clips of the motion: a folder, with captions that say V*",
                             path_from_here(EXEMPLARS), _exemplars)
    ordinary = path_from_here(REGULARIZATION) if Path(path).resolve() == EXEMPLARS else NONE
    class_path, regularization = answer("3 of 5. Ordinary captioned clips for regularization: a folder, or "
                                        "none", ordinary, _regularization)
    memory = answer("4 of 5. Memory of the GPU in GB, 0 without one", f"{gpu:.0f}", _memory)
    output_dir = answer("5 of 5. Where the runs go: a folder", "results", _folder_to_write)
    return Answers(base, folder, adapter, adapter_folder, exemplars, path, regularization, class_path, memory,
                   output_dir)


def answer(question: str, default: str, check: Callable[[str], Any]) -> Any:
    """Return what `check` makes of the answer. What is wrong with it is said, and the question is asked
    again."""
    while True:
        try:
            given = input(f"{question} [{default}]: ").strip() or default
        except EOFError:
            raise UserError(f"--new-config: no answer to \"{question}\". Nothing was written.") from None
        try:
            return check(given)
        except UserError as error:
            print(error)


def config_text(answers: Answers) -> str:
    """Return the config as YAML, with the meaning of each key above it."""
    data, samples, rest = settings(answers)
    described = meanings()
    lines = ["# Written by train_model.py --new-config. Only what was asked for, or is not the default;",
             "#   python train_model.py --help-config", "# lists every key.", ""]
    for section, values in (("", rest), ("train_data", data), ("validation_data", samples)):
        lines += [f"{section}:"] * bool(section)
        indent = "  " * bool(section)
        for key, value in values.items():
            meaning = described[f"{section}.{key}" if section else key]
            mark = f"{indent}# "
            lines += textwrap.wrap(meaning, 100, initial_indent=mark, subsequent_indent=mark)
            lines.append(f"{indent}{key}: {json.dumps(literal(value), ensure_ascii=False)}")   # JSON is YAML
        lines.append("")
    return "\n".join(lines)


def settings(answers: Answers) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return the keys of train_data, of validation_data and outside both."""
    _, side, num_frames, recompute, small = next(row for row in FITS if answers.memory >= row[0])
    adapter = {"motion_adapter_path": answers.adapter} if answers.adapter else {}
    rest = {"pretrained_model_path": answers.base, **adapter, "output_dir": answers.output_dir,
            "subject": motion_word(answers.exemplars) or "best"}
    samples = {"prompt": sample_prompts(answers.exemplars)}
    if answers.is_small:
        side, num_frames = min(native_size(answers.base, answers.folder) or [side]), 8
        rest |= SMALL_BASE
        samples |= SMALL_SAMPLES
    else:
        has_8bit = torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes") is not None
        rest |= {"mixed_precision": None, "gradient_checkpointing": recompute,
                 "use_8bit_adam": small == "8bit" and has_8bit}
        rest |= LORA if small == "lora" or small and not has_8bit else {}
    rates = [clip.fps for clip in answers.exemplars if clip.info.num_frames > 1]
    fps = min([8.0 if answers.is_small or answers.adapter else TrainData.fps, *rates])
    # a clip that is shorter than a window would stop the run
    counts = {clip.path: len(sampled_frames(clip.info, fps))
              for clip in (*answers.exemplars, *answers.regularization) if clip.info.num_frames > 1}
    shortest = min(counts, key=counts.get, default=None)
    if shortest and counts[shortest] < num_frames:
        num_frames = counts[shortest]
        print(f"note: {shortest} has no more than {counted(num_frames, 'frame')}, so n_sample_frames is "
              f"{num_frames}. If that is too few for the motion, leave the clip out.")
    return {"path": answers.path, "class_path": answers.class_path, "width": side, "height": side,
            "n_sample_frames": num_frames, "fps": round(fps, 3),
            **(SMALL_DATA if answers.is_small else {})}, samples, rest


def sample_prompts(exemplars: list[Clip]) -> list[str]:
    """Return prompts that call the motion as the captions do: one as captioned, and one of a robot."""
    captions = [with_identifiers(caption, Config.placeholder_token)
                for clip in exemplars for caption in clip.captions]
    captions = [caption for caption in captions if MOTION_TOKEN in caption]
    captions = captions or [f"a person doing the {MOTION_TOKEN}"]
    doing = re.search(r"\bdoing\b.*", captions[0])
    return list(dict.fromkeys([captions[0], *([f"a robot {doing[0]}"] if doing else [])]))


def motion_word(exemplars: list[Clip]) -> str:
    """Return the word behind V* in the captions, or nothing."""
    found = (re.search(rf"(?<!\w){Config.placeholder_token}\s+(\w+)", caption)
             for clip in exemplars for caption in clip.captions)
    return next((match[1] for match in found if match), "")


def _base(text: str) -> tuple[str, Path | None]:
    base = expanded(text)
    return text, find_base(base, download=False, adapter=EXAMPLE_ADAPTER if needs_adapter(base) else None)


def _adapter(base: Path, text: str) -> tuple[str, Path | None]:
    return text, find_adapter(expanded(text), base, download=False)


def _exemplars(text: str) -> tuple[str, list[Clip]]:
    config = Config(train_data=TrainData(path=expanded(text), n_sample_frames=1))
    return text, find_clips(config, TYPICAL_STRIDES[1], None, looking_bar)[0]


def _regularization(text: str) -> tuple[str | None, list[Clip]]:
    if text == NONE:
        return None, []
    config = Config(train_data=TrainData(class_path=expanded(text), n_sample_frames=1))
    return text, find_clips(config, TYPICAL_STRIDES[1], None, looking_bar)[1]


def _memory(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB?|GiB)?", text, re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is not a number of GB, such as 24.")
    return float(match[1])


def _folder_to_write(text: str) -> str:
    if problems := check_writable(Path(expanded(text))):
        raise UserError(*problems)
    return text
