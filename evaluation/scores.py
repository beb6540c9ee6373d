"""Scores of videos summed up: means with intervals for each group, and the step of a run to use.

scores.json, in the folder of the videos:

    format     motion-scores-1
    motion, exemplars, recognizer, clip, reference_videos, seed: what was measured, with what
    labels     the motions the recognizer knows: a guess is right once in so many
    copying    how copies are told: the exemplars' own spacing (1 - cosine; null where they show one scene or
               look alike: then none are told), and the share of it below which a video is a copy
    groups     [{name, step, num_videos, measures: {measure: {mean, low, high, num}}}], one a folder or step
    step       of a run: {step, reason}; step null where none is worth using
    videos     [{file, prompt, seed, group, step, asks_for_motion, text, scores}], scores named as below

Measures of videos whose prompt asks for the motion: motion_probability, motion_top1, exemplar_ratio, copies,
diversity (its num counts prompts that have several seeds). Of all others, the everyday prompts:
named_probability (of the motion the prompt names), and against the untuned base kept_top1, kept_change (of
named_probability) and kept_similarity. Of all: text_alignment, temporal_consistency, frozen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.shown_videos import ShownVideo
from evaluation.statistics import Estimate, estimate

FORMAT = "motion-scores-1"
MEASURES = {   # measure -> the score of a video that it averages
    "motion_probability": "motion_probability", "motion_top1": "motion_top1",
    "text_alignment": "text_alignment",
    "exemplar_ratio": "exemplar_ratio", "copies": "copy", "diversity": "diversity",
    "temporal_consistency": "temporal_consistency", "frozen": "frozen",
    "named_probability": "named_probability", "kept_top1": "kept_top1", "kept_change": "kept_change",
    "kept_similarity": "kept_similarity",
}


SHARES = ("motion_top1", "copies", "frozen", "kept_top1")   # of videos for which something is so


@dataclass(frozen=True)
class GroupScores:
    """What was measured in the videos of one folder, or of one step."""

    name: str
    step: int | None
    num_videos: int
    measures: dict[str, Estimate]


def sum_up(videos: Sequence[ShownVideo], scores: Sequence[dict[str, Any]],
           diversity: Mapping[str, list[float]], seed: int) -> list[GroupScores]:
    """Return the means of each group's scores, groups in the order of the videos."""
    groups = []
    for name in dict.fromkeys(video.group for video in videos):
        inside = [(video, score) for video, score in zip(videos, scores) if video.group == name]
        values = {measure: [float(score[key]) for _, score in inside if key in score]
                  for measure, key in MEASURES.items()}
        values["diversity"] = diversity[name]
        measures = {measure: estimate(found, seed, measure in SHARES) for measure, found in values.items()}
        groups.append(GroupScores(name, inside[0][0].step, len(inside), measures))
    return groups


def choose_step(groups: Sequence[GroupScores]) -> tuple[int | None, str]:
    """Return the step of a run to use, and the reason; None where no step shows the motion.

    Of the steps whose motion probability lies in the interval of the best one, those with the fewest copies;
    of these, those whose text alignment lies in the interval of the best aligned; of these, the earliest.
    """
    tuned = [group for group in groups if group.step and group.measures["motion_probability"].num]
    if not tuned:
        return None, "there are no samples of a tuned step whose prompt asks for the motion"
    best = max(tuned, key=lambda group: group.measures["motion_probability"].mean)
    base = next((group.measures["motion_probability"] for group in groups if group.step == 0), None)
    if base and base.num and best.measures["motion_probability"].mean <= _end(base, "high"):
        return None, (f"no step shows the motion more than the untuned base does: the best, step "
                      f"{best.step}, has {text_of(best.measures['motion_probability'])}, the base "
                      f"{text_of(base)}")
    shows = [group for group in tuned if group.measures["motion_probability"].mean
             >= _end(best.measures["motion_probability"], "low")]
    fewest = min(group.measures["copies"].mean or 0.0 for group in shows)
    honest = [group for group in shows if (group.measures["copies"].mean or 0.0) == fewest]
    aligned = best_aligned(honest)
    chosen = min(aligned, key=lambda group: group.step)
    found, highest = chosen.measures, text_of(best.measures["motion_probability"])
    motion, copies, text = found["motion_probability"], found["copies"], found["text_alignment"]
    among = f"lies in the interval of the best, {highest} at step {best.step}"
    reason = f"motion {text_of(motion)} {'is the best' if chosen is best else among}"
    if copies.num:
        reason += f"; {round(copies.mean * copies.num)} of {copies.num} are copies, no such step has fewer"
    if text.num:
        reason += f"; text alignment {text_of(text)} lies in the interval of the best of these"
    return chosen.step, reason + ("; it is the earliest of them" if len(aligned) > 1 else "")


def best_aligned(groups: Sequence[GroupScores]) -> list[GroupScores]:
    """Return the groups whose text alignment lies in the interval of the highest; all, where none has any."""
    measured = [group for group in groups if group.measures["text_alignment"].num]
    if not measured:
        return list(groups)
    best = max((group.measures["text_alignment"] for group in measured), key=lambda found: found.mean)
    return [group for group in measured if group.measures["text_alignment"].mean >= _end(best, "low")]


def text_of(found: Estimate) -> str:
    """Return an estimate for people: 0.81 (0.70 to 0.90)."""
    if found.mean is None:
        return "-"
    return f"{found.mean:.2f}" + ("" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})")


def scores_document(videos: Sequence[ShownVideo], files: Sequence[str], scores: Sequence[dict[str, Any]],
                    groups: Sequence[GroupScores], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the content of scores.json; `files`: the videos' paths within their folder."""
    listed = [{"file": file, "prompt": video.prompt, "seed": video.seed, "group": video.group,
               "step": video.step, "asks_for_motion": video.shows_motion, "text": video.text, "scores": score}
              for video, file, score in zip(videos, files, scores)]
    return {"format": FORMAT, **facts, "groups": [asdict(group) for group in groups], "videos": listed}


def _end(found: Estimate, which: str) -> float:
    """Return an end of the interval; the mean itself where a single video gave none."""
    end = getattr(found, which)
    return found.mean if end is None else end
