"""Long runs: memory and open files stay where they are. And runs side by side share the cache."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.processes import Process
from tests.reliability import IS_FULL, Report, count
from training.run_folder import read_log

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
PAGE = os.sysconf("SC_PAGE_SIZE")
# between the second quarter and the last; a leak of one tiny latent per step is more, as is one of a file per
# video: of a few videos one may be open for writing, through pipes, whenever one looks
GROWTH, MORE_FILES = 30e6, 8


class Watch:
    """What a process holds while it works: [(progress, bytes resident, open files)]."""

    def __init__(self, process: Process, progress):
        self.seen = []
        while process.process.exitcode is None:
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                num_files = len(os.listdir(f"/proc/{process.pid}/fd"))
            except (OSError, IndexError):
                break
            if not num_files:   # it has just ended
                break
            self.seen.append((progress(), pages * PAGE, num_files))
            time.sleep(0.05)
        assert process.wait() == 0, process.said()

    def held(self, start: float, stop: float) -> tuple[float, int]:
        """Return the most bytes and the fewest open files between two parts of the whole way, its end, where
        a process closes what it has, left out."""
        whole = max(done for done, _, _ in self.seen)
        part = [entry for entry in self.seen
                if start * whole <= entry[0] <= stop * whole and 0 < entry[0] < whole]
        return max(size for _, size, _ in part), min(number for _, _, number in part)

    def check(self, report: Report) -> None:
        (early, early_files), (late, late_files) = self.held(0.25, 0.5), self.held(0.75, 1)
        report.figures |= {"MB resident, second quarter": round(early / 1e6, 1),
                           "MB resident, last quarter": round(late / 1e6, 1),
                           "open files": [early_files, late_files]}
        report.write()
        assert late - early < GROWTH and late_files <= early_files + MORE_FILES, report.figures


@pytest.fixture
def base(tiny_base) -> Path:
    """The random base; for the full counts RELIABILITY_BASE can name another, such as the bundled one."""
    named = os.environ.get("RELIABILITY_BASE")
    return ROOT / named if IS_FULL and named else tiny_base


def test_training_holds_no_more_in_the_end(write_config, base, tmp_path):
    steps, report = count(sample=20, full=2_000), Report("a long training run")
    config = write_config(f"max_train_steps={steps}", f"checkpointing_steps={steps // 4}",
                          f"validation_steps={steps // 4}", "keep_checkpoints=1",
                          f"pretrained_model_path={base}")
    process = Process("train_model", ["--config", config], tmp_path / "output.txt")

    def progress() -> int:
        return next((len(path.read_text().splitlines())
                     for path in (tmp_path / "results").glob("spin-*/log.jsonl")), 0)

    watch = Watch(process, progress)
    (run,) = (tmp_path / "results").glob("spin-*")
    assert len(read_log(run)) == steps
    report.outcomes = {"steps": steps}
    report.figures["base"] = base.name
    watch.check(report)


def test_generation_holds_no_more_in_the_end(base, tmp_path):
    number, report = count(sample=40, full=500), Report("a long list of prompts")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{seed},a cat doing the V* spin, take {seed}\n" for seed in range(number)))
    process = Process("generate_pretrained",
                      ["-m", base, "-p", prompts, "-o", tmp_path / "videos", "-r", "64", "-d", "4",
                       "--steps", "1", "--batch-size", "2"], tmp_path / "output.txt")
    watch = Watch(process, lambda: len(list((tmp_path / "videos").glob("[!.]*.mp4"))))
    assert len(list((tmp_path / "videos").glob("[!.]*.mp4"))) == number
    report.outcomes = {"videos": number}
    report.figures["base"] = base.name
    watch.check(report)


def test_runs_started_at_once_share_the_cache(write_config, tmp_path):
    """Neither waits for the other, both encode what is not there yet, and the last to finish wins."""
    report = Report("runs started at once")
    for attempt in range(count(sample=1, full=10)):
        where = tmp_path / f"results-{attempt}"
        config = write_config(f"output_dir={where}", "max_train_steps=1", "checkpointing_steps=null",
                              "cached_latent_dir=null")
        processes = [Process("train_model", ["--config", config], tmp_path / f"{number}.txt")
                     for number in range(2)]
        assert [process.wait() for process in processes] == [0, 0], [one.said() for one in processes]
        first, second = (load_file(path) for path in where.glob("spin-*/motion.safetensors"))
        assert all(torch.equal(first[name], second[name]) for name in first)
        cached = {path: path.stat().st_mtime_ns for path in (where / "cache").iterdir()}
        # five clips, their captions, what was found in each clip, and nothing half-written
        assert sorted(path.suffix for path in cached) == [".json"] * 5 + [".safetensors"] * 10
        third = Process("train_model", ["--config", config], tmp_path / "3.txt")
        assert third.wait() == 0 and {path: path.stat().st_mtime_ns for path in cached} == cached
        report.add("two runs, the same weights; a third encodes nothing")
    report.write()
