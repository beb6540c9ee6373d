"""The folder of studies/ablation.py: where cells lie, how they were made, how far they are, and results."""

import argparse
import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from evaluation.statistics import Estimate
from studies.ablation_cells import TABLES, Cell, all_cells
from studies.ablation_report import (
    Row,
    fill_in,
    markdown_table,
    measured_titles,
    plot_rows,
    pool,
    section_of,
)
from utils.commands import ROOT
from utils.errors import UserError
from utils.files import copy_whole, file_digest, replacing, write_json

CONFIG = ROOT / "config.yaml"


@dataclass(frozen=True)
class Study:
    """What all cells have in common."""

    out: Path
    args: argparse.Namespace
    base_digest: str
    judges_digest: str     # of recognizer and CLIP
    deadline: float        # by time.monotonic()

    def cell_dir(self, cell: Cell, motion: str, seed: int) -> Path:
        return self.out / "cells" / cell.name / f"{motion}-seed{seed}"

    def scores_path(self, cell: Cell, motion: str, seed: int) -> Path:
        """Return the file of a finished cell's scores. Each pair of recognizers has one of its own."""
        return self.cell_dir(cell, motion, seed) / f"scores-{self.judges_digest}.json"

    def variants(self, cell: Cell) -> list[tuple[str, int]]:
        """Return the motions and seeds of a cell. The base is not trained, so it has one seed."""
        seeds = self.args.seeds[:1] if cell.name == "base" else self.args.seeds
        return [(motion, seed) for motion in self.args.motions for seed in seeds]

    def facts(self, cell: Cell, motion: str, seed: int) -> dict:
        """Return everything that a cell's weights and videos depend on."""
        args = self.args
        return {"cell": cell.name, "overrides": [*cell.overrides, *args.set], "exemplars": cell.num_exemplars,
                "motion": motion, "seed": seed, "videos": args.videos, "base": self.base_digest,
                "recipe": file_digest(CONFIG), "inference_steps": args.inference_steps,
                "guidance_scale": args.guidance_scale}


def hold(out: Path) -> FileLock:
    """Lock the cells for this process. Raises UserError if another process has locked them."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{out}: another process works on its cells. Wait for it, or choose another "
                        f"--out.") from None
    return lock


def state_of(study: Study, cell: Cell) -> str:
    """Return how far a cell is: open, under way or finished."""
    variants = study.variants(cell)
    if all(study.scores_path(cell, *variant).is_file() for variant in variants):
        return "finished"
    return "under way" if any(study.cell_dir(cell, *variant).exists() for variant in variants) else "open"


def check_finished(study: Study, cells: list[Cell]) -> None:
    """Raise UserError if existing cells were made in another way, which one table must not mix."""
    problems = []
    for cell in cells:
        for motion, seed in study.variants(cell):
            path, wanted = study.cell_dir(cell, motion, seed) / "cell.json", study.facts(cell, motion, seed)
            is_made = any(path.parent.glob("scores-*.json")) or (path.parent / "runs").exists()
            there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and is_made else wanted
            other = [key for key in wanted if there.get(key) != wanted[key]]
            if other:
                problems.append(f"{path.parent}: was made with another {', '.join(other)}. "
                                f"Remove it, or choose another --out.")
    if problems:
        raise UserError(*problems)


def write_results(study: Study, tables: Collection[str]) -> None:
    """Write all tables and plots into the folder, and `tables` into the document. Missing cells are open.

    A table of the document stays as it is if it has measured rows that this folder lacks, also if those rows
    are of another base.
    """
    sections, results, docs = {}, {}, study.args.docs
    for table, title in TABLES.items():
        rows = [row for cell in all_cells() if table in cell.tables for row in rows_of(study, cell, table)]
        results[table] = {"command": command_for(study, table), "of": described(study), "rows": [
            {"title": row.title, "num_videos": row.num_videos,
             "measures": None if row.measures is None else plain(row.measures),
             "trainings": list(map(plain, row.trainings))} for row in rows]}
        has_plot = plot_rows(study.out / f"{table}.png", rows, title)
        sections[table] = f"    {command_for(study, table)}\n\n{described(study)}\n\n{markdown_table(rows)}"
        if not docs or table not in tables:
            continue
        there = section_of(docs, table)
        lost = measured_titles(there) - {row.title for row in rows if row.measures}
        if lost:
            print(f"{docs}: table {table} stays as it is: {study.out} lacks its {', '.join(sorted(lost))}")
            continue
        picture = ""
        if has_plot:
            copy_whole(study.out / f"{table}.png", docs.parent / f"ablation_{table}.png")
            picture = f"\n\n![{title}](ablation_{table}.png)"
        fill_in(docs, {table: sections[table] + picture})
    write_json(study.out / "results.json", results)
    with replacing(study.out / "results.md") as partial:
        text = "\n\n".join(f"## {TABLES[table]}\n\n{section}" for table, section in sections.items())
        partial.write_text(text + "\n", encoding="utf-8")
    print(f"tables: {docs or study.out / 'results.md'}")


def plain(measures: dict[str, Estimate]) -> dict[str, dict]:
    """Return measures as results.json has them."""
    return {name: vars(found) for name, found in measures.items()}


def rows_of(study: Study, cell: Cell, table: str) -> list[Row]:
    """Return the rows of a cell: one, or one for each step of the curve. An unfinished cell is open."""
    by_seed: dict[int, list[Path]] = {}
    for motion, seed in study.variants(cell):
        by_seed.setdefault(seed, []).append(study.scores_path(cell, motion, seed))
    files = [path for paths in by_seed.values() for path in paths]
    if not files or not all(path.is_file() for path in files):
        return [Row(cell.title_in(table), None, 0)]

    def row(title: str, step: int | None = None) -> Row:
        trainings = [pool(paths, step)[0] for paths in by_seed.values()] if len(by_seed) > 1 else []
        return Row(title, *pool(files, step), step, trainings)

    if cell.name != "steps":
        return [row(cell.title_in(table))]
    document = json.loads(files[0].read_text(encoding="utf-8"))
    steps = sorted({group["step"] for group in document["groups"]})
    return [row(f"step {step}" if step else "untuned base", step) for step in steps]


def command_for(study: Study, table: str) -> str:
    """Return the command that makes a table."""
    args = study.args
    command = ["python", "-m", "studies.ablation", "--cells", table, "--motions", ",".join(args.motions),
               "--seeds", ",".join(map(str, args.seeds)), "--videos", str(args.videos)]
    for flag, usual in (("base", "models/puppet-theatre"), ("recognizer", None), ("clip", None),
                        ("inference-steps", 25), ("guidance-scale", 2.0)):
        value = getattr(args, flag.replace("-", "_"))
        command += [f"--{flag}", str(value)] if value != usual else []
    command += ["--docs", "docs/results.md"]
    return shlex.join(command + (["--set", *args.set] if args.set else []))


def described(study: Study) -> str:
    """Return the line above a table: its motions, seeds and base."""
    args = study.args
    spread = ("" if len(args.seeds) < 2 else
              " Intervals are those of the prompts; the trainings' lowest and highest mean stands behind.")
    return (f"Motions: {', '.join(args.motions)}. Seeds of training: {', '.join(map(str, args.seeds))}. Base "
            f"`{args.base}`, UNet {study.base_digest}.{spread}")
