"""What `-m` of generate_pretrained.py names: the results of one run or of several, or a base as it is.

It stands in this room because motion weights carry the config of their run.
"""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# torch is imported in the functions that use it: wrong arguments should not wait for it
from training.config import Config
from training.config_loading import parse_config
from training.run_folder import MOTION_NAME, find_motion, run_of
from utils.errors import UserError, attempt
from utils.files import expanded, file_digest
from utils.prompts import tokens_in

if TYPE_CHECKING:
    from models.motion_weights import MotionInfo

DEFAULT_NUM_FRAMES = 16   # of a video of a base


class NamedModel(NamedTuple):
    """One -m."""

    model: str                # what it names
    strength: float | None    # None: that of --strength


@dataclass(frozen=True)
class Motion:
    """A file of motion weights, and how strongly it is applied."""

    named: str       # what -m says
    path: Path
    strength: float
    info: "MotionInfo"
    config: Config   # the config that it was trained with

    @property
    def shown(self) -> str:
        """What a video says it was made with: the file, or the name of its repository on the hub."""
        return str(self.path) if os.path.exists(self.named) else self.named


EXPORT_NAME = "customized_motion.json"   # in an exported pipeline folder: how it was made, and how to render


@dataclass(frozen=True)
class Exported:
    """What an exported pipeline folder says about rendering with it; None where it says nothing."""

    placeholder_token: str = Config.placeholder_token
    size: tuple[int, int] | None = None   # width, height in pixels
    num_frames: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Source:
    """Where the weights come from, and what they say about how to render with them."""

    base: str                     # diffusers folder or hub id
    adapter: str | None           # the same of its motion adapter, where the base is an image model
    motions: tuple[Motion, ...]   # their changes add up; none: the base as it is
    placeholder_token: str        # what V*, V2*, ... become
    exported: Exported = Exported()   # what the base says itself, if motions were exported into it

    @property
    def leading(self) -> Motion | None:
        """The motion whose training decides how to render: the first one that learned from moving clips,
        because an appearance knows no rate and no length."""
        return next((motion for motion in self.motions if _has_moved(motion.config)),
                    self.motions[0] if self.motions else None)

    @property
    def config(self) -> Config | None:
        """The config that the leading motion was trained with."""
        return self.leading and self.leading.config

    @property
    def fps(self) -> float | None:
        """Frames per second at which the leading motion was learned."""
        return self.leading.info.fps if self.leading else self.exported.fps

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels of the samples of the training run."""
        wanted = self.config and self.config.validation_data
        return (wanted.width, wanted.height) if wanted else self.exported.size

    @property
    def num_frames(self) -> int:
        """Frames of the samples of the training run."""
        if self.config:
            return self.config.validation_data.num_frames
        return self.exported.num_frames or DEFAULT_NUM_FRAMES

    def record(self) -> dict[str, Any]:
        """Return what videos and exported folders say of the motions.

        For several motions the values are lists, in an order that does not depend on the order of -m.
        """
        facts = [{"motion": motion.shown, "motion_digest": file_digest(motion.path),
                  "step": motion.info.step, "strength": motion.strength} for motion in self.motions]
        facts.sort(key=lambda fact: (fact["motion_digest"], fact["strength"]))
        if len(facts) < 2:
            return facts[0] if facts else {}
        return {key: [fact[key] for fact in facts] for key in facts[0]}


def named_model(text: str) -> NamedModel:
    """Parse an -m: MODEL or MODEL:STRENGTH. A path that is there is never cut at its colon."""
    text = expanded(text)
    model, colon, strength = text.rpartition(":")
    if not colon or os.path.exists(text) or os.sep in strength:
        return NamedModel(text, None)
    try:
        number = float(strength)
    except ValueError:
        number = math.nan
    if not model or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r}: {strength!r} is not a strength, and there is no such "
                                         f"path. Write -m RUN:0.8")
    return NamedModel(model, number)


def find_source(named: Sequence[NamedModel], moved_base: str | None = None, adapter: str | None = None,
                strength: float = 1.0, share_tokens: bool = False, may_download: bool = True) -> Source:
    """Return what all -m together name. `moved_base` and `adapter`: where the base of the motions and its
    motion adapter lie now, if they moved; `adapter` can also be that of an image model.
    `strength`: of motions without one of their own. `share_tokens`: several motions may have the same token.
    `may_download`: whether the hub is asked for what is not on this machine. Otherwise names on the hub pass
    unchecked, for callers that stop anyway because something else is wrong.

    Raises UserError with a line for each -m that names neither motion weights nor a base, and for motions
    that cannot be combined.
    """
    from models.base_folder import has_own_motion
    from models.same_base import have_one_base, schedule_changes

    problems, motions, bases = [], [], []
    for one in named:
        motion = attempt(lambda one=one: find_motion_of(one, adapter, strength, may_download), None, problems)
        motions += [motion] if motion else []
        bases += [one] if motion is None else []
    if problems:
        raise UserError(*problems)
    if bases and (len(named) == 1 or not may_download):
        if may_download and bases[0].strength is not None:
            raise UserError(f"-m {bases[0].model}:{bases[0].strength:g}: is a base, which has no strength.")
        if strength != 1:
            problems.append(f"-m {bases[0].model}: is a base, which has no strength. Leave out --strength.")
        if moved_base:
            problems.append(f"-m {bases[0].model}: is a base itself, so --base {moved_base} has no effect. "
                            f"Leave one of them out.")
        if may_download and problems:
            raise UserError(*problems)
        exported = read_exported(Path(bases[0].model))
        return Source(bases[0].model, adapter, (), exported.placeholder_token, exported)
    if bases:
        raise UserError(f"-m {bases[0].model}: is a base, and several -m combine motions. The motions say "
                        f"what their base is; if it has moved, say where with --base.")
    for index, other in enumerate(motions[1:], start=1):
        if other.path.resolve() in (motion.path.resolve() for motion in motions[:index]):
            raise UserError(f"-m {other.named}: is named twice. For a stronger motion write "
                            f"-m {other.named}:2")
        if not have_one_base(motions[0].info, other.info):
            raise UserError(f"{motions[0].path} was trained on {motions[0].info.base}, and {other.path} on "
                            f"{other.info.base}, which has other weights. Combine motions of one base.")
        if changes := schedule_changes(motions[0].info.noise_schedule, other.info.noise_schedule):
            raise UserError(f"{motions[0].path} and {other.path} were trained on bases of different noise "
                            f"schedules: {changes}. Combine motions of one base.")
    if not adapter and not (moved_base and has_own_motion(moved_base, may_download)):
        adapter = motions[0].config.motion_adapter_path
    return Source(moved_base or motions[0].info.base, adapter, tuple(motions),
                  combined_tokens(motions, share_tokens))


def read_exported(folder: Path) -> Exported:
    """Return what an exported pipeline folder says; of another base, or of a damaged file, nothing."""
    try:
        said = json.loads((folder / EXPORT_NAME).read_text(encoding="utf-8"))
        width, height, num_frames = (_positive(said.get(name), int)
                                     for name in ("width", "height", "num_frames"))
        return Exported(str(said["placeholder_token"]), (width, height) if width and height else None,
                        num_frames, _positive(said.get("fps"), (int, float)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Exported()


def _positive(value: Any, kind: Any) -> Any:
    """Return `value` if it is of `kind`, finite and above zero, else None."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    return value if is_number and 0 < value < math.inf else None


def find_motion_of(named: NamedModel, adapter: str | None, default_strength: float,
                   may_download: bool) -> Motion | None:
    """Return the motion that an -m names; None if it names a base. `adapter` is that of an image model.

    Raises UserError if it is neither motion weights nor a base.
    """
    from models.base_folder import HUB_ALIASES, check_base_folder, is_hub_id
    from models.motion_weights import read_motion_info
    from models.single_files import refusal_of_file

    given = named.model
    path = find_motion(given)
    if path is None and is_hub_id(given):
        path = find_on_hub(given, adapter, may_download)
    if path and path.suffix != ".safetensors":
        raise UserError(refusal_of_file(path) or
                        f"{given}: is not a motion.safetensors. Name a run folder, or the file of that name "
                        f"in it.")
    if path:
        info = read_motion_info(path)
        config, _ = parse_config(info.config, f"the config in {path}")
        strength = default_strength if named.strength is None else named.strength
        return Motion(given, path, strength, info, config)
    if Path(given).is_dir():
        problems = check_base_folder(Path(given), has_adapter=adapter is not None)
        if problems and not (Path(given) / "model_index.json").exists():
            raise UserError(f"{given}: holds neither motion weights nor a diffusers pipeline. Name a run "
                            f"folder, a motion.safetensors, a base or a hub id.")
        if problems:
            raise UserError(*problems)
    elif not is_hub_id(given) and given not in HUB_ALIASES:
        raise UserError(f"{given}: does not exist. Name a run folder, a motion.safetensors, a base or a hub "
                        f"id.")
    return None


def find_on_hub(name: str, adapter: str | None, may_download: bool) -> Path | None:
    """Return the motion weights of the repository `name`, downloaded if need be.

    None if the repository holds a base instead. Raises UserError if there is no such repository, or if it
    cannot be reached.
    """
    from models.base_folder import find_base
    from utils.hub import download

    if not may_download:
        return None
    problems: list[str] = []   # of a base on this machine; loading the base reports them
    is_here = attempt(lambda: find_base(name, download=False, adapter=adapter), None, problems)
    if is_here or problems:   # the base is on this machine, so the hub is not asked
        return None
    return download(name, MOTION_NAME)


def combined_tokens(motions: Sequence[Motion], share: bool) -> str:
    """Return the words that V*, V2*, ... become: the tokens of the motions, in their order.

    Raises UserError if two motions of different runs have the same token, unless they may `share` it: a
    prompt could ask for neither of them alone.
    """
    taken: dict[str, Motion] = {}
    for motion in motions:
        for token in tokens_in(motion.info.placeholder_token):
            other = taken.setdefault(token, motion)
            if not share and not _are_of_one_run(other, motion):
                raise UserError(
                    f"{other.path} and {motion.path}: both were taught the word {token!r}, so no prompt can "
                    f"ask for one of them alone. Train one of them again with another placeholder_token, or "
                    f"let them share the word with --share-tokens.")
    return ",".join(taken)


def _are_of_one_run(one: Motion, other: Motion) -> bool:
    """Say whether two motions are steps of one run, which mean the same: they lie in its folder, or have the
    same config. A continuation, which has another config, keeps the folder."""
    runs = {run_of(motion.path.resolve().parent) for motion in (one, other)}
    are_results = one.path.name == other.path.name == MOTION_NAME
    return are_results and len(runs) == 1 or one.info.config == other.info.config


def _has_moved(config: Config) -> bool:
    """Say whether a run learned from windows of several frames."""
    data = config.train_data
    return data.train_weights != "spatial" and config.dataset_types != ["image"] and data.n_sample_frames > 1
