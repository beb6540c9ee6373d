"""Two folders of videos of the same prompts and seeds compared pair by pair.

Two videos of one prompt and seed begin with the same noise, so most of what makes one prompt harder than
another is gone from their difference. Its interval is narrower than the intervals of the two means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.scores import MEASURES, Measure, MeasuredVideo
from evaluation.shown_videos import ShownVideo
from evaluation.statistics import estimate
from evaluation.summary import GroupScores
from evaluation.video_records import differing
from utils.wording import counted

Pair = tuple[MeasuredVideo, MeasuredVideo]


@dataclass(frozen=True)
class Comparison:
    """The videos of one folder, or of one step, less those of the other folder."""

    differences: GroupScores   # num_videos: the number of pairs
    num_alone: int             # videos that have no partner
    num_others_alone: int      # videos of the other folder that have none here
    made: list[str]            # in what the pairs were rendered in different ways


def compare(measured: Sequence[MeasuredVideo], partners: Mapping[ShownVideo, MeasuredVideo], num_others: int,
            seed: int) -> list[Comparison]:
    """Return the comparison of each group of `measured` that has pairs. `num_others`: videos of the other
    folder."""
    comparisons = []
    for name in dict.fromkeys(one.video.group for one in measured):
        inside = [one for one in measured if one.video.group == name]
        pairs = [(one, partners[one.video]) for one in inside if one.video in partners]
        if not pairs:
            continue
        measures = {}
        for measure in MEASURES:
            values, prompts = differences(measure, pairs)
            low, high = (0, 1) if measure.is_share else measure.limits
            limits = low - high, high - low
            measures[measure.key] = estimate(values, seed, measure.is_share, limits, prompts)
        made = differing([one.video.making for pair in pairs for one in pair])
        comparisons.append(Comparison(GroupScores(name, inside[0].video.step, len(pairs), measures),
                                      len(inside) - len(pairs), num_others - len(pairs), made))
    return comparisons


def differences(measure: Measure, pairs: Sequence[Pair]) -> tuple[list[float], list[str]]:
    """Return how much larger a score is in the first video of each pair, and the prompt of each.

    There is one value a pair, or one value a prompt that has pairs of several seeds.
    """
    if measure.of_video:
        scored = [pair for pair in pairs if all(measure.score in one.scores for one in pair)]
        return [float(one.scores[measure.score]) - float(other.scores[measure.score])
                for one, other in scored], [one.video.prompt for one, _ in scored]
    by_prompt: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair[0].video.shows_motion:
            by_prompt.setdefault(pair[0].video.prompt, []).append(pair)
    several = {prompt: found for prompt, found in by_prompt.items() if len(found) > 1}
    return [measure.of_prompt(ours) - measure.of_prompt(theirs)
            for ours, theirs in (zip(*found) for found in several.values())], list(several)


def explained(comparison: Comparison, folder: Path, other: Path) -> str:
    """Return what a comparison is of, for people."""
    name = comparison.differences.name
    lines = [f"{name + ': ' if name else ''}{folder} less {other}: "
             f"{counted(comparison.differences.num_videos, 'pair')} of the same prompt and seed."]
    for num, where in ((comparison.num_alone, folder), (comparison.num_others_alone, other)):
        if num:
            lines.append(f"{counted(num, 'video')} of {where} {'has' if num == 1 else 'have'} no partner.")
    if comparison.made:
        lines.append(f"The videos of the pairs differ in: {'; '.join(comparison.made)}.")
    return " ".join(lines)


def comparison_document(comparisons: Sequence[Comparison], other: Path) -> dict[str, Any]:
    """Return what scores.json says of the comparisons with a folder."""
    listed = []
    for comparison in comparisons:
        found = asdict(comparison.differences)
        listed.append({"name": found["name"], "step": found["step"], "num_pairs": found["num_videos"],
                       "num_alone": comparison.num_alone, "num_others_alone": comparison.num_others_alone,
                       "made": comparison.made, "measures": found["measures"]})
    return {"videos": str(other), "differences": listed}
