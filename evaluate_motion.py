"""Measure whether videos show the motion that was learned, whether they follow the rest of their prompts, and
whether they copy the exemplars.

    python evaluate_motion.py -v outputs/dance --exemplars data/puppets/exemplars --motion dance
    python evaluate_motion.py -v RUN --exemplars CLIPS --motion LABEL --recognizer VIDEOMAE --clip CLIP

-v is a folder as generate_pretrained.py wrote it, or a run folder, whose samples are compared step by step. A
table is printed; scores.json (evaluation/scores.py has its schema), for a run scores.png, and the scores in the
gallery land in that folder. The recognizer is any video classifier of transformers that knows the motion.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from evaluation.score_report import add_to_gallery, plot_steps, read_sidecar, score_table
from evaluation.scores import GroupScores, choose_step, scores_document, sum_up
from evaluation.shown_videos import (
    Exemplar,
    ShownVideo,
    find_exemplars,
    find_references,
    find_videos,
    match_references,
)
from evaluation.similarity import COPY_RATIO, MIN_SPACING
from training.run_folder import MOTION_NAME, checkpoint_dir

# torch and transformers are imported in the functions that use them: --help and wrong arguments should not
# wait for them
from utils.commands import CLIP, RECOGNIZER, path_from_here, script_command
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import check_writable, expanded, expanded_path, write_json

SCORES_NAME, PLOT_NAME = "scores.json", "scores.png"


def main() -> None:
    args = parse_args()
    inputs = find_inputs(args)
    recognizer, clip_model = load_models(args, inputs.problems)
    if inputs.problems:
        raise UserError(*dict.fromkeys(inputs.problems))
    for note in inputs.notes:
        print(f"note: {note}")

    groups, document, scores = measure(inputs, recognizer, clip_model, args)
    report(inputs.videos, groups, document, scores, args)


@dataclass(frozen=True)
class Inputs:
    """What is measured, and what is wrong or odd about it."""

    videos: list[ShownVideo]
    exemplars: list[Exemplar]
    references: dict[ShownVideo, ShownVideo]   # everyday video -> that of the untuned base
    problems: list[str]
    notes: list[str]


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Measure whether videos show the motion that was learned, follow the rest of their "
                    "prompts, and copy the exemplars."))
    add = parser.add_argument
    add("-v", "--videos", type=expanded_path, required=True,
        help="a folder of videos as generate_pretrained.py wrote it, or a run folder")
    add("--exemplars", type=expanded_path, required=True,
        help="the folder of clips the motion was learned from")
    add("--motion", required=True, metavar="LABEL", help="what the recognizer calls the motion")
    add("--recognizer", type=expanded, default=path_from_here(RECOGNIZER), metavar="ID_OR_DIR",
        help="a video classifier in transformers format (default: the puppet theatre's)")
    add("--clip", type=expanded, default=path_from_here(CLIP), metavar="ID_OR_DIR",
        help="a CLIP in transformers format (default: the puppet theatre's)")
    add("--reference-videos", type=expanded_path, metavar="DIR",
        help="videos of the untuned base, for how well everyday prompts are kept (default: step 0 of a run)")
    add("--device", help="cuda, mps or cpu (default: the best there is)")
    add("--batch-size", type=int, default=16, help="videos looked at at once (default: 16)")
    add("--seed", type=int, default=0, help="of the intervals' resampling (default: 0)")
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size} is not a number above zero")
    if args.seed < 0:
        parser.error(f"--seed {args.seed} is not a number of 0 or above")
    if not args.motion.strip():
        parser.error("--motion is empty")
    return args


def find_inputs(args: argparse.Namespace) -> Inputs:
    """Return the videos, the exemplars and the references, with everything that is wrong with them."""
    problems, notes = [], []
    videos = attempt(lambda: find_videos(args.videos, args.motion), [], problems)
    fps = videos[0].fps if videos else 8.0
    exemplars = attempt(lambda: find_exemplars(args.exemplars, args.motion, fps), [], problems)
    everyday = [video for video in videos if not video.shows_motion]
    base, base_dir = [video for video in videos if video.step == 0], args.reference_videos
    if base_dir:
        base = attempt(lambda: find_references(base_dir, args.motion), [], problems)
    references = match_references(videos, base)
    if videos:
        problems += check_writable(args.videos)
        for folder in dict.fromkeys(video.path.parent for video in videos):
            attempt(lambda: read_sidecar(folder), None, problems)
        if len(everyday) == len(videos) and references:
            notes.append("no prompt asks for the motion, so only what is kept of the base is measured.")
        elif len(everyday) == len(videos):
            problems.append(f"{args.videos}: no prompt asks for the motion (V*, or {args.motion!r}), so "
                            f"there is nothing to find it in. Render prompts that do, or name another "
                            f"--motion.")
    if base_dir and base and everyday and not references:
        problems.append(f"--reference-videos: {base_dir} has no video of an everyday prompt and seed of "
                        f"{args.videos}. Render the same prompts with the untuned base.")
    if everyday and not base:
        notes.append(f"{len(everyday)} videos are of everyday prompts. How well these are kept is measured "
                     f"against --reference-videos of the untuned base.")
    elif base_dir and len(references) < len(everyday):
        notes.append(f"{len(everyday) - len(references)} of {len(everyday)} videos of everyday prompts have "
                     f"no reference of the same prompt and seed.")
    return Inputs(videos, exemplars, references, problems, notes)


def load_models(args: argparse.Namespace, problems: list[str]):
    """Return the recognizer and the CLIP, on the device; what is wrong is added to `problems`.

    Where there are problems already, nothing is downloaded to find more.
    """
    from evaluation.recognizing import label_index, load_clip, load_motion_recognizer
    from models.base_folder import is_hub_id

    wanted = attempt(lambda: device(args.device), "cpu", problems)
    known = bool(problems)
    recognizer = clip_model = None
    if not (known and is_hub_id(args.recognizer)):
        recognizer = attempt(lambda: load_motion_recognizer(args.recognizer, wanted), None, problems)
    if recognizer:
        attempt(lambda: label_index(recognizer, args.motion), None, problems)
    if not (known and is_hub_id(args.clip)):
        clip_model = attempt(lambda: load_clip(args.clip, wanted), None, problems)
    return recognizer, clip_model


def device(wanted: str | None) -> str:
    """Return the device to compute on. Raises UserError if the one wanted is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return next(name for name, is_there in there.items() if is_there)
    if not there.get(wanted.partition(":")[0]):
        raise UserError(f"--device {wanted}: is not available here. Choose from "
                        f"{', '.join(name for name, is_there in there.items() if is_there)}.")
    return wanted


def measure(inputs: Inputs, recognizer, clip_model, args: argparse.Namespace):
    """Return the scores of each group, the content of scores.json, and the scores of each video."""
    from evaluation.measuring import (
        diversity_of_prompts,
        frames_of,
        look_at,
        look_at_exemplars,
        score_videos,
    )
    from models.base import enough_memory

    videos = inputs.videos
    seen = list(dict.fromkeys([*videos, *inputs.references.values()]))
    with enough_memory("Lower --batch-size."):
        looks = dict(zip((video.path for video in seen),
                         look_at(frames_of(seen), recognizer, clip_model, args.batch_size)))
        num_frames = sorted(video.num_frames for video in videos)[len(videos) // 2]
        exemplars = look_at_exemplars(inputs.exemplars, num_frames, clip_model)
        scores = score_videos(videos, looks, exemplars, inputs.references, args.motion, recognizer,
                              clip_model)
    groups = sum_up(videos, scores, diversity_of_prompts(videos, looks), args.seed)
    step, reason = choose_step(groups) if any(video.step for video in videos) else (None, None)
    facts = {"motion": args.motion, "exemplars": str(args.exemplars), "recognizer": args.recognizer,
             "clip": args.clip, "reference_videos": str(args.reference_videos or "") or None,
             "seed": args.seed, "labels": list(recognizer.labels),
             "copying": {"spacing": exemplars.spacing, "ratio": COPY_RATIO},
             "step": {"step": step, "reason": reason} if reason else None}
    files = [video.path.relative_to(args.videos).as_posix() for video in videos]
    return groups, scores_document(videos, files, scores, groups, facts), scores


def report(videos: list[ShownVideo], groups: list[GroupScores], document: dict, scores: list[dict],
           args: argparse.Namespace) -> None:
    """Print the scores, and write them into the folder of the videos.

    Raises UserError, when that is done, if the weights of the step to use are damaged.
    """
    problems, labels, spacing = [], document["labels"], document["copying"]["spacing"]
    print(score_table(groups))
    print(f"\nA guess finds one motion of {len(labels)}: {1 / len(labels):.2f}. Text alignment is the cosine "
          f"of frames and the prompt without its motion.")
    if spacing is None:
        print(f"The exemplars show one scene, or scenes that look alike (less than {MIN_SPACING:g} apart, "
              f"1 - cosine of frames), so nothing says how near is too near: no copies are told.")
    else:
        print(f"Exemplar distance 1 is how far exemplars of different scenes lie apart ({spacing:.3f}, 1 - "
              f"cosine of frames); below {document['copying']['ratio']:g} a video is a copy.")
    for video, score in zip(videos, scores):
        if score.get("copy"):
            own = " (its prompt asks for that very scene)" if score["asks_for_exemplar"] else ""
            print(f"copy: {video.path} of {score['nearest_exemplar']}, distance "
                  f"{score['exemplar_ratio']:.2f}{own}")
    if document["step"]:
        print(chosen_step(document["step"], args.videos, problems))
        plot_steps(args.videos / PLOT_NAME, groups, document["step"]["step"],
                   f"{args.videos.resolve().name}: {args.motion}")
    write_json(args.videos / SCORES_NAME, document)
    add_to_gallery(args.videos, {video.path: score for video, score in zip(videos, scores)})
    print(f"scores: {args.videos / SCORES_NAME}\n"
          f"open {(args.videos / 'video_lightbox.html').absolute().as_uri()}")
    if problems:
        raise UserError(*problems)


def chosen_step(choice: dict, run: Path, problems: list[str]) -> str:
    """Return the step to use, the reason, and the command that uses it; what is wrong with its weights is
    added to `problems`."""
    if choice["step"] is None:
        return f"step to use: none; {choice['reason']}."
    line = f"step to use: {choice['step']}; {choice['reason']}."
    run, found = run.parent if run.name == "samples" else run, []
    saved = attempt(lambda: weights_of_step(run, choice["step"]), None, found)
    if found:
        problems += found
        return line
    if saved is None:
        return f"{line} Its weights were not saved: see checkpointing_steps."
    return f"{line}\n  {script_command('generate_pretrained.py', '-m', saved, '-p', 'PROMPTS.txt')}"


def weights_of_step(run: Path, step: int) -> Path | None:
    """Return the checkpoint of a step, or the run itself if it ended there."""
    from models.motion_weights import read_motion_info

    if (checkpoint_dir(run, step) / MOTION_NAME).is_file():
        return checkpoint_dir(run, step)
    final = run / MOTION_NAME
    return run if final.is_file() and read_motion_info(final).step == step else None


if __name__ == "__main__":
    run_script(main)
