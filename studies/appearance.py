"""Measures whether an appearance is learned better from single frames with or without the temporal layers.

    python -m studies.appearance --out outputs/appearance

Draws stills of a man in a coat and a hat that the bundled base has never seen on a man, and teaches him as "a
V* man" with `train_data.single_frame_layers` all and spatial, otherwise alike. Then it renders videos in
which he moves, in places that no still shows, and videos of other characters. Of every video it counts the
pixels of the coat's colour, in units of the mean count in drawn clips of the scenes asked for; with a tenth
of them or more, the coat counts as worn. The recognizers say whether place, number and motion are right. The
same command continues an interrupted measurement. Shapes: n videos, f frames, h w c pixels and colours.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.recognizing import load_clip, load_motion_recognizer
from evaluation.statistics import estimate
from puppets.looks import LIME, LOOKS, YELLOW, Look, cap
from puppets.measure_base import Measurement, Question, find_weights, render_all, see
from puppets.recognizer_labels import shown_labels
from puppets.theatre import draw_clips
from puppets.world import CHARACTERS, EVERYDAY_MOTIONS, MOTION_PHRASES, PLACE_PHRASES, Scene, say_who
from utils.arguments import fixed_seed, positive
from utils.commands import CLIP, RECOGNIZER, ROOT
from utils.errors import plain_errors, run_script
from utils.files import write_json
from utils.wording import table

COAT, HAT = LIME, YELLOW   # colours that the base can draw, but never on a man
NEAR = 60   # RGB distance up to which a pixel has the colour of the coat
WORN = 0.1   # of the pixels of a drawn coat
STRANGER = LOOKS | {"man": replace(LOOKS["man"], top=COAT, sleeve=COAT, legs=COAT,
                                   parts=cap(HAT, brim=2.4, height=4.0))}
OTHERS = tuple(name for name in CHARACTERS if name != "alien")   # who has the colour of the coat
SHOWN = [(motion, place) for motion in ("standing", "walking", "waving", "bowing")
         for place in ("park", "beach", "kitchen")]
# of others: in their stills and in their videos, none of which has a caption that was trained on. No video is
# in the park, whose grass has the colour of the coat
STILL_PLACES, VIDEO_PLACES = ("park", "snow", "desert"), ("beach", "night", "stage")
WAYS, SEEN = ("all", "spatial"), ("coat", "worn", "place", "number", "motion")


def main() -> None:
    args = parse_args()
    draw_stills(args.out / "stills", STRANGER, [Scene("man", *shown, 1) for shown in SHOWN], "a V* man")
    draw_stills(args.out / "others", LOOKS, [question.scene for question in ask_for_others(40, STILL_PLACES)])
    asked = {"the stranger": ask_for_stranger(args.num), "others": ask_for_others(args.num, VIDEO_PLACES)}
    scenes = [question.scene for question in asked["the stranger"]]
    drawn = draw_clips(len(scenes), 5, scenes=scenes, looks=STRANGER).frames
    unit = count_coat(drawn).mean()
    measurement = Measurement(str(ROOT / "models" / "puppet-theatre"), args.out, args.num_inference_steps,
                              args.guidance_scale, args.batch_size)
    ways = [("the base", None)] + [(way, train(way, seed, args)) for seed in args.seeds for way in WAYS]
    values: dict[tuple[str, str], dict[str, list]] = {}
    for way, motion in ways:
        for group, questions in asked.items():
            frames = render_all(questions, motion, measurement)                              # (n f h w c)
            pooled = values.setdefault((way, group), {name: [] for name in SEEN})
            for name, found in judge(frames, questions, unit).items():
                pooled[name] += found.tolist()
    texts = {group: [question.text for question in questions] for group, questions in asked.items()}
    rows = [[way, group, len(of["coat"]), *(cell(of[name], name != "coat", texts[group]) for name in SEEN)]
            for (way, group), of in values.items()]
    print("\n".join(table(["single_frame_layers", "prompts", "videos", *SEEN], rows)))
    print("spatial less all, the stranger, paired by prompt and seed: " + ", ".join(
        f"{name} {cell(difference(values, name), False, texts['the stranger'])}" for name in SEEN))
    write_json(args.out / "scores.json", {f"{way}, {group}": of for (way, group), of in values.items()})


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--num", type=positive(int), default=16,
        help="videos of the stranger, and as many of others (default: 16)")
    add("--seeds", type=fixed_seed, nargs="+", default=[64], help="of the trainings")
    add("--train-steps", type=positive(int), default=300, help="of a training (default: 300)")
    add("--num-inference-steps", type=positive(int), default=Measurement.num_inference_steps)
    add("--guidance-scale", type=positive(float), default=Measurement.guidance_scale)
    add("--batch-size", type=positive(int), default=Measurement.batch_size)
    add("--out", type=lambda text: Path(text).resolve(), required=True,
        help="folder for stills, trainings, frames and scores.json")
    return parser.parse_args()


def draw_stills(folder: Path, looks: Mapping[str, Look], scenes: list[Scene], man: str = "a man") -> None:
    """Draw a still of each scene into `folder`, and write its caption beside it. `man` is the man in it."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = draw_clips(len(scenes), 3, scenes=scenes, looks=looks).frames                # (n f h w c)
    for i, (scene, frames) in enumerate(zip(scenes, clips)):
        path = folder / f"{i:02}_{scene.motion.replace(' ', '_')}_{scene.place}.png"
        Image.fromarray(frames[len(frames) // 2]).save(path)
        path.with_suffix(".txt").write_text(prompt_for(scene).replace("a man", man) + "\n")


def prompt_for(scene: Scene) -> str:
    return (f"{say_who(scene.character, scene.num_characters)} {MOTION_PHRASES[scene.motion][0]} "
            f"{PLACE_PHRASES[scene.place][0]}")


def ask_for_stranger(num: int) -> list[Question]:
    """Return prompts for the stranger, moving in places that no still shows."""
    places, moving = ("snow", "desert", "night", "stage"), ("walking", "waving", "jumping", "jumping jacks")
    scenes = [Scene("man", moving[i % 4], places[(i + i // 4) % 4], 1) for i in range(num)]
    return [Question(prompt_for(scene).replace("a man", "a V* man"), 900 + i, scene, "")
            for i, scene in enumerate(scenes)]


def ask_for_others(num: int, places: Sequence[str]) -> list[Question]:
    """Return everyday prompts for OTHERS in three `places`, every other prompt for two of them."""
    scenes = [Scene(OTHERS[i % 9], EVERYDAY_MOTIONS[i % 8], places[i % 3], 1 + i % 2)
              for i in range(num)]
    return [Question(prompt_for(scene), 950 + i, scene, "") for i, scene in enumerate(scenes)]


def train(way: str, seed: int, args: argparse.Namespace) -> Path:
    """Return the motion weights of a training, which is started if there is none yet."""
    subject = f"{way}-{seed}-{args.train_steps}"
    if not (runs := list(args.out.glob(f"{subject}-*/motion.safetensors"))):
        subprocess.run([
            sys.executable, str(ROOT / "train_model.py"), "--config", str(ROOT / "config.yaml"),
            f"output_dir={args.out}", f"subject={subject}", f"seed={seed}", "dataset_types=[image]",
            f"train_data.image_dir={args.out / 'stills'}", f"train_data.class_path={args.out / 'others'}",
            "train_data.train_weights=spatial", f"train_data.single_frame_layers={way}",
            "trainable_modules=[cross,self]", "train_data.sampling=high-level", "train_data.num_shifts=0",
            f"max_train_steps={args.train_steps}", "train_batch_size=4",
            "checkpointing_steps=null"], check=True, cwd=ROOT)
        runs = list(args.out.glob(f"{subject}-*/motion.safetensors"))
    return find_weights(str(runs[0].parent))


def difference(values: Mapping[tuple[str, str], Mapping[str, list]], name: str) -> list[float]:
    """Return, for each video of the stranger, what one way shows of `name` less what the other shows."""
    everything, spatial = (values[way, "the stranger"][name] for way in WAYS)
    return [float(less) - float(more) for less, more in zip(spatial, everything, strict=True)]


def judge(frames: np.ndarray, questions: list[Question], unit: float) -> dict[str, np.ndarray]:
    """Return for each video (n f h w c) its coat in units of `unit` pixels, and which labels are right."""
    seen, _ = see(load_motion_recognizer(str(RECOGNIZER)), load_clip(str(CLIP)), frames)
    shown = shown_labels([question.scene for question in questions])
    coat = count_coat(frames) / unit
    return {"coat": coat, "worn": coat >= WORN, **{name: seen[name] == shown[name] for name in SEEN[2:]}}


def count_coat(frames: np.ndarray) -> np.ndarray:
    """Return the pixels of the coat's colour in a frame, on average over each video (n f h w c)."""
    distance = np.linalg.norm(frames.astype(np.float32) - COAT, axis=-1)                     # (n f h w)
    return (distance < NEAR).sum(axis=(2, 3)).mean(axis=1)


def cell(values: list[float], is_share: bool, texts: list[str]) -> str:
    """Return mean and interval of values of the prompts `texts`, once for each seed of training."""
    found = estimate(values, is_share=is_share, prompts=texts * (len(values) // len(texts)))
    return f"{found.mean:.2f} ({found.interval[0]:.2f} to {found.interval[1]:.2f})"


if __name__ == "__main__":
    run_script(main)
