"""Measures a base of the puppet theatre: how often character, number, place and motion are those of the
prompt.

Prompts are random everyday prompts, half of them of combinations that the base was trained on, half of
held-out ones. With learned motion weights and --motion, prompts ask characters who are in no exemplar for
that motion.

    python -m puppets.measure_base --out outputs/base-scores
    python -m puppets.measure_base -m RUN --motion dance --out outputs/dance-scores --num 80

The same command continues an interrupted measurement. Shapes: n videos, f frames, h w c pixels and colours.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from evaluation.recognizing import (
    ImageTextModel,
    MotionRecognizer,
    classify_motion,
    load_clip,
    load_motion_recognizer,
)
from evaluation.statistics import estimate
from models.base import enough_memory, load_base
from models.motion_weights import apply_motion, read_motion_info
from puppets import theatre, world
from puppets.model_cards import confusion_counts, confusion_table
from puppets.recognizer_labels import (
    MOTIONS,
    OTHER,
    match_captions,
    read_scenes,
    scene_captions,
    shown_labels,
)
from rendering.sampling import Rendering, render
from training.config import Config
from training.run_folder import find_motion
from utils.arguments import fixed_seed, not_negative, positive
from utils.commands import CLIP, RECOGNIZER, ROOT
from utils.devices import DTYPES
from utils.errors import UserError, plain_errors, run_script
from utils.files import digest_of, file_digest, replacing, write_json
from utils.prompts import Prompt, with_token
from utils.tensor_files import read_tensors, write_tensors
from utils.wording import table


@dataclass(frozen=True)
class Question:
    """A prompt, the scene it asks for, and the group it is counted in."""

    text: str
    seed: int
    scene: world.Scene
    group: str


@dataclass(frozen=True)
class Measurement:
    """How the videos of a measurement are rendered, and where their frames are kept."""

    base: str                        # diffusers folder
    out: Path
    num_inference_steps: int = 25
    guidance_scale: float = 2.0
    batch_size: int = 8
    precision: str = "no"            # to render in, a key of DTYPES; no: float32


def main() -> None:
    args = parse_args()
    motion = find_weights(args.model) if args.model else None
    questions = ask_for_motion(args.motion, args.num, args.seed) if args.motion else ask(args.num, args.seed)
    recognizer, clip = load_motion_recognizer(args.recognizer), load_clip(args.clip)
    if set(recognizer.labels) != set(MOTIONS):
        raise UserError(f"{args.recognizer}: its labels are not the motions of the puppet theatre. Name a "
                        f"recognizer made by puppets/train_recognizers.py.")
    with enough_memory("Lower --batch-size."):
        frames = render_all(questions, motion, Measurement(
            args.base, args.out, args.num_inference_steps, args.guidance_scale, args.batch_size,
            args.precision))                                                          # (n f h w c)
    seen, probabilities = see(recognizer, clip, frames)
    report(questions, seen, probabilities, recognizer.labels, args)
    if args.sheet:
        write_sheet(args.out / "sheet.png", frames[: args.sheet], questions, seen)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--base", default=str(ROOT / "models" / "puppet-theatre"), help="diffusers folder")
    add("-m", "--model", help="run folder or motion.safetensors to measure, instead of the base as it is")
    add("--motion", choices=world.KEPT_OUT_MOTIONS, help="ask for this motion, which -m has learned")
    add("--recognizer", default=str(RECOGNIZER))
    add("--clip", default=str(CLIP))
    add("--num", type=positive(int), default=256, help="prompts (default: 256)")
    add("--seed", type=fixed_seed, default=0, help="of the prompts and the noise (default: 0)")
    add("--num-inference-steps", type=positive(int), default=Measurement.num_inference_steps)
    add("--guidance-scale", type=positive(float), default=Measurement.guidance_scale)
    add("--batch-size", type=positive(int), default=Measurement.batch_size)
    add("--precision", choices=tuple(DTYPES), default=Measurement.precision,
        help="to render in (default: no, float32)")
    add("--sheet", type=not_negative(int), default=0, metavar="NUM",
        help="draw so many videos into one picture, sheet.png")
    add("--out", type=Path, required=True, help="folder for scores.json and the frames rendered so far")
    return parser.parse_args()


def find_weights(given: str) -> Path:
    motion = find_motion(given)
    if motion is None:
        raise UserError(f"{given}: holds no motion weights. Name a run folder or a motion.safetensors.")
    return motion


def ask(num: int, seed: int) -> list[Question]:
    """Return everyday prompts that say the place, of trained and of held-out combinations in turn."""
    questions = []
    for index in range(num):
        held_out = index % 2 == 1
        rng = np.random.default_rng((seed, 7, index))
        scene = world.draw_scene(rng, held_out)
        text = world.write_caption(scene, rng)
        while not world.phrase_in(text, world.PLACE_PHRASES[scene.place]):
            text = world.write_caption(scene, rng)
        questions.append(Question(text, seed * 100_000 + index, scene,
                                  "held-out combinations" if held_out else "trained combinations"))
    return questions


def ask_for_motion(motion: str, num: int, seed: int) -> list[Question]:
    """Return prompts for a learned motion, of each character that no exemplar shows, alone and in pairs."""
    cast = {character for character, _ in theatre.EXEMPLAR_CAST}
    unseen = [character for character in world.CHARACTERS if character not in cast]
    questions = []
    for index in range(num):
        rng = np.random.default_rng((seed, 8, index))
        number = 1 + index // len(unseen) % 2
        scene = world.Scene(unseen[index % len(unseen)], motion, str(rng.choice(world.PLACES)), number)
        text = f"{world.say_who(scene.character, number)} {world.KEPT_OUT_PHRASES[motion]} " \
               f"{world.PLACE_PHRASES[scene.place][0]}"
        questions.append(Question(text, seed * 100_000 + index, scene, f"{number} of a kind"))
    return questions


def render_all(questions: list[Question], motion: Path | None, measurement: Measurement) -> np.ndarray:
    """Return a uint8 video for each question (n f h w c). Batches that are in the output folder are kept."""
    # the figures in the cards and in docs/results.md were measured with the base's own sampler
    how = Rendering(world.FRAME_SIZE, world.FRAME_SIZE, world.CLIP_FRAMES, measurement.num_inference_steps,
                    measurement.guidance_scale, sampler="base")
    base = load_base(measurement.base)
    token = Config.placeholder_token
    if motion:
        token = read_motion_info(motion).placeholder_token
        apply_motion(base.unet, base.fingerprint, motion, 1.0)
    base.pipeline.to("cuda" if torch.cuda.is_available() else "cpu", DTYPES[measurement.precision])
    videos = []
    for start in tqdm(range(0, len(questions), measurement.batch_size), desc="rendering", dynamic_ncols=True):
        prompts = [Prompt(question.seed, with_token(question.text, token))
                   for question in questions[start : start + measurement.batch_size]]
        # the file name is a digest of everything that the frames depend on
        made_of = digest_of([base.fingerprint, motion and file_digest(motion), asdict(how),
                             measurement.precision, [[prompt.seed, prompt.text] for prompt in prompts]])
        path = measurement.out / "frames" / f"{made_of[:24]}.safetensors"
        if not path.exists():
            write_tensors(path, {"frames": torch.from_numpy(render(base.pipeline, prompts, how))})
        videos.append(read_tensors(path)["frames"].numpy())
    return np.concatenate(videos)


def see(recognizer: MotionRecognizer, clip: ImageTextModel,
        frames: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what is seen in videos (n f h w c), and the probabilities (n k) of the recognizer's labels.

    Seen are character, number, place and motion, each as the indices (n) that `shown_labels` uses.
    `named motion` is the motion that is seen if `something else` is no answer. A recognizer of real footage,
    such as those trained on Kinetics, has no such label.
    """
    probabilities = classify_motion(recognizer, frames)
    seen = read_scenes(match_captions(clip, frames, scene_captions()))
    order = np.array([MOTIONS.index(label) for label in recognizer.labels])
    is_named = np.array([label != OTHER for label in recognizer.labels])                            # (k)
    return seen | {"motion": order[probabilities.argmax(1)],
                   "named motion": order[np.where(is_named, probabilities, -1).argmax(1)]}, probabilities


def report(questions: list[Question], seen: dict[str, np.ndarray], probabilities: np.ndarray,
           labels: tuple[str, ...], args: argparse.Namespace) -> None:
    """Print how often each label was right and which motions were confused; write scores.json."""
    shown = shown_labels([question.scene for question in questions])
    right = {name: seen[name] == shown[name] for name in ("character", "number", "place", "motion")}
    right["all four"] = np.logical_and.reduce(list(right.values()))
    right["named motion"] = seen["named motion"] == shown["motion"]
    groups = np.array([question.group for question in questions])
    estimates, rows = {}, []
    for group in (*dict.fromkeys(groups), "all"):
        mine = (groups == group) | (group == "all")
        prompts = [question.text for question, counts in zip(questions, mine) if counts]
        estimates[group] = {name: asdict(estimate(values[mine], is_share=True, prompts=prompts))
                            for name, values in right.items()}
        num, num_prompts = len(prompts), len(set(prompts))
        videos = f"{num}" + (f" of {num_prompts} prompts" if num_prompts < num else "")
        rows.append([group, videos, *(percent(numbers) for numbers in estimates[group].values())])
    print("\n".join(table(["right, in % (95 % interval)", "videos", *right], rows)))
    counts = confusion_counts(shown["motion"], seen["motion"], len(MOTIONS))
    print("\nMotions: asked for (rows), seen (columns)")
    print("\n".join(confusion_table(counts, MOTIONS)))
    asked = [labels.index(question.scene.motion) for question in questions]
    likely = probabilities[np.arange(len(questions)), asked]                                        # (n)
    # says more than shares do, where few videos are right
    graded = estimate(likely, limits=(0, 1), prompts=[question.text for question in questions])
    print(f"\nprobability of the motion asked for, in %: {percent(asdict(graded))}")
    write_json(args.out / "scores.json", {
        "settings": vars(args) | {"out": str(args.out)},
        "right": estimates, "motion_probability": asdict(graded), "motions": MOTIONS,
        "confusion": counts.tolist(),
        "videos": [{"prompt": question.text, "seed": question.seed, "group": question.group,
                    **{name: bool(values[i]) for name, values in right.items()},
                    "seen_motion": MOTIONS[seen["motion"][i]],
                    "motion_probability": round(float(likely[i]), 4)}
                   for i, question in enumerate(questions)]})
    print(f"\n{args.out / 'scores.json'}")


def percent(numbers: dict) -> str:
    """Return a mean with its interval in percent: 71.0 (65.0-77.0)."""
    mean, low, high = (100 * value if value is not None else float("nan")
                       for value in (numbers["mean"], numbers["low"], numbers["high"]))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def write_sheet(path: Path, frames: np.ndarray, questions: list[Question],
                seen: dict[str, np.ndarray]) -> None:
    """Write videos (n f h w c) as one picture, a video a row, and what was asked for and seen as text."""
    with replacing(path) as partial:
        rows = [np.concatenate(list(video), axis=1) for video in frames]
        Image.fromarray(np.concatenate(rows).repeat(2, 0).repeat(2, 1)).save(partial)
    lines = [f"{question.text}: {world.CHARACTERS[seen['character'][i]]}, {seen['number'][i] + 1}, "
             f"{world.PLACES[seen['place'][i]]}, {MOTIONS[seen['motion'][i]]}"
             for i, question in enumerate(questions[: len(frames)])]
    with replacing(path.with_suffix(".txt")) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
