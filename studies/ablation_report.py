"""Tables and plots of studies/ablation.py. A cell that nobody has run is marked open.

A document holds each table between two markers, and only the text between them is replaced:

    <!-- ablation: weights -->
    <!-- end of ablation: weights -->
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.scores import MEASURES
from evaluation.statistics import Estimate, estimate
from evaluation.summary import text_of
from utils import wording
from utils.errors import UserError
from utils.files import replacing

COLUMNS = ("motion_probability", "motion_top1", "text_alignment", "named_probability", "kept_change",
           "kept_top1", "kept_similarity", "exemplar_ratio", "copies")
PANELS = (("motion_probability", "motion"), ("text_alignment", "text alignment"),
          ("named_probability", "everyday motions"), ("exemplar_ratio", "distance to exemplars"))
OPEN = "open"


@dataclass(frozen=True)
class Row:
    """One line of a table: a cell and its measures, which are None if the cell has not been run."""

    title: str
    measures: dict[str, Estimate] | None
    num_videos: int
    step: int | None = None      # in the curve over steps
    trainings: Sequence[dict[str, Estimate]] = ()   # measures of each seed of training, of several


def pool(score_files: Sequence[Path], step: int | None = None) -> tuple[dict[str, Estimate], int]:
    """Return each measure over the videos of several scores.json, and the number of videos.

    Every training renders the same prompts, so an interval is that of the prompts, each with the videos of
    all trainings. It says how sure the mean is for these trainings, not for another one. With `step`, only
    videos of that step count. Measures of prompts (diversity) are left out, because scores.json has no
    values of single prompts.
    """
    videos = [video for path in score_files
              for video in json.loads(path.read_text(encoding="utf-8"))["videos"]
              if step is None or video["step"] == step]
    measures = {}
    for measure in filter(lambda each: each.of_video, MEASURES):
        scored = [video for video in videos if measure.score in video["scores"]]
        measures[measure.key] = estimate([float(video["scores"][measure.score]) for video in scored],
                                         is_share=measure.is_share, limits=measure.limits,
                                         prompts=[video["prompt"] for video in scored])
    return measures, len(videos)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table.

    A cell has mean, interval and number of videos. With several seeds of training it has the lowest and the
    highest mean of one seed, too.
    """
    measures = {measure.key: measure for measure in MEASURES}
    heads = [f"{measures[key].heading} ({measures[key].better})" for key in COLUMNS]
    return "\n".join(wording.table(["cell", *heads], [
        [row.title, *([OPEN] * len(COLUMNS) if row.measures is None else
                      [_cell(row.measures[key], [training[key].mean for training in row.trainings])
                       for key in COLUMNS])] for row in rows]))


def _cell(found: Estimate, trainings: Sequence[float | None]) -> str:
    if not found.num:
        return "-"
    prompts = f" of {found.num_prompts} prompts" if found.num_prompts < found.num else ""
    means = [mean for mean in trainings if mean is not None]
    spread = f", trainings {min(means):.2f} to {max(means):.2f}" if len(means) > 1 else ""
    return f"{text_of(found)}, n={found.num}{prompts}{spread}"


def measured_titles(table: str) -> set[str]:
    """Return the titles of the rows that are not open, of the Markdown table in a text."""
    rows = [[part.strip() for part in line.strip("| ").split("|")] for line in table.splitlines()
            if line.startswith("| ")]
    return {title for title, *rest in rows[2:] if OPEN not in rest}   # without the two lines of the head


def check_document(document: Path, tables: Iterable[str]) -> None:
    """Raise UserError unless `document` has the markers of each table, once."""
    if not document.is_file():
        raise UserError(f"{document}: does not exist. Name a Markdown file with the tables' markers.")
    text = document.read_text(encoding="utf-8")
    problems = [f"{document}: needs once the lines {start} and {end}, where the table is to be."
                for start, end in map(markers, tables)
                if len(re.findall(between(start, end), text, re.DOTALL)) != 1]
    if problems:
        raise UserError(*problems)


def section_of(document: Path, table: str) -> str:
    """Return the text between a table's markers. The document must have them (`check_document`)."""
    start, end = markers(table)
    found = re.search(between(start, end), document.read_text(encoding="utf-8"), re.DOTALL)
    return found[0].removeprefix(start).removesuffix(end)


def fill_in(document: Path, sections: Mapping[str, str]) -> None:
    """Put each table's text between its markers. If any are missing, raise UserError and write nothing."""
    check_document(document, sections)
    text = document.read_text(encoding="utf-8")
    for table, content in sections.items():
        start, end = markers(table)
        section = f"{start}\n{content}\n{end}"
        text = re.sub(between(start, end), lambda _, section=section: section, text, flags=re.DOTALL)
    with replacing(document) as partial:
        partial.write_text(text, encoding="utf-8")


def markers(table: str) -> tuple[str, str]:
    return f"<!-- ablation: {table} -->", f"<!-- end of ablation: {table} -->"


def between(start: str, end: str) -> str:
    return f"{re.escape(start)}.*?{re.escape(end)}"


def plot_rows(path: Path, rows: Sequence[Row], title: str) -> bool:
    """Draw the measures of the rows that are not open, and return whether there are any.

    Each measure has a panel. Rows of the curve over steps stand over their steps, others one below another.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.measures is not None][::-1]
    if not rows:
        return False
    is_curve = rows[0].step is not None
    figure = Figure(figsize=(13, 3.4 if is_curve else 1.4 + 0.34 * len(rows)), layout="constrained")
    figure.suptitle(title)
    for axes, (measure, name) in zip(figure.subplots(1, len(PANELS), sharey=not is_curve), PANELS):
        for at, row in enumerate(rows):
            found = row.measures[measure]
            if not found.num:
                continue
            low, high = found.interval
            if is_curve:
                axes.plot(row.step, found.mean, "o", color="C0")
                axes.vlines(row.step, low, high, color="C0", alpha=0.5, linewidth=3)
            else:
                axes.plot(found.mean, at, "o", color="C0")
                axes.hlines(at, low, high, color="C0", alpha=0.5, linewidth=3)
        if is_curve:
            axes.set(title=name, xlabel="step")
        else:
            axes.set(title=name, yticks=range(len(rows)), yticklabels=[row.title for row in rows])
        axes.grid(axis="y" if is_curve else "x", alpha=0.3)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100)
    return True
