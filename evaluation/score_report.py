"""Scores for people: the table on the terminal, the plot over a run's steps, the scores in the gallery."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from evaluation.scores import GroupScores, text_of
from rendering.gallery import MAX_DEPTH, PAGE_NAME, write_gallery
from utils.errors import UserError
from utils.files import replacing, write_json

TITLES = {   # measure -> its name, which way is better
    "motion_probability": ("motion: probability", "higher"),
    "motion_top1": ("motion: ranked first", "higher"),
    "text_alignment": ("text alignment", "higher"),
    "exemplar_ratio": ("exemplars: distance", "1: as they lie apart"),
    "copies": ("exemplars: copies", "0"),
    "diversity": ("diversity over seeds", "higher"),
    "temporal_consistency": ("temporal consistency", "higher, if not frozen"),
    "frozen": ("frozen videos", "0"),
    "named_probability": ("everyday: probability", "higher"),
    "kept_top1": ("everyday: motion as base's", "higher"),
    "kept_change": ("everyday: change of prob.", "0"),
    "kept_similarity": ("everyday: like the base's", "higher"),
}
GALLERY_LABELS = {   # score of a video -> what the gallery calls it
    "motion_probability": "motion", "text_alignment": "text", "exemplar_ratio": "distance", "copy": "copy",
    "named_probability": "motion named", "kept_similarity": "like base",
}
COLUMNS = 3   # groups side by side on a terminal
PLOTTED = (   # panel of the plot: measures in it, whether they are shares of 0 to 1
    ("motion", ("motion_probability", "motion_top1"), True),
    ("text alignment", ("text_alignment",), False),
    ("exemplars", ("exemplar_ratio", "copies"), False),
    ("everyday prompts", ("named_probability", "kept_top1", "kept_similarity"), True),
)


def score_table(groups: Sequence[GroupScores]) -> str:
    """Return measures as lines and groups as columns: mean, interval, how many videos. What no group has is
    left out."""
    shown = [measure for measure in TITLES if any(group.measures[measure].num for group in groups)]
    blocks = []
    for first in range(0, len(groups), COLUMNS):
        columns = groups[first : first + COLUMNS]
        rows = [["mean (95 % interval), videos", *(group.name or "all" for group in columns), "better"]]
        rows += [[TITLES[measure][0], *(_cell(group.measures[measure]) for group in columns),
                  TITLES[measure][1]] for measure in shown]
        widths = [max(map(len, column)) for column in zip(*rows)]
        blocks.append("\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                                for row in rows))
    return "\n\n".join(blocks)


def _cell(found) -> str:
    return f"{text_of(found)}, {found.num}" if found.num else "-"


def plot_steps(path: Path, groups: Sequence[GroupScores], chosen: int | None, title: str) -> None:
    """Draw each measure over the steps of a run, with its interval, as a PNG."""
    # imported late: nothing else needs it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = sorted((group for group in groups if group.step is not None), key=lambda group: group.step)
    panels = [panel for panel in PLOTTED if any(group.measures[measure].num for group in groups
                                                for measure in panel[1])]
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (name, measures, is_share) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for measure in measures:
            found = [(group.step, group.measures[measure]) for group in groups if group.measures[measure].num]
            if not found:
                continue
            steps, means = [step for step, _ in found], [one.mean for _, one in found]
            name_here = TITLES[measure][0].partition(": ")[2] or TITLES[measure][0]
            axes.plot(steps, means, marker="o", label=name_here)
            axes.fill_between(steps, [one.mean if one.low is None else one.low for _, one in found],
                              [one.mean if one.high is None else one.high for _, one in found], alpha=0.15)
        if chosen is not None:
            axes.axvline(chosen, color="0.5", linestyle=":", label=f"step {chosen}")
        if is_share:
            axes.set_ylim(-0.03, 1.03)
        axes.set(title=name, xlabel="step")
        axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)


def read_sidecar(folder: Path) -> dict[str, Any]:
    """Return videos.json of a folder, empty if it has none.

    Raises UserError if it is no JSON object: it is added to, and nothing of it should be lost.
    """
    path = folder / "videos.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Mend or remove it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object of videos. Mend or remove it.")
    return content


def add_to_gallery(root: Path, scores: Mapping[Path, dict[str, Any]]) -> None:
    """Put the scores of videos in and below `root` beside them, and write the galleries that show them.

    What others wrote into videos.json stays; only our own scores are replaced.
    """
    folders = {}
    for path, found in scores.items():
        shown = {label: round(float(found[score]), 4) for score, label in GALLERY_LABELS.items()
                 if score in found}
        if not found.get("copy"):   # said of those that are, and of no other
            shown.pop(GALLERY_LABELS["copy"], None)
        folders.setdefault(path.parent, {})[path.name] = shown
    for folder, shown in folders.items():
        with FileLock(folder / ".index.lock"):
            content = read_sidecar(folder)
            for name, new in shown.items():
                entry = content.get(name) if isinstance(content.get(name), dict) else {}
                before = entry.get("scores") if isinstance(entry.get("scores"), dict) else {}
                kept = {label: score for label, score in before.items()
                        if label not in GALLERY_LABELS.values()}
                content[name] = {**entry, "scores": {**kept, **new}}
            write_json(folder / "videos.json", content)
    root = root.resolve()
    above = [place for place in list(root.parents)[:MAX_DEPTH] if (place / PAGE_NAME).is_file()]
    for place in dict.fromkeys([*(folder.resolve() for folder in folders), root, *above]):
        with FileLock(place / ".index.lock"):
            write_gallery(place)
