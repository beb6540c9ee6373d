"""How a video was rendered, by the record in its file, and how the videos of one folder differ in it.

A record is what rendering/video_folder.py writes into each file: the base, the learned motions and the
settings. Videos of other programs have none, and only what the file itself shows is known of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.video import VideoInfo
from utils.wording import first_few

# keys of a record, in which a video and its reference must not differ
SETTINGS = ("num_inference_steps", "guidance_scale", "negative_prompt", "sampler", "base_fingerprint")
UNTUNED = "none (untuned base)"
MOST_VALUES = 4   # of one setting, that a note names
DIGITS = 8        # of a fingerprint, where two files have the same name


@dataclass(frozen=True)
class Value:
    """One setting of one video."""

    setting: str
    identity: str   # equal in two videos if the setting is: a fingerprint, where a path may have changed
    shown: str      # for people


def settings_of(info: VideoInfo, record: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return how a video was rendered: what the file itself shows, and SETTINGS of its record."""
    shown = {"size": f"{info.width}x{info.height}", "frames": info.num_frames, "fps": round(info.fps, 3)}
    return (*shown.items(), *((name, str(record[name])) for name in SETTINGS if name in record))


def is_tuned(record: Mapping[str, Any]) -> bool:
    """Say whether a video was rendered with a learned motion. With strength 0 it was not."""
    strength = record.get("strength", 1)   # a list, where the video was made with several motions
    return bool(record.get("motion")) and any(strength if isinstance(strength, list) else [strength])


def making_of(info: VideoInfo, record: Mapping[str, Any]) -> tuple[Value, ...]:
    """Return everything that is known of how a video was rendered, without its prompt and seed."""
    values = []
    if is_tuned(record):
        motion = _text(record["motion"])
        values = [Value("motion", _text(record.get("motion_digest", motion)), motion),
                  *(Value(name, _text(record[name]), _text(record[name])) for name in ("step", "strength")
                    if name in record)]
    elif record:
        values = [Value("motion", UNTUNED, UNTUNED)]
    for name, value in settings_of(info, record):
        if name == "base_fingerprint":
            values.append(Value("base", value, _text(record.get("base", value))))
        else:
            values.append(Value(name, str(value), str(value) or "none"))
    return tuple(values)


def differing(makings: Sequence[Iterable[Value]]) -> list[str]:
    """Return each setting in which videos differ, with its values and the number of videos that have each:
    "strength 1.0 in 3, 0.5 in 2".

    Videos of which a setting is not known are left out of its numbers.
    """
    by_setting: dict[str, dict[str, list[Value]]] = {}
    for value in (value for making in makings for value in making):
        by_setting.setdefault(value.setting, {}).setdefault(value.identity, []).append(value)
    return [f"{setting} {first_few(_shown(found), MOST_VALUES)}" for setting, found in by_setting.items()
            if len(found) > 1]


def _shown(found: Mapping[str, Sequence[Value]]) -> list[str]:
    """Return the values of a setting, with the number of videos that have each, the most common first."""
    names = [values[0].shown for values in found.values()]
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [f"{values[0].shown}{f' ({identity[:DIGITS]})' if names.count(values[0].shown) > 1 else ''} "
            f"in {len(values)}" for identity, values in ordered]


def _text(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
