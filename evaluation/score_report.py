"""Scores for people: the table on the terminal, the plot over a run's steps, the scores in the gallery."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from evaluation.scores import MEASURES, SHARE_PANELS
from evaluation.shown_videos import read_sidecar
from evaluation.statistics import Estimate
from evaluation.summary import GroupScores, text_of
from rendering.gallery import MAX_DEPTH, PAGE_NAME, write_gallery
from training.run_page import show_scores
from utils.files import replacing, write_json

GROUPS_SIDE_BY_SIDE = 3   # on a terminal


def score_table(groups: Sequence[GroupScores]) -> str:
    """Return a table with a line for each measure and a column for each group.

    A cell has the mean, its interval and the number of videos. Where some prompts have several videos, the
    number of prompts follows behind a slash. Measures that no group has are left out.
    """
    head = "mean (95 %), videos/prompts" if has_several_seeds(groups) else "mean (95 % interval), videos"
    return _table(groups, head, GROUPS_SIDE_BY_SIDE, 2)


def difference_table(groups: Sequence[GroupScores]) -> str:
    """Return a table of the differences of paired videos. They are small, so they have three digits.

    Which values are good stands in the table of the means. A difference of copies below 0 is good, not 0.
    """
    head = "difference (95 %), pairs/prompts" if has_several_seeds(groups) else "difference (95 %), pairs"
    return _table(groups, head, GROUPS_SIDE_BY_SIDE - 1, 3, has_better=False)


def _table(groups: Sequence[GroupScores], head: str, most_columns: int, digits: int,
           has_better: bool = True) -> str:
    shown = [measure for measure in MEASURES if any(group.measures[measure.key].num for group in groups)]
    blocks = []
    for first in range(0, len(groups), most_columns):
        columns = groups[first : first + most_columns]
        rows = [[head, *(group.name or "all" for group in columns), *["better"] * has_better]]
        rows += [[measure.heading, *(_cell(group.measures[measure.key], digits) for group in columns),
                  *[measure.better] * has_better] for measure in shown]
        widths = [max(map(len, column)) for column in zip(*rows)]
        blocks.append("\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                                for row in rows))
    return "\n\n".join(blocks)


def _cell(found: Estimate, digits: int) -> str:
    return f"{text_of(found, digits)}, {found.count}" if found.num else "-"


def has_several_seeds(groups: Sequence[GroupScores]) -> bool:
    """Say whether prompts have several videos in one group."""
    return any(found.num_prompts < found.num for group in groups for found in group.measures.values())


def plot_steps(path: Path, groups: Sequence[GroupScores], chosen: int | None, title: str) -> None:
    """Draw each measure over the steps of a run, with its interval, as a PNG."""
    # imported late, because only runs are plotted
    from matplotlib.figure import Figure

    panels = score_panels(groups)
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, (panel, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for heading, points in curves:
            steps, found = zip(*points)
            axes.plot(steps, [one.mean for one in found], marker="o", label=heading)
            axes.fill_between(steps, *zip(*(one.interval for one in found)), alpha=0.15)
        if chosen is not None:
            axes.axvline(chosen, color="0.5", linestyle=":", label=f"step {chosen}")
        if panel in SHARE_PANELS:
            axes.set_ylim(-0.03, 1.03)
        axes.set(title=panel, xlabel="step")
        axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)


def score_panels(groups: Sequence[GroupScores]) -> dict[str, list[tuple[str, list[tuple[int, Estimate]]]]]:
    """Return {panel: [(heading, [(step, score)])]} of the steps of a run, for plots."""
    groups = sorted((group for group in groups if group.step is not None), key=lambda group: group.step)
    panels = {}
    for measure in MEASURES:
        points = [(group.step, group.measures[measure.key]) for group in groups
                  if group.measures[measure.key].num]
        if measure.panel and points:
            heading = measure.heading.partition(": ")[2] or measure.heading
            panels.setdefault(measure.panel, []).append((heading, points))
    return panels


def add_to_run_page(run: Path, groups: Sequence[GroupScores], choice: Mapping[str, Any]) -> Path | None:
    """Put the scores by step, and the step to use, on the page of a run.

    Return the path of the page, or None if the run has no page.
    """
    panels = [{"title": panel, "is_share": panel in SHARE_PANELS, "curves": [
        {"label": heading, "points": [[step, *(None if value is None else round(float(value), 4)
                                               for value in (found.mean, *found.interval))]
                                      for step, found in points]}
        for heading, points in curves]} for panel, curves in score_panels(groups).items()]
    return show_scores(run, {**choice, "panels": panels})


def add_to_gallery(root: Path, scores: Mapping[Path, dict[str, Any]]) -> None:
    """Put the scores of videos in and below `root` beside them, and write the galleries that show them.

    Only scores of MEASURES are replaced in videos.json. Everything else in it stays.
    """
    names = {measure.score: measure.gallery for measure in MEASURES if measure.gallery}
    folders = {}
    for path, found in scores.items():
        shown = {names[score]: round(float(value), 4) for score, value in found.items()
                 if score in names and (score != "copy" or value)}   # a copy is called one, others are not
        folders.setdefault(path.parent, {})[path.name] = shown
    for folder, shown in folders.items():
        with FileLock(folder / ".index.lock"):
            content = read_sidecar(folder)
            for name, new in shown.items():
                entry = content.get(name) if isinstance(content.get(name), dict) else {}
                before = entry.get("scores") if isinstance(entry.get("scores"), dict) else {}
                kept = {label: score for label, score in before.items() if label not in names.values()}
                content[name] = {**entry, "scores": {**kept, **new}}
            write_json(folder / "videos.json", content)
    root = root.resolve()
    above = [place for place in root.parents[:MAX_DEPTH] if (place / PAGE_NAME).is_file()]
    for place in dict.fromkeys([*(folder.resolve() for folder in folders), root, *above]):
        with FileLock(place / ".index.lock"):
            write_gallery(place)
