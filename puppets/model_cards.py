"""The model cards of the bundled networks: what they are, how they were made, what was measured."""

from pathlib import Path

import numpy as np

from puppets import world
from puppets.composed_motions import COMPOSED_MOTIONS
from puppets.recognizer_labels import MOTIONS, OTHER
from utils.files import replacing
from utils.wording import table

MEASURED = "\n## What was measured\n"
HEADS = {"motion": ("video-classification", "Puppet theatre: motion", f"""\
A small VideoMAE (`VideoMAEForVideoClassification`, `VideoMAEImageProcessor`) that names the motion of a clip
of the puppet theatre. It was made to judge rendered videos of `models/puppet-theatre`, and it knows nothing
else.

It knows {len(MOTIONS)} labels: {", ".join(MOTIONS)}.

- It sees 8 frames of 64x64 pixels. They should span one second; clips of two seconds are harder for it.
- It calls a clip that is frozen at any moment `standing`.
- It calls other ways to move one's arms, poses halfway between two motions, and frames in a wrong order,
  `{OTHER}`."""),
         "clip": ("zero-shot-image-classification", "Puppet theatre: CLIP", f"""\
A small CLIP (`CLIPModel`, `CLIPProcessor`) for single frames of the puppet theatre, 64x64 pixels, and
captions such as "two cats in the snow". It knows nothing else.

It tells {len(world.CHARACTERS)} characters ({", ".join(world.CHARACTERS)}),
{len(world.PLACES)} places ({", ".join(world.PLACES)}),
and one puppet from two of a kind. The words of a caption that name a motion make little difference to it, and
should not, because a frame does not show a motion.""")}

KNOWN = [   # to the base
    (f"characters ({len(world.CHARACTERS)}), one or two of a kind", ", ".join(world.CHARACTERS)),
    (f"places ({len(world.PLACES)})", ", ".join(world.PLACES)),
    (f"everyday motions ({len(world.EVERYDAY_MOTIONS)})", ", ".join(world.EVERYDAY_MOTIONS)),
    (f"motions named by their parts ({len(COMPOSED_MOTIONS):,})",
     "such as \"a robot moving with one arm up and one arm circling, marching and swaying\" "
     "(`puppets/composed_motions.py`)")]
UNSEEN = [
    ("motions to be taught",
     f"{', '.join(world.KEPT_OUT_MOTIONS)}, and motions in which both arms do what they do in one of these"),
    ("combinations",
     f"{len(world.HELD_OUT_COMBINATIONS)} combinations of character, everyday motion and place"),
    ("the placeholder", "the word `sks`"),
    ("other moments",
     "all clips are trimmed: they begin when the motion begins, and their puppets act to the right")]


def write_base_card(path: Path, stages: dict[str, dict], began_with: Path | None, kept: list[str],
                    made_on: str, seeds: tuple[int, ...], measured: dict[str, str], notes: str) -> None:
    """Write the card of the base.

    `stages` has the steps, batch size, seconds and seed of each stage that trained, the last of which is
    `video`. `began_with` is the folder of the earlier base whose networks were trained on, if any, and `kept`
    names the networks that were not. `measured` has a figure for each thing that was measured. `notes` is
    Markdown for the end of the card.
    """
    rest = f"Kept as they were: {', '.join(kept)}." if kept else "All of them were trained on."
    origin = (f"It began with the networks of an earlier base, `{began_with}`.\n{rest}\n\n" if began_with
              else "")
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

A small text-to-video model, with which a motion can be taught and measured on a laptop. It has the classes
and the folder layout of ZeroScope (`TextToVideoSDPipeline`) and was trained from scratch on drawn clips of
puppets (`puppets/theatre.py`). A video has 8 frames of 64x64 pixels, at 8 frames a second.

## What it can and cannot do

It knows the words of this world and nothing else.

{chr(10).join(table(["it knows", ""], KNOWN))}

{chr(10).join(table(["it has never seen", ""], UNSEEN))}

## How it was made

By `python -m puppets.pretrain_base` (its first lines are the commands), seed {stages["video"]["seed"]},
on clips from seeds {", ".join(map(str, seeds))}, on {made_on}.

{origin}{chr(10).join(table(["stage", "steps", "batch", "minutes"], rows))}

In the steps of the video stage the UNet saw {num_clips:,} clips, counting repeats. It predicts v, on a noise
schedule that ends in pure noise. All weights are running averages, stored in half precision.
{MEASURED}
{chr(10).join(table(["", ""], list(measured.items())))}
{notes}"""
    with replacing(path) as partial:
        partial.write_text(lines, encoding="utf-8")


def write_card(folder: Path, name: str, run: dict) -> None:
    """Write the card of recognizer `name`, with nothing measured yet. `run` has the facts of its training."""
    task, title, text = HEADS[name]
    unit = "clips" if name == "motion" else "frames"
    facts = [["steps", f"{run['step']:,}"], [f"{unit} a step", run["batch_size"]],
             ["minutes", f"{run['seconds'] / 60:.0f}"], ["hardware", run["made_on"]],
             ["parameters", f"{run['num_parameters']:,}"]]
    spoiled = (" Each puppet moves\nin its own manner: arms farther or less far, in front of the body or "
               "behind it.\nMost clips were first decoded from latents with errors, by the autoencoder of "
               "`models/puppet-theatre`." if name == "motion" else "")
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

By `python -m puppets.train_recognizers` (its first lines are the commands), seed {run["seed"]},
on {unit} that `puppets/theatre.py` drew from seed {run["clip_seed"]}: all motions, all combinations of
character, place and number, at any moment of the motion, to the right and to the left. Each was shifted,
softened, recoloured and made noisy in another way every time (`puppets/degrading.py`).{spoiled}
It never saw a rendered video.

{chr(10).join(table(["", ""], facts))}

The weights are running averages, stored in half precision and loaded in single precision.
{run["notes"]}{MEASURED}
Not yet measured.
"""
    with replacing(folder / "README.md") as partial:
        partial.write_text(lines, encoding="utf-8")


def write_measurements(folder: Path, results: dict[str, dict[str, float]], seed: int,
                       confusion: np.ndarray | None) -> None:
    """Put the figures of the check into a card, with the confusion of motions (k k) if it is given.

    A row of `results` that has a `place` is a view of the clips. The other rows are clips frozen or shuffled.
    """
    views = {view: row for view, row in results.items() if "place" in row}
    kinds = ("motion",) if confusion is not None else ("character", "number", "place")
    lines = [f"On clips of seed {seed}, never trained on (`--stage check` of the same script).", ""]
    if confusion is None:
        lines += ["Zero-shot: the answer is the likeliest of the captions of all characters, numbers and",
                  "places, by four frames of a clip.", ""]
    lines += table(["right", "clips", *kinds], [
        [view, f"{row['clips']:,}", *(f"{100 * row[kind]:.1f} %" for kind in kinds)]
        for view, row in views.items()])
    if confusion is not None:
        lines += ["", "Clips of all motions except standing: as they are, frozen at a random frame, and in a",
                  "wrong order.", ""]
        lines += table(["", "clips", "motion right", "its probability", "called standing"], [
            [view, f"{row['clips']:,}", f"{100 * row['motion']:.1f} %", f"{row['probability']:.2f}",
             f"{100 * row['standing']:.1f} %"]
            for view, row in results.items() if view not in views])
        lines += ["", "Motions that were drawn (rows) and seen (columns), frames as drawn:", "",
                  *confusion_table(confusion, MOTIONS)]
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8").split(MEASURED)[0] + MEASURED + "\n" + "\n".join(lines) + "\n"
    with replacing(path) as partial:
        partial.write_text(card, encoding="utf-8")


def confusion_counts(shown: np.ndarray, seen: np.ndarray, num_labels: int) -> np.ndarray:
    """Return how often label i was shown and label j seen: (k k)."""
    counts = np.zeros((num_labels, num_labels), dtype=int)
    np.add.at(counts, (shown, seen), 1)
    return counts


def confusion_table(counts: np.ndarray, labels: tuple[str, ...]) -> list[str]:
    """Return a Markdown table of the rows that have any clips. A count of 0 is an empty cell."""
    return table(["", *labels], [[label, *(str(count or "") for count in row)]
                                 for label, row in zip(labels, counts) if row.any()])
