"""Scores summed up: means with intervals for each group of videos, and the step of a run to use.

scores.json, in the folder of the videos:

    format     motion-scores-1
    motion, motion_phrase, exemplars, recognizer, clip, reference_videos, seed: the arguments; recognizer is
               null where there was none
    labels     the motions that the recognizer knows; a guess is right once in so many
    copying    spacing: distance of exemplars of different scenes, 1 - cosine, at the rate of the first video.
               It is null where they show one scene or look alike; then no copies are told. ratio: a video
               nearer than this share of the spacing is a copy
    everyday   {num_prompts, without_label}: everyday prompts, and those of them that name no label of the
               recognizer and so have no part in named_probability; null without a recognizer
    groups     [{name, step, num_videos, measures: {measure: {mean, low, high, num, num_prompts}}}], folders
               or steps. num: of videos. The interval from low to high is that of num_prompts prompts
    against    {videos, differences: [{name, step, num_pairs, num_alone, num_others_alone, made, measures}]},
               of --against; else null. Each mean is of the differences of pairs, a video of the group less
               the video of the same prompt and seed in `videos`. num_alone, num_others_alone: videos without
               a partner. made: in what the videos of the pairs were rendered in different ways
    step       of a run: {step, reason}; step is null where none is worth using
    videos     [{file, prompt, seed, group, step, asks_for_motion, text, scores}]. text: the prompt without
               the motion. scores: named as in evaluation/scores.py
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.scores import MEASURES, Measure, MeasuredVideo
from evaluation.statistics import FEW, Estimate, estimate

FORMAT = "motion-scores-1"


@dataclass(frozen=True)
class GroupScores:
    """The measures of the videos of one folder, or of one step."""

    name: str
    step: int | None
    num_videos: int
    measures: dict[str, Estimate]


def sum_up(measured: Sequence[MeasuredVideo], seed: int) -> list[GroupScores]:
    """Return the means of each group's scores, groups in the order of the videos."""
    groups = []
    for name in dict.fromkeys(one.video.group for one in measured):
        inside = [one for one in measured if one.video.group == name]
        measures = {}
        for measure in MEASURES:
            values, prompts = values_of(measure, inside)
            measures[measure.key] = estimate(values, seed, measure.is_share, measure.limits, prompts)
        groups.append(GroupScores(name, inside[0].video.step, len(inside), measures))
    return groups


def values_of(measure: Measure, measured: Sequence[MeasuredVideo]) -> tuple[list[float], list[str]]:
    """Return the values that a measure averages, and the prompt of each.

    There is one value a video, or one value a prompt that has several seeds.
    """
    if measure.of_video:
        scored = [one for one in measured if measure.score in one.scores]
        return [float(one.scores[measure.score]) for one in scored], [one.video.prompt for one in scored]
    by_prompt = {}
    for one in measured:
        if one.video.shows_motion:
            by_prompt.setdefault(one.video.prompt, []).append(one)
    several = {prompt: videos for prompt, videos in by_prompt.items() if len(videos) > 1}
    return [measure.of_prompt(videos) for videos in several.values()], list(several)


def choose_step(groups: Sequence[GroupScores]) -> tuple[int | None, str]:
    """Return the step of a run to use, and the reason; None where no step shows the motion.

    Steps are kept whose motion probability lies in the interval of the best step. Of these, the steps with
    the fewest copies are kept; of these, the steps whose text alignment lies in the interval of the best
    aligned step. The earliest of the rest is chosen. With FEW prompts or fewer the means alone decide,
    because intervals of so few contain nearly every step.
    """
    tuned = [group for group in groups if group.step and group.measures["motion_probability"].num]
    if not tuned:
        return None, "there are no samples of a tuned step whose prompt asks for the motion"
    best, shows = near_best(tuned, "motion_probability")
    highest = best.measures["motion_probability"]
    base = next((group.measures["motion_probability"] for group in groups if group.step == 0), None)
    if base and base.num and highest.mean <= deciding_interval(base)[1]:
        return None, (f"no step shows the motion more than the untuned base does: the best, step "
                      f"{best.step}, has {text_of(highest)}, the base {text_of(base)}")
    fewest = min(group.measures["copies"].mean or 0.0 for group in shows)
    honest = [group for group in shows if (group.measures["copies"].mean or 0.0) == fewest]
    has_text = [group for group in honest if group.measures["text_alignment"].num]
    aligned = near_best(has_text, "text_alignment")[1] if has_text else honest
    chosen = min(aligned, key=lambda group: group.step)
    motion, copies, text = map(chosen.measures.get, ("motion_probability", "copies", "text_alignment"))
    among = f"lies in the interval of the best, {text_of(highest)} at step {best.step}"
    reason = f"motion {text_of(motion)} {'is the best' if chosen is best else among}"
    if copies.num:
        reason += f"; {round(copies.mean * copies.num)} of {copies.num} are copies, no such step has fewer"
    if text.num:
        reason += f"; text alignment {text_of(text)} lies in the interval of the best of these"
    return chosen.step, reason + ("; it is the earliest of them" if len(aligned) > 1 else "")


def near_best(groups: Sequence[GroupScores], measure: str) -> tuple[GroupScores, list[GroupScores]]:
    """Return the group with the highest mean, and all groups whose mean lies in its interval."""
    best = max(groups, key=lambda group: group.measures[measure].mean)
    lowest, _ = deciding_interval(best.measures[measure])
    return best, [group for group in groups if group.measures[measure].mean >= lowest]


def deciding_interval(found: Estimate) -> tuple[float, float]:
    """Return the interval that steps are chosen by."""
    return found.interval if found.num_independent > FEW else (found.mean, found.mean)


def text_of(found: Estimate, digits: int = 2) -> str:
    """Return an estimate for people: 0.81 (0.70 to 0.90)."""
    if found.mean is None:
        return "-"
    mean, *interval = (f"{value:.{digits}f}" for value in (found.mean, *found.interval))
    return mean + ("" if found.low is None else f" ({' to '.join(interval)})")


def scores_document(measured: Sequence[MeasuredVideo], folder: Path, groups: Sequence[GroupScores],
                    facts: dict[str, Any]) -> dict[str, Any]:
    """Return the content of scores.json in `folder`."""
    listed = [{"file": one.video.path.relative_to(folder).as_posix(), "prompt": one.video.prompt,
               "seed": one.video.seed, "group": one.video.group, "step": one.video.step,
               "asks_for_motion": one.video.shows_motion, "text": one.video.text, "scores": one.scores}
              for one in measured]
    return {"format": FORMAT, **facts, "groups": [asdict(group) for group in groups], "videos": listed}
