"""Measures whether videos show the motion that was learned, whether they follow the rest of their prompts,
and whether they copy the exemplars.

    python evaluate_motion.py -v outputs/dance --exemplars data/puppets/exemplars --motion dance
    python evaluate_motion.py -v RUN --exemplars CLIPS --motion LABEL --recognizer VIDEOMAE --clip CLIP

-v is a folder as generate_pretrained.py wrote it, or a run folder, whose samples are compared step by step.
--against DIR compares it, pair by pair, with a second folder of videos of the same prompts and seeds.
The scores are printed as a table and written into that folder: scores.json (evaluation/summary.py has its
schema), the plot scores.png of a run, and the scores in the gallery. The recognizer is any video classifier
of transformers that knows the motion. If no classifier knows it, --recognizer none measures all the rest.
"""

import argparse
from pathlib import Path
from statistics import median_high

from evaluation.material import Material, everyday_prompts, find_material, label_notes
from evaluation.motion_words import MotionName
from evaluation.shown_videos import ShownVideo
from evaluation.similarity import COPY_RATIO, MIN_SPACING
from training.run_folder import MOTION_NAME, checkpoint_dir

# what needs torch is imported in the functions that use it, so that --help and wrong arguments do not wait
from utils.arguments import fixed_seed, positive
from utils.commands import CLIP, RECOGNIZER, path_from_here, script_command
from utils.errors import UserError, attempt, plain_errors, printable, run_script
from utils.files import expanded, expanded_path, write_json

SCORES_NAME, PLOT_NAME = "scores.json", "scores.png"
NO_RECOGNIZER = "none"


def main() -> None:
    args = parse_args()
    material = find_material(args.videos, args.exemplars, MotionName(args.motion, args.motion_phrase),
                             args.reference_videos, args.against)
    recognizer, clip_model = load_models(args, material.problems)
    if material.problems:
        raise UserError(*dict.fromkeys(material.problems))
    everyday = everyday_prompts(material.videos, recognizer.labels) if recognizer else None
    for note in [*material.notes, *label_notes(everyday)]:
        print(f"note: {note}")

    groups, comparisons, document = measure(material, recognizer, clip_model, args, everyday)
    report(material.videos, groups, comparisons, document, args)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Measure whether videos show the motion that was learned, follow the rest of their "
                    "prompts, and copy the exemplars."))
    add = parser.add_argument
    add("-v", "--videos", type=expanded_path, required=True,
        help="a folder of videos as generate_pretrained.py wrote it, or a run folder")
    add("--exemplars", type=expanded_path, required=True,
        help="the folder of clips the motion was learned from")
    add("--motion", required=True, metavar="LABEL",
        help="what the recognizer calls the motion; with --recognizer none, what prompts call it")
    add("--motion-phrase", metavar="WORDS",
        help="the words of prompts that name the motion, such as \"doing the V* dance\", if not LABEL. "
             "Text alignment leaves them out (default: V*, LABEL or both, with \"doing the\")")
    add("--recognizer", type=expanded, default=path_from_here(RECOGNIZER), metavar="ID_OR_DIR",
        help="a video classifier in transformers format (default: the puppet theatre's). none: the motion "
             "itself is not judged, everything else is")
    add("--clip", type=expanded, default=path_from_here(CLIP), metavar="ID_OR_DIR",
        help="a CLIP in transformers format (default: the puppet theatre's)")
    add("--reference-videos", type=expanded_path, metavar="DIR",
        help="videos of the untuned base, for how well everyday prompts are kept (default: step 0 of a run)")
    add("--against", type=expanded_path, metavar="DIR",
        help="a second folder of videos of the same prompts and seeds: how much the scores differ from its, "
             "pair by pair")
    add("--device", help="cuda, mps or cpu (default: the fastest that is available)")
    add("--batch-size", type=positive(int), default=16, help="videos looked at together (default: 16)")
    add("--seed", type=fixed_seed, default=0, help="of the intervals' resampling (default: 0)")
    args = parser.parse_args()
    for flag, given in (("--motion", args.motion), ("--motion-phrase", args.motion_phrase)):
        if given is not None and not given.strip():
            parser.error(f"{flag} is empty")
    args.motion, args.motion_phrase = args.motion.strip(), args.motion_phrase and args.motion_phrase.strip()
    return args


def load_models(args: argparse.Namespace, problems: list[str]):
    """Return the recognizer and the CLIP, on the device. What is wrong with them is added to `problems`.

    Nothing is downloaded if there are problems already.
    """
    from evaluation.recognizing import label_index, load_clip, load_motion_recognizer
    from models.base_folder import is_hub_id

    wanted = attempt(lambda: device(args.device), "cpu", problems)
    may_download = not problems
    recognizer = clip_model = None
    if args.recognizer != NO_RECOGNIZER and (may_download or not is_hub_id(args.recognizer)):
        recognizer = attempt(lambda: load_motion_recognizer(args.recognizer, wanted), None, problems)
    if recognizer:
        attempt(lambda: label_index(recognizer, args.motion), None, problems)
    if may_download or not is_hub_id(args.clip):
        clip_model = attempt(lambda: load_clip(args.clip, wanted), None, problems)
    return recognizer, clip_model


def device(wanted: str | None) -> str:
    """Return the device to compute on. Raises UserError if `wanted` is not available."""
    import torch

    numbers = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = [name for kind, number in numbers.items() if number
                 for name in (kind, *(f"{kind}:{index}" for index in range(number)))]
    if wanted is None:
        return available[0]
    if wanted not in available:
        raise UserError(f"--device {wanted}: is not available here. Choose from {', '.join(available)}.")
    return wanted


def measure(material: Material, recognizer, clip_model, args: argparse.Namespace, everyday: dict | None):
    """Return the scores of each group, the comparisons, and the content of scores.json."""
    from evaluation.comparison import compare, comparison_document
    from evaluation.features import exemplar_features, video_features
    from evaluation.recognizing import label_index, text_embeddings
    from evaluation.scores import MeasuredVideo
    from evaluation.summary import choose_step, scores_document, sum_up
    from models.base import enough_memory

    videos, partners = material.videos, list(material.partners.values())
    texts = sorted({video.text for video in videos if video.text})
    with enough_memory("Lower --batch-size."):
        looked_at = {video.path: video for video in [*videos, *material.references.values(), *partners]}
        features = video_features(list(looked_at.values()), recognizer, clip_model, args.batch_size)
        num_frames = {fps: median_high([video.num_frames for video in videos if video.fps == fps]
                                       or [video.num_frames for video in partners if video.fps == fps])
                      for fps in material.exemplars}
        exemplars = exemplar_features(material.exemplars, num_frames, clip_model)
        text_embeds = dict(zip(texts, text_embeddings(clip_model, texts).numpy()))
    reference_of = {video: features[reference.path] for video, reference in material.references.items()}
    labels, motion = (recognizer.labels, label_index(recognizer, args.motion)) if recognizer else ((), None)
    measured, measured_partners = (
        [MeasuredVideo(video, features[video.path], reference_of.get(video), text_embeds.get(video.text),
                       exemplars[video.fps], labels, motion) for video in shown]
        for shown in (videos, partners))
    groups = sum_up(measured, args.seed)
    comparisons = compare(measured, dict(zip(material.partners, measured_partners)), len(material.others),
                          args.seed)
    step = reason = None
    if any(video.step for video in videos):
        step, reason = choose_step(groups) if recognizer else (
            None, "no recognizer has looked for the motion. Look at the samples")
    facts = {"motion": args.motion, "motion_phrase": args.motion_phrase, "exemplars": str(args.exemplars),
             "recognizer": args.recognizer if recognizer else None, "clip": args.clip,
             "reference_videos": str(args.reference_videos or "") or None,
             "seed": args.seed, "labels": list(labels),
             "copying": {"spacing": exemplars[videos[0].fps].spacing, "ratio": COPY_RATIO},
             "everyday": everyday,
             "against": comparison_document(comparisons, args.against) if args.against else None,
             "step": {"step": step, "reason": reason} if reason else None}
    return groups, comparisons, scores_document(measured, args.videos, groups, facts)


def report(videos: list[ShownVideo], groups: list, comparisons: list, document: dict,
           args: argparse.Namespace) -> None:
    """Print the scores, and write them into the folder of the videos.

    Raises UserError at the end if the weights of the step to use are damaged.
    """
    from evaluation.comparison import explained
    from evaluation.score_report import (
        add_to_gallery,
        add_to_run_page,
        difference_table,
        has_several_seeds,
        plot_steps,
        score_table,
    )

    problems, labels, spacing = [], document["labels"], document["copying"]["spacing"]
    scores = {video.path: listed["scores"] for video, listed in zip(videos, document["videos"])}
    print(score_table(groups))
    print(f"\n{explanation(videos, len(labels), spacing)}")
    if has_several_seeds(groups):
        print("Videos of one prompt are alike, so the intervals are those of the prompts: 8/4 are 8 videos "
              "of 4 prompts.")
    for path, score in scores.items():
        if score.get("copy"):
            own = " (its prompt asks for that very scene)" if score["asks_for_exemplar"] else ""
            print(f"copy: {path} of {score['nearest_exemplar']}, distance {score['exemplar_ratio']:.2f}{own}")
    if comparisons:
        print(f"\n{difference_table([comparison.differences for comparison in comparisons])}\n")
        for comparison in comparisons:
            print(explained(comparison, args.videos, args.against))
    if document["step"]:
        print(chosen_step(document["step"], args.videos, problems))
        plot_steps(args.videos / PLOT_NAME, groups, document["step"]["step"],
                   printable(f"{args.videos.resolve().name}: {args.motion}"))
        if page := add_to_run_page(run_of_videos(args.videos), groups, document["step"]):
            print(f"the run: {page.absolute().as_uri()}")
    write_json(args.videos / SCORES_NAME, document)
    add_to_gallery(args.videos, scores)
    print(f"scores: {args.videos / SCORES_NAME}\n"
          f"open {(args.videos / 'video_lightbox.html').absolute().as_uri()}")
    if problems:
        raise UserError(*problems)


def explanation(videos: list[ShownVideo], num_labels: int, spacing: float | None) -> str:
    """Return how to read the table. `spacing`: how far exemplars of different scenes lie apart, None if they
    show one scene."""
    lines = [f"A guess finds one motion of {num_labels}: {1 / num_labels:.2f}."] if num_labels else [
        "No recognizer has looked for the motion. How to read the rest:"]
    asking = [video for video in videos if video.shows_motion]
    if example := next((video for video in asking if video.text), None):
        lines.append(f"Text alignment is the cosine of frames and the prompt without its motion: "
                     f"\"{example.text}\" for \"{example.prompt}\".")
    if asking and spacing is None:
        lines.append(f"The exemplars show one scene, or scenes that look alike (less than {MIN_SPACING:g} "
                     f"apart, 1 - cosine of frames), so nothing says how near is too near: "
                     f"no copies are told.")
    elif asking:
        lines.append(f"Exemplar distance 1 is how far exemplars of different scenes lie apart "
                     f"({spacing:.3f}, 1 - cosine of frames); below {COPY_RATIO:g} a video is a copy.")
    return "\n".join(lines)


def chosen_step(choice: dict, run: Path, problems: list[str]) -> str:
    """Return the step to use, the reason, and the command that uses it.

    What is wrong with the weights of the step is added to `problems`.
    """
    from models.motion_weights import read_motion_info

    if choice["step"] is None:
        return f"step to use: none; {choice['reason']}."
    line = f"step to use: {choice['step']}; {choice['reason']}."
    run = run_of_videos(run)
    saved, final = checkpoint_dir(run, choice["step"]), run / MOTION_NAME
    if not (saved / MOTION_NAME).is_file():
        info = attempt(lambda: read_motion_info(final), None, problems) if final.is_file() else None
        if final.is_file() and info is None:
            return line
        if info is None or info.step != choice["step"]:
            return f"{line} Its weights were not saved: see checkpointing_steps."
        saved = run
    return f"{line}\n  {script_command('generate_pretrained.py', '-m', saved, '-p', 'PROMPTS.txt')}"


def run_of_videos(videos: Path) -> Path:
    """Return the folder of the run whose samples are in `videos`."""
    if videos.name == "samples":
        return videos.parent
    resolved = videos.resolve()   # they may be named from inside: -v .
    return resolved.parent if resolved.name == "samples" else videos


if __name__ == "__main__":
    run_script(main)
