"""Asks the paper's questions of a base: trains, renders and measures cell by cell, and writes the tables.

    python -m studies.ablation --list                                 # the cells, and which are finished
    python -m studies.ablation --minutes 60 --docs docs/results.md    # go on for an hour, most telling first
    python -m studies.ablation --cells regularization --docs docs/results.md    # one table, or cells by name

A cell is one training with one change. Its folder is OUT/cells/CELL/MOTION-seedN. The cell is finished when
the folder has scores by the present recognizers, in scores-JUDGES.json (JUDGES is a digest of them). With
other recognizers the same videos are measured again, and nothing is trained or rendered. A cell that was
stopped goes on where it was.

Every cell renders the same prompts: characters that no exemplar shows, alone and in pairs, doing the new
motion or an everyday motion. Everyday videos are compared with the untuned base's videos of the same prompts
and seeds, which are rendered once, into OUT/base. Tables (OUT/results.md, results.json) and plots are written
whenever the script ends.
"""

import argparse
import math
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from puppets import theatre, world
from studies.ablation_cells import TABLES, Cell, all_cells, choose_cells, names
from studies.ablation_report import check_document
from studies.ablation_study import (
    CONFIG,
    Study,
    check_finished,
    hold,
    state_of,
    write_results,
)
from studies.logged_commands import OutOfTime, run_logged
from studies.study_prompts import EVERYDAY_SHARE, write_prompts
from training.config_loading import load_config
from utils.arguments import fixed_seed, not_negative, positive
from utils.commands import CLIP, RECOGNIZER, ROOT
from utils.errors import UserError, attempt, plain_errors, run_script
from utils.files import copy_whole, digest_of, file_digest, replacing, write_json

OWN_KEYS = {   # of the config, which the study sets itself, and the flag that changes them
    "pretrained_model_path": "--base", "output_dir": "--out", "seed": "--seeds", "subject": "",
    "train_data.path": "", "cached_latent_dir": "", "validation_steps": "", "validation_data.prompt": "",
    "validation_data.num_inference_steps": "--inference-steps",
    "validation_data.guidance_scale": "--guidance-scale", "validation_data.sampler": "",
    "validation_data.batch_size": "--batch-size"}
CURVE = (1 / 8, 1 / 4, 1 / 2, 1, 3 / 2, 2)   # steps of the curve, as parts of max_train_steps


def main() -> None:
    args = parse_args()
    cells = choose_cells(args.cells)
    check_changes(args.set)   # before anything is made
    study = Study(args.out, args, base_digest(args.base), judges_digest(args),
                  time.monotonic() + 60 * args.minutes)
    if args.list:
        print("\n".join(f"{state_of(study, cell):12} {cell.name:18} {cell.title}" for cell in cells))
        return
    check_finished(study, all_cells())   # the tables also hold cells that were not chosen now
    if args.docs:
        check_document(args.docs, TABLES)
    args.out.mkdir(parents=True, exist_ok=True)
    held = hold(args.out)   # noqa: F841 (the lock lasts as long as this process)
    for number in (signal.SIGINT, signal.SIGTERM):   # a shell script's background jobs ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    failed = []
    try:
        for cell in cells:
            attempt(lambda: run_cell(study, cell), None, failed)   # a cell that fails stays open
    except OutOfTime:
        print("out of time; the same command goes on from here")
    finally:
        write_results(study, {table for cell in cells for table in cell.tables})
    if failed:
        raise UserError(*failed)


def parse_args() -> argparse.Namespace:
    has_gpu = shutil.which("nvidia-smi") is not None
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--out", type=Path, default=Path("results/ablation"), help="folder of cells (default: %(default)s)")
    add("--docs", type=Path, help="document to write the tables into, between their markers")
    add("--cells", default="", metavar="NAME,...", help="tables or cells, in this order (default: all)")
    add("--list", action="store_true", help="print all cells and how far each is, and stop")
    add("--minutes", type=not_negative(float), default=math.inf,
        help="stop after so long; the next call goes on. 0: only write the tables")
    add("--motions", type=names, default=list(world.KEPT_OUT_MOTIONS) if has_gpu else ["dance"],
        help=f"some of {','.join(world.KEPT_OUT_MOTIONS)} (default: dance; all on a GPU)")
    add("--seeds", type=numbers, default=[64, 65] if has_gpu else [64],
        help="of training (default: 64; 64,65 on a GPU)")
    add("--videos", type=positive(int), default=64 if has_gpu else 48,
        help="of each cell (default: 48; 64 on a GPU)")
    add("--base", default="models/puppet-theatre", help="diffusers folder or hub id (default: %(default)s)")
    add("--recognizer", help="as of evaluate_motion.py")
    add("--clip", help="as of evaluate_motion.py")
    add("--inference-steps", type=positive(int), default=25, help="denoising steps (default: 25)")
    add("--guidance-scale", type=positive(float), default=2.0, help="(default: 2)")
    add("--batch-size", type=positive(int), default=4, help="videos rendered at once (default: 4)")
    add("--set", nargs="*", default=[], metavar="key=value", help="changes of config.yaml for every cell")
    args = parser.parse_args()
    if unknown := [motion for motion in args.motions if motion not in world.KEPT_OUT_MOTIONS]:
        parser.error(f"--motions {','.join(unknown)}: choose from {', '.join(world.KEPT_OUT_MOTIONS)}")
    for flag in ("motions", "seeds"):
        if not getattr(args, flag):
            parser.error(f"--{flag} names none. Leave it out for the default.")
    if args.videos < EVERYDAY_SHARE:
        parser.error(f"--videos {args.videos} is below {EVERYDAY_SHARE}, which leaves no everyday prompt")
    return args


def check_changes(changes: list[str]) -> None:
    """Raise UserError if `changes` of the config are wrong, or change what the study sets itself."""
    usual, changed = asdict(load_config(CONFIG)[0]), asdict(load_config(CONFIG, changes)[0])
    problems = []
    for key, flag in OWN_KEYS.items():
        part, _, name = key.rpartition(".")
        there, wanted = (config[part] if part else config for config in (usual, changed))
        if there[name] != wanted[name]:
            problems.append(f"--set {key}: the study sets it itself." + (f" Use {flag}." if flag else ""))
    if problems:
        raise UserError(*problems)


def numbers(text: str) -> list[int]:
    return [fixed_seed(number) for number in names(text)]


def base_digest(base: str) -> str:
    """Return a hash of the base's UNet. Cells of another base must not stand in the same table."""
    from models.base_folder import find_base, weight_files

    return digest_of([file_digest(path) for path in weight_files(find_base(base) / "unet")])[:16]


def judges_digest(args: argparse.Namespace) -> str:
    """Return a hash of recognizer and CLIP, whose scores must not be mixed with those of other models.

    Of a hub id the name is hashed.
    """
    folders = [Path(args.recognizer or RECOGNIZER), Path(args.clip or CLIP)]
    return digest_of([[file_digest(path) for path in sorted(folder.glob("*.safetensors"))] or str(folder)
                      for folder in folders])[:16]


# -------------------------------------------------------------------------------------------------- one cell

def run_cell(study: Study, cell: Cell) -> None:
    """Train, render and measure whatever a cell still lacks."""
    for motion, seed in study.variants(cell):
        folder = study.cell_dir(cell, motion, seed)
        if study.scores_path(cell, motion, seed).is_file():
            continue
        print(f"{cell.name}, {motion}, seed {seed}: {folder}", flush=True)
        write_json(folder / "cell.json", study.facts(cell, motion, seed))
        if cell.name == "base":
            measured = render_prompts(study, motion, study.args.base, base_videos(study, motion), "all")
        elif cell.name == "steps":
            measured = train_cell(study, cell, motion, seed)
        else:
            render_prompts(study, motion, study.args.base, base_videos(study, motion), "all")
            run = train_cell(study, cell, motion, seed)
            measured = render_prompts(study, motion, run, folder / "videos", "all")
        # the videos of "base" are the reference, and "steps" has the reference as its step 0
        has_reference = cell.name in ("base", "steps")
        reference = [] if has_reference else ["--reference-videos", base_videos(study, motion)]
        models = [part for flag in ("recognizer", "clip") if getattr(study.args, flag)
                  for part in (f"--{flag}", getattr(study.args, flag))]
        call(study, folder, "evaluate_motion.py", "-v", measured, "--motion", motion, "--exemplars",
             exemplars_dir(study, motion, max(6, cell.num_exemplars)), *reference, *models)
        copy_whole(measured / "scores.json", study.scores_path(cell, motion, seed))


def train_cell(study: Study, cell: Cell, motion: str, seed: int) -> Path:
    """Return the finished run of a cell, after starting it or resuming the one that was stopped."""
    folder = study.cell_dir(cell, motion, seed)
    runs = sorted((folder / "runs").glob("cell-*"))
    if not runs:
        exemplars = exemplars_dir(study, motion, cell.num_exemplars)
        changes = [f"pretrained_model_path={study.args.base}", f"output_dir={folder / 'runs'}",
                   "subject=cell", f"seed={seed}", f"train_data.path={exemplars}",
                   f"cached_latent_dir={study.out / 'cache'}",
                   *(curve(study, motion) if cell.name == "steps" else ["validation_steps=[]"]),
                   *cell.overrides]
        call(study, folder, "train_model.py", "--config", CONFIG, *study.args.set, *changes)
    elif not (runs[-1] / "motion.safetensors").is_file():
        call(study, folder, "train_model.py", "--resume", runs[-1])
    return sorted((folder / "runs").glob("cell-*"))[-1]


def curve(study: Study, motion: str) -> list[str]:
    """Return the changes of the config that render some prompts at several steps of a longer training."""
    args = study.args
    num_steps = load_config(CONFIG, args.set)[0].max_train_steps
    steps = sorted({max(1, round(share * num_steps)) for share in CURVE})
    return [f"max_train_steps={steps[-1]}", f"validation_steps={steps}", f"checkpointing_steps={steps}",
            f"validation_data.prompt={prompts_path(study, motion, 'some')}",
            f"validation_data.num_inference_steps={args.inference_steps}",
            f"validation_data.guidance_scale={args.guidance_scale}", "validation_data.sampler=base",
            f"validation_data.batch_size={args.batch_size}"]


def render_prompts(study: Study, motion: str, model: str | Path, folder: Path, which: str) -> Path:
    """Render the videos that are missing, and return their folder."""
    args = study.args
    config = load_config(CONFIG, args.set)[0]
    size = f"{config.validation_data.width}x{config.validation_data.height}"
    call(study, folder.parent, "generate_pretrained.py", "-m", model, "-o", folder, "-p",
         prompts_path(study, motion, which), "--steps", args.inference_steps, "--sampler", "base",
         "--guidance-scale", args.guidance_scale, "--batch-size", args.batch_size, "-r", size, "-d",
         config.validation_data.num_frames, "--fps", config.train_data.fps, "--overwrite")
    return folder


def base_videos(study: Study, motion: str) -> Path:
    return study.out / "base" / f"{motion}-{study.args.videos}" / "videos"


def call(study: Study, folder: Path, script: str, *arguments: object) -> None:
    """Run a script of this repository with its output in `folder`/log.txt, and print how long it took."""
    started = time.monotonic()
    run_logged([sys.executable, str(ROOT / script), *map(str, arguments)], folder / "log.txt", study.deadline)
    print(f"  {script} {time.monotonic() - started:.0f} s", flush=True)


# ------------------------------------------------------------------------------------- exemplars and prompts

def exemplars_dir(study: Study, motion: str, num: int) -> Path:
    """Return a folder of the first `num` exemplars of a motion, which are drawn if it is missing."""
    folder = study.out / "exemplars" / f"{motion}-{num}"
    if not (folder / "text.json").is_file():   # the last file to be written
        theatre.write_exemplars(motion, folder, num)
    return folder


def prompts_path(study: Study, motion: str, which: str) -> Path:
    """Return the file of a study's prompts: "all", or "some", a third of them, for the curve over steps."""
    num = study.args.videos if which == "all" else max(EVERYDAY_SHARE, study.args.videos // 3)
    path = study.out / "prompts" / f"{motion}-{num}.txt"
    lines = [f"{1000 + index},{text}" for index, text in enumerate(write_prompts(motion, num))]
    content = "\n".join(lines) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        with replacing(path) as partial:
            partial.write_text(content, encoding="utf-8")
    return path


if __name__ == "__main__":
    run_script(main)
