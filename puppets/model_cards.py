"""The model cards of the bundled networks: what they are, how they were made, what was measured."""

from pathlib import Path

import numpy as np

from puppets import world
from puppets.composed_motions import COMPOSED_MOTIONS
from puppets.recognizer_labels import MOTIONS, OTHER
from utils.files import replacing
from utils.markdown import table

MEASURED = "\n## What was measured\n"
HEADS = {"motion": ("video-classification", "Puppet theatre: motion", f"""\
A small VideoMAE (`VideoMAEForVideoClassification`, `VideoMAEImageProcessor`) that names the motion of a clip
of the puppet theatre, one of {len(MOTIONS)}: {", ".join(MOTIONS)}.
64x64 pixels, 8 frames, which should span one second; two seconds are harder for it. A clip frozen at any
moment is `standing`; other ways to move one's arms, and frames in a wrong order, are `{OTHER}`.
Made to judge rendered videos of `models/puppet-theatre`; it knows nothing else."""),
         "clip": ("zero-shot-image-classification", "Puppet theatre: CLIP", f"""\
A small CLIP (`CLIPModel`, `CLIPProcessor`) for single frames of the puppet theatre, 64x64 pixels, and
captions such as "two cats in the snow". It tells {len(world.CHARACTERS)} characters
({", ".join(world.CHARACTERS)}),
{len(world.PLACES)} places ({", ".join(world.PLACES)})
and one from two of a kind. What a caption says of a motion makes little difference to it, and should not: a
frame does not show one. It knows nothing else.""")}


def write_base_card(path: Path, stages: dict[str, dict], made_on: str, seeds: tuple[int, ...],
                    measured: dict[str, str], notes: str) -> None:
    """Write the card of the base. `stages` says of each its steps, batch size and seconds, the last is
    `video`; `measured` says how much of what."""
    rows = [[name, f"{run['step']:,}", str(run["batch_size"]), f"{run['seconds'] / 60:.0f}"]
            for name, run in stages.items()]
    num_clips = stages["video"]["step"] * stages["video"]["batch_size"]
    lines = f"""\
---
license: apache-2.0
pipeline_tag: text-to-video
library_name: diffusers
language: en
---
# Puppet theatre

A small text-to-video model in the classes and folder layout of ZeroScope (`TextToVideoSDPipeline`), trained
from scratch on clips drawn by `puppets/theatre.py`: 64x64 pixels, 8 frames at 8 frames a second. It
renders {len(world.CHARACTERS)} kinds of puppets, one or two of a kind, in {len(world.PLACES)} places, doing
one of {len(world.EVERYDAY_MOTIONS)} everyday motions, or one named by its parts: "a robot moving with one
arm up and one arm circling, marching and swaying", {len(COMPOSED_MOTIONS)} in all
(`puppets/composed_motions.py`). It knows nothing else; it exists so that a motion can be taught and
measured on a laptop. Never seen in training: the motions {", ".join(world.KEPT_OUT_MOTIONS)}, two arms that
together do what the arms do in one of these, the word `sks`, and {len(world.HELD_OUT_COMBINATIONS)}
combinations of character, motion and place.

Characters: {", ".join(world.CHARACTERS)}. Places: {", ".join(world.PLACES)}.
Motions: {", ".join(world.EVERYDAY_MOTIONS)}.

## How it was made

`puppets/pretrain_base.py` (its first lines are the commands), seed 64, clips from seeds
{", ".join(map(str, seeds))}, on {made_on}.

{chr(10).join(table(["stage", "steps", "batch", "minutes"], rows))}

The UNet saw {num_clips:,} clips in these steps, counting repeats. It predicts v on a noise schedule that ends
in pure noise. All weights are running averages, stored in half precision.
{notes}{MEASURED}
{chr(10).join(table(["", ""], list(measured.items())))}
"""
    with replacing(path) as partial:
        partial.write_text(lines, encoding="utf-8")


def write_card(folder: Path, name: str, run: dict) -> None:
    """Write the card of recognizer `name`, with nothing measured yet. `run` says how it was trained."""
    task, title, text = HEADS[name]
    unit = "clips" if name == "motion" else "frames"
    lines = f"""\
---
license: apache-2.0
pipeline_tag: {task}
library_name: transformers
language: en
---
# {title}

{text}

## How it was made

`puppets/train_recognizers.py` (its first lines are the commands), seed {run["seed"]}, on {unit} that
`puppets/theatre.py` drew from seed {run["clip_seed"]}, each time shifted, softened, recoloured and
made noisy in another way (`puppets/degrading.py`), never on rendered videos. All motions, all combinations of
character, place and number.

| | |
|---|---|
| steps | {run["step"]:,} |
| {unit} a step | {run["batch_size"]} |
| minutes | {run["seconds"] / 60:.0f} |
| hardware | {run["made_on"]} |
| parameters | {run["num_parameters"]:,} |

The weights are running averages, stored in half precision, loaded in single precision.
{run["notes"]}{MEASURED}
Not yet measured.
"""
    with replacing(folder / "README.md") as partial:
        partial.write_text(lines, encoding="utf-8")


def write_measurements(folder: Path, results: dict[str, dict[str, float]], seed: int,
                       confusion: np.ndarray | None) -> None:
    """Put the figures of the check into a card; the confusion of motions where there is one.

    A row of `results` is a view of the clips, or, where it has no `place`, a change of their order.
    """
    views = {view: row for view, row in results.items() if "place" in row}
    kinds = ("motion",) if confusion is not None else ("character", "number", "place")
    lines = [f"On clips of seed {seed}, never trained on: `--stage check` of the same script.", ""]
    if confusion is None:
        lines += ["Right, zero-shot: the likeliest of the captions of all characters, numbers and places,",
                  "four frames a clip.", ""]
    lines += table(["", "clips", *kinds], [
        [view, f"{row['clips']:,}", *(f"{100 * row[kind]:.1f} %" for kind in kinds)]
        for view, row in views.items()])
    if confusion is not None:
        lines += ["", "Clips of all motions but standing: as they are, frozen at a random frame, and in a",
                  "wrong order.", ""]
        lines += table(["", "clips", "motion right", "its probability", "called standing"], [
            [view, f"{row['clips']:,}", f"{100 * row['motion']:.1f} %", f"{row['probability']:.2f}",
             f"{100 * row['standing']:.1f} %"]
            for view, row in results.items() if view not in views])
        lines += ["", "What was drawn (rows) and what was seen (columns), frames as drawn:", "",
                  *confusion_table(confusion, MOTIONS)]
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8").split(MEASURED)[0] + MEASURED + "\n" + "\n".join(lines) + "\n"
    with replacing(path) as partial:
        partial.write_text(card, encoding="utf-8")


def confusion_counts(shown: np.ndarray, seen: np.ndarray, num_labels: int) -> np.ndarray:
    """How often label i was shown and label j seen: (k k)."""
    counts = np.zeros((num_labels, num_labels), dtype=int)
    np.add.at(counts, (shown, seen), 1)
    return counts


def confusion_table(counts: np.ndarray, labels: tuple[str, ...]) -> list[str]:
    """A Markdown table of the rows that have any clips; no clips are an empty cell."""
    return table(["", *labels], [[label, *(str(count or "") for count in row)]
                                 for label, row in zip(labels, counts) if row.any()])
