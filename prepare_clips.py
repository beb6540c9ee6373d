"""From raw footage to a data folder: cut it at its shots, choose where something moves, caption it.

    python prepare_clips.py VIDEO_OR_FOLDER ... -o my/clips --motion dance --subject "a man"
    python prepare_clips.py -o my/clips --keep ~/Downloads/clips-TIME.json   # as review.html says it
    python prepare_clips.py my/clips -o my/others --from-base zs   # prompts for regularization clips

The folder has the clips, text.json with their captions, review.html to look at them, and report.json. Stopped
at any time, the same command goes on: what was looked at or cut is not done again.
"""

import argparse
import math
from pathlib import Path

# OpenCV, torch and what needs them are imported in the functions that use them: --help and wrong arguments
# should not wait for them
from preparation.printed_commands import sample_prompt, train_command, train_lines
from training.config import Config
from training.config_loading import load_config
from utils.captions import PROMPTS_NAME
from utils.commands import path_from_here, script_command
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import check_writable, expanded_path, format_bytes, free_bytes
from utils.wording import counted, first_few

NUM_CLIPS, NUM_PROMPTS, SECONDS = 6, 24, 2   # unless said otherwise
CLIP_BYTES = 20_000_000   # room for a clip, generously


def main() -> None:
    args = parse_args()
    if args.keep:
        from preparation.review import keep

        report = keep(args.output, args.keep)
        kept = sum(clip["kept"] for clip in report["clips"])
        print(f"{args.output}: {kept} of {len(report['clips'])} clips kept.\n{report['train']}")
    elif args.from_base:
        write_prompts(args)
    else:
        prepare(args)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Make a data folder of clips from raw footage."))
    add = parser.add_argument
    add("inputs", nargs="*", type=expanded_path, metavar="VIDEO_OR_FOLDER",
        help="footage; folders with what is below them")
    add("-o", "--output", type=expanded_path, required=True, metavar="FOLDER",
        help="the data folder to make")
    add("--motion", help="the name of the motion: captions become 'SUBJECT doing the V* MOTION'")
    add("--seconds", type=float, help="length of a clip; default 2")
    add("--num", type=int, metavar="N",
        help="clips to propose; default 6; with --from-base prompts, default 24")
    add("--crop", choices=["square", "aspect"],
        help="cut to what moves: a square, or the picture's own aspect ratio")
    add("--fps", type=float, help="frames a second that training will want; default: the config's")
    add("--config", type=expanded_path, metavar="FILE",
        help="the config you will train with; default: the paper's recipe")
    add("--subject", help="who or what moves, in all files, such as 'a man'")
    add("--subjects", type=expanded_path, metavar="CSV",
        help="lines of file,subject; default: each subjects.csv beside footage")
    add("--captioner", metavar="NAME", help="image-text-to-text model of transformers, a folder or hub id")
    add("--regularization", action="store_true",
        help="ordinary videos: captions without V*, 'SUBJECT MOTION'")
    add("--from-base", metavar="BASE", help="only write prompts of everyday motions, for BASE (zs) to render")
    add("--keep", nargs="?", type=expanded_path, const=Path(), metavar="JSON",
        help="keep the clips that this file names, with its captions; default: the folder's own text.json")
    args = parser.parse_args()
    if args.keep == Path():
        args.keep = args.output / "text.json"
    return args


def prepare(args: argparse.Namespace) -> None:
    """Make the data folder."""
    footage, subjects, wanted, before = check(args)
    captioner = None
    if args.captioner:
        from preparation.captioner import load_captioner

        captioner = load_captioner(args.captioner)
    from preparation.footage import WORK_FOLDER
    from preparation.making import (
        cut_missing,
        earlier_clips,
        plan_cuts,
        remove_outdated,
        settle,
        was_dropped,
    )
    from preparation.report import make_report, report_lines
    from preparation.review import write_review, written_captions
    from preparation.survey import survey, without_clips
    from preparation.windows import choose

    written, own = written_captions(args.output, before)
    earlier = earlier_clips(before, written)
    surveyed = survey(footage, args.output / WORK_FOLDER, wanted, say)
    while True:   # until all files that clips are chosen from can be cut
        chosen, left = choose([window for found in surveyed for window in found.windows],
                              args.num or NUM_CLIPS, lambda window: was_dropped(window, earlier))
        cuts = plan_cuts(chosen, args.output, args.crop, wanted, earlier)
        if not captioner:
            subjects |= ask_missing(chosen, subjects)
        failed = cut_missing(chosen, cuts, say)
        if not failed:
            break
        surveyed = [without_clips(found.path, failed[found.path], is_readable=True)
                    if found.path in failed else found for found in surveyed]
    captions = caption_all(args, chosen, cuts, subjects, captioner)
    report, stills = make_report(surveyed, chosen, left, cuts, captions)
    report = settle(report, earlier)
    print("\n".join(report_lines(report)))
    no_clip = "No clip could be made: the lines above say why."
    if not chosen and before and before["clips"]:
        raise UserError(f"{no_clip} {args.output} stays as it was.")
    page = write_review(args.output, report | {"train": train_lines(args, wanted)}, stills, own)
    if not chosen:
        raise UserError(no_clip)
    if num_removed := remove_outdated(args.output, {cut.path for cut in cuts}):
        were = "was" if num_removed == 1 else "were"
        print(f"{counted(num_removed, 'clip')} of an earlier run {were} removed. If a later run chooses such "
              f"a clip again, it has the caption that you gave it")
    print(f"look at them, keep or drop, mend captions:\n  {path_from_here(page)}\n"
          f"{train_lines(args, wanted)}")


def say(line: str) -> None:
    print(line, flush=True)


def check(args: argparse.Namespace):
    """Return (footage, subjects by file, what training wants, the folder's earlier report), all found sound.

    Raises UserError with a line for everything that is wrong.
    """
    from preparation.footage import WORK_FOLDER, find_footage
    from preparation.review import read_report
    from preparation.subjects import can_ask, check_text

    problems = check_writable(args.output)
    args.motion = attempt(lambda: check_text("--motion", args.motion), None, problems)
    args.subject = attempt(lambda: check_text("--subject", args.subject), None, problems)
    if not args.inputs:
        problems.append("No footage is named. Name videos, or folders of videos.")
    if not args.motion and not args.regularization:
        problems.append("--motion is missing. Give the motion a name, such as --motion dance.")
    wanted = attempt(lambda: what_training_wants(args), None, problems)
    footage = attempt(lambda: find_footage(args.inputs, args.output, say), [], problems)
    subjects = dict.fromkeys(footage, args.subject) if args.subject else {}
    subjects |= table_subjects(args.inputs, footage, args.subjects, problems)
    unsaid = [path for path in footage if path not in subjects]
    if unsaid and not args.captioner and not can_ask() and not problems:
        problems.append(f"Nobody says who moves in {first_few(unsaid, 3)}. Use --subject, a subjects.csv or "
                        f"--captioner.")
    before = attempt(lambda: read_report(args.output), None, problems)
    if any(args.output.glob("[!.]*")) and not (args.output / WORK_FOLDER).is_dir():
        problems.append(f"{args.output}: holds files that prepare_clips.py did not make. Name a new folder.")
    needed, free = CLIP_BYTES * (args.num or NUM_CLIPS), free_bytes(args.output)
    if free < needed:
        problems.append(f"{args.output}: needs up to {format_bytes(needed)}, and {format_bytes(free)} are "
                        f"free there. Make room, or lower --num.")
    if problems:
        raise UserError(*problems)
    return footage, subjects, wanted, before


def table_subjects(inputs: list[Path], footage: list[Path], given: Path | None,
                   problems: list[str]) -> dict[Path, str]:
    """Return the subjects that tables name: the table `given`, or else those beside the footage.

    Of several tables the nearest counts. What is wrong is added to `problems`.
    """
    from preparation.subjects import find_tables, read_subjects

    subjects = {}
    for table in [given] * bool(footage) if given else find_tables(inputs, footage):
        others = [path for path in footage if path not in subjects]
        subjects |= attempt(lambda: read_subjects(table, others, is_found=not given), {}, problems)
    return subjects


def what_training_wants(args: argparse.Namespace):
    """Return the length, rate and size of clips; raises UserError if what is asked for cannot be."""
    from preparation.windows import Wanted

    problems = [f"--{name} is {value:g}. It must be above zero." for name, value in
                (("seconds", args.seconds), ("num", args.num), ("fps", args.fps))
                if value is not None and not (math.isfinite(value) and value > 0)]
    # what the config lacks is what this command makes
    config = attempt(lambda: load_config(args.config, ["train_data.path=clips"])[0], Config(), problems) \
        if args.config else Config()
    data = config.train_data
    fps, window = args.fps or data.fps, data.n_sample_frames
    if args.seconds and not problems and round(args.seconds * fps) < window:
        least = math.ceil(100 * window / fps) / 100
        problems.append(f"--seconds {args.seconds:g} is {round(args.seconds * fps)} frames at {fps:g} fps, "
                        f"and training needs {window}. Say --seconds {least:g} or more.")
    if problems:
        raise UserError(*problems)
    seconds = args.seconds or max(SECONDS, window / fps)
    return Wanted(seconds, fps, window, (data.width, data.height), data.use_bucketing,
                  takes_folders=config.dataset_types == ["folder"])


def ask_missing(chosen, subjects: dict) -> dict:
    """Ask on the terminal who moves in the files that clips come from, where nobody has said it."""
    from preparation.subjects import ask
    from preparation.windows import clock

    said = {}
    for window in chosen:
        path = window.analysis.path
        if path not in subjects and path not in said:
            said[path] = ask(path, f"at {clock(window.span[0] / window.analysis.fps)}")
    return said


def caption_all(args: argparse.Namespace, chosen, cuts, subjects: dict, captioner) -> list[str]:
    """Return the captions of the clips; what the user says goes before what a captioner says."""
    from preparation.subjects import caption_for

    captions = []
    for window, cut in zip(chosen, cuts, strict=True):
        subject = subjects.get(window.analysis.path)
        if subject is None:
            from preparation.captioner import describe_frame
            from preparation.making import middle_frame
            from preparation.motion_words import with_motion

            sentence = describe_frame(captioner, middle_frame(cut)) or "a person"
            captions.append(sentence if args.regularization else with_motion(sentence, args.motion))
        else:
            captions.append(caption_for(subject, args.motion, args.regularization))
    return captions


def write_prompts(args: argparse.Namespace) -> None:
    """Write a list of everyday prompts, and say how the base renders it and how to train on that."""
    from preparation.everyday import everyday_prompts, subjects_of
    from utils.files import read_text, replacing

    problems = check_writable(args.output)
    wanted = attempt(lambda: what_training_wants(args), None, problems)
    subjects = [args.subject] if args.subject else []
    for folder in args.inputs:
        if not folder.is_dir():
            problems.append(f"{folder}: is no folder. Name the folder of your exemplars.")
        else:
            subjects += attempt(lambda: subjects_of(folder), [], problems)
    if not subjects and not problems:
        problems.append("Name the folder of your exemplars, or say --subject: prompts are of its kind.")
    if problems:
        raise UserError(*problems)
    prompts = everyday_prompts(subjects, args.num or NUM_PROMPTS)
    content = "".join(f"{seed},{prompt}\n" for seed, prompt in enumerate(prompts))
    path, said = args.output / PROMPTS_NAME, f"{len(prompts)} prompts. Edit them. Then"
    if path.exists() and read_text(path) != content:
        said = "is kept, for it is not what this command would write. Remove it for new prompts. Then"
    else:
        with replacing(path) as partial:
            partial.write_text(content, encoding="utf-8")
    width, height = wanted.size
    exemplars = args.inputs or ["YOUR_EXEMPLARS"]
    print(f"{path}: {said}\n  "
          + script_command("generate_pretrained.py", "-m", args.from_base, "-o", args.output, "-p", path,
                           "-r", f"{width}x{height}", "-d", wanted.window, "--fps", f"{wanted.fps:g}")
          + "\n  "
          + train_command(args, wanted, exemplars, f"train_data.class_path={args.output}",
                          *sample_prompt(args)))


if __name__ == "__main__":
    run_script(main)
