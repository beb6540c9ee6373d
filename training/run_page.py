"""run.html in the folder of a run: what it has done so far, in one page that needs no network.

The page is utils/run.html with a JSON block in it. It is written anew while the run goes on, and loads itself
again. Clips and scores are not in the run folder otherwise, so the block keeps them.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rendering.gallery import LIST_BLOCK, list_videos, write_page
from training.clips import Clip
from training.config import Config
from training.config_help import written
from training.config_loading import flat_config
from training.curves import HELD_OUT, LOGGED, Curves, turning_point
from training.run_folder import read_log
from utils.commands import training_command
from utils.errors import UserError
from utils.processes import num_processes
from utils.prompts import with_identifiers

if TYPE_CHECKING:   # it imports torch, and --compare should not wait for that
    from training.plan import Plan

PAGE_NAME = "run.html"
WRITE_EVERY = 25       # steps
WRITE_AFTER = 300      # seconds; for runs whose steps are slow
ALARM_AFTER = 1800     # seconds without a new page; more if the longest time between two pages was long
MOST_SHARE = 0.01      # of the time that may be spent on writing pages between samples
MOST_SETS = 24         # sets of samples that are shown: the first, the last, and some in between
MOST_CLIPS = 60        # of a role
SECONDS_TO_RELOAD = 5, 60


class RunPage:
    """The page of a run that trains."""

    def __init__(self, plan: Plan, run: Path, start: int):
        log = read_log(run)
        self.run, self.config, self.start, self.step = run, plan.config, start, start
        self.curves, self.held_out = Curves(LOGGED, log), Curves(HELD_OUT, log)
        self.clips, self.scores = list_clips(plan, run), None
        self.began = self.written = time.monotonic()   # began: when the first step was done
        self.took = self.longest_silence = 0.0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take a line of the log, and write the page unless that would cost time.

        The page is due at the first step, every WRITE_EVERY steps, and WRITE_AFTER seconds after the last.
        """
        self.curves.add(entry)
        self.held_out.add(entry)
        self.step = entry["step"]
        if self.step == self.start + 1:
            self.began = time.monotonic()
        silence = time.monotonic() - self.written
        is_due = self.step % WRITE_EVERY == 0 or self.step == self.start + 1 or silence > WRITE_AFTER
        if is_due and silence > self.took / MOST_SHARE:
            self.write()

    def keep_fresh(self) -> None:
        """Write the page if it is WRITE_AFTER seconds old, so that no reader takes the run for dead."""
        if time.monotonic() - self.written > WRITE_AFTER:
            self.write()

    def write(self, state: str = "running", reason: str = "") -> None:
        """Write the page. `state`: running, stopped or finished. `reason`: why it stopped, unless it was
        asked to."""
        began = time.monotonic()
        self.longest_silence = max(self.longest_silence, began - self.written)
        self.scores = read_page(self.run).get("scores", self.scores)   # they may arrive while the run goes on
        write_page(self.run / PAGE_NAME, PAGE_NAME, {
            "title": self.run.name, **self._state(state, reason),
            "runs": [curves_of(self.run.name, self.curves, self.held_out)],
            "samples": list_samples(self.run, self.config.placeholder_token), "clips": self.clips,
            "scores": self.scores, "config": shown_config(self.config)})
        self.written = time.monotonic()
        self.took = self.written - began

    def _state(self, state: str, reason: str) -> dict[str, Any]:
        """Return where the run stands, when it will be through, and how to go on."""
        num_timed, last = self.step - self.start - 1, self.config.max_train_steps
        # The mean includes the time for samples and checkpoints, but only after the first step. Before it are
        # the samples of the base, and the first step itself may take long, because GPUs warm up.
        seconds = (time.monotonic() - self.began) / num_timed if num_timed > 0 else None
        shortest, longest = SECONDS_TO_RELOAD
        # the page is read anywhere, and paths in a config are relative to the folder that the run began in
        resume = (f"cd {shlex.quote(os.getcwd())} && "
                  + training_command("--resume", self.run, num_processes=num_processes()))
        return {"state": state, "reason": reason, "step": self.step, "max_train_steps": last,
                "written": round(time.time()), "seconds_a_step": seconds and float(f"{seconds:.3g}"),
                "seconds_left": seconds and round(seconds * (last - self.step)),
                "silent_after": max(ALARM_AFTER, round(3 * self.longest_silence)),
                "reload": round(min(max(shortest, (seconds or 0) * WRITE_EVERY / 2), longest)),
                "resume": resume}


@contextmanager
def watched(plan: Plan, run: Path, start: int, is_writer: bool) -> Iterator[RunPage | None]:
    """Give the page of a run, which is written at the start, and at the end with how the run ended.

    Processes that do not write get None.
    """
    page = RunPage(plan, run, start) if is_writer else None
    if page is None:
        yield None
        return
    page.write()
    try:
        yield page
    except BaseException as stop:
        with suppress(UserError):   # what stopped the run says more
            page.write("stopped", str(stop) if isinstance(stop, UserError) else "")
        raise
    page.write("finished")


def curves_of(name: str, curves: Curves, held_out: Curves) -> dict[str, Any]:
    """Return the curves of a run as the page draws them."""
    columns = held_out.columns()
    return {"name": name, "length": curves.length, "curves": curves.columns(), "held_out": columns,
            "turn": turning_point(columns["step"], columns.get(HELD_OUT[0], []))}


def list_samples(run: Path, token: str) -> list[dict[str, Any]]:
    """Return [{step, folder, videos: [{file, prompt, seed}]}], with the steps in order.

    `token`: the words that replaced V*, V2*, ..., which are shown as V*, V2*, ... again.
    """
    sets = {}
    for video in list_videos(run / "samples") if (run / "samples").is_dir() else ():
        folder, _, name = video["file"].rpartition("/")
        if folder.startswith("step_") and folder[5:].isdecimal():
            entry = {"file": quote(name), "prompt": with_identifiers(video["prompt"], token),
                     "seed": video["seed"]}
            sets.setdefault((int(folder[5:]), folder), []).append(entry)
    listed = [{"step": step, "folder": f"samples/{quote(folder)}", "videos": videos}
              for (step, folder), videos in sorted(sets.items())]
    num, last = min(len(listed), MOST_SETS), len(listed) - 1
    return [listed[round(index * last / (num - 1))] for index in range(num)] if num > 1 else listed


def list_clips(plan: Plan, run: Path) -> list[dict[str, Any]]:
    """Return {role, held_out, num, clips} for each part of the data, with its first MOST_CLIPS clips."""
    parts = [("exemplar", False, plan.exemplars), ("regularization", False, plan.regularization),
             *((role, True, clips) for role, clips in plan.held_out.items())]
    token = plan.config.placeholder_token
    return [{"role": role, "held_out": is_held_out, "num": len(clips),
             "clips": [describe_clip(clip, run, token) for clip in clips[:MOST_CLIPS]]}
            for role, is_held_out, clips in parts if clips]


def describe_clip(clip: Clip, run: Path, token: str) -> dict[str, Any]:
    """Return what the page shows of a clip. Its address is relative to the run, so that both can move."""
    try:
        url = quote(Path(os.path.relpath(clip.path.resolve(), run.resolve())).as_posix())
    except ValueError:   # on another drive
        url = clip.path.resolve().as_uri()
    captions = [with_identifiers(caption, token) for caption in clip.captions]
    return {"name": clip.path.name, "url": url, "captions": captions, "size": list(clip.size),
            "native_size": [clip.info.width, clip.info.height], "frames": len(clip.frames),
            "fps": round(clip.fps, 3), "window": clip.window, "windows": clip.num_windows,
            "remarks": list(clip.remarks)}


def shown_config(config: Config) -> dict[str, str]:
    """Return {key: value as in YAML}, without resume_from_checkpoint, which says nothing of the training."""
    return {key: written(value) for key, value in flat_config(config).items()
            if key != "resume_from_checkpoint"}


def read_page(run: Path) -> dict[str, Any]:
    """Return the JSON block of the run's page; nothing if there is no page, or another one."""
    before, after = LIST_BLOCK.split("{}")
    try:
        text = (run / PAGE_NAME).read_text(encoding="utf-8")
        content = json.loads(text.partition(before)[2].partition(after)[0])
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def show_scores(run: Path, scores: dict[str, Any] | None) -> Path | None:
    """Put the scores of a run's samples on its page, and return its path; None if the run has no page.

    `scores`: {step, reason, panels: [{title, is_share, curves: [{label, points: [step, mean, low, high]}]}]};
    with None, there are none on it any more.
    """
    content = read_page(run)
    if not content:
        return None
    samples = list_samples(run, content["config"]["placeholder_token"])
    write_page(run / PAGE_NAME, PAGE_NAME, {**content, "scores": scores, "samples": samples})
    return run / PAGE_NAME
