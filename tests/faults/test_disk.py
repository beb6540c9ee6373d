"""A disk that fills after any number of bytes: what was there stays loadable, the message says what to do."""

import os
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.motion_weights import MotionInfo, save_motion
from tests.faults.test_files import trained_network, values_of
from tests.reliability import Report, count, numbers
from training.checkpoint import load_checkpoint, save_checkpoint
from training.run_folder import checkpoints
from utils import files
from utils.errors import UserError

INFO = MotionInfo("base", "print", ["all"], "sks", 3, 8.0, "", {})


@pytest.fixture
def disk_with(monkeypatch):
    """Return a context in which this process can write so many bytes in all, and the system refuses the next.

    No file may grow beyond what is left, and a file that is done counts.
    """
    flush = files.flush

    @contextmanager
    def limit(num_bytes: int):
        before, left, counted = resource.getrlimit(resource.RLIMIT_FSIZE), [num_bytes], set()

        def flush_and_count(path: Path) -> None:
            flush(path)
            status = os.stat(path)
            written = status.st_ino, status.st_mtime_ns   # numbers of removed files are given to new ones
            if path.is_file() and written not in counted:
                counted.add(written)
                left[0] = max(0, left[0] - status.st_size)
                resource.setrlimit(resource.RLIMIT_FSIZE, (left[0], before[1]))

        monkeypatch.setattr(files, "flush", flush_and_count)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            monkeypatch.setattr(files, "flush", flush)

    return limit


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_save_cut_short_anywhere_keeps_the_checkpoint_before(tmp_path, disk_with):
    report = Report("disks that fill in a save")
    trained, optimizer = trained_network(0)
    before = values_of(trained, optimizer)
    save_checkpoint(tmp_path / "checkpoint-3", trained, optimizer, INFO, "fp16", {"clips": {}})
    save_motion(tmp_path / "motion.safetensors", trained, INFO, "fp16")
    motion = (tmp_path / "motion.safetensors").read_bytes()
    whole = size_of(tmp_path / "checkpoint-3")
    for attempt in range(tries := count(sample=25, full=300)):
        room = whole * attempt // tries
        changed, other = trained_network(attempt + 1)
        for name in ("checkpoint-6", "checkpoint-3"):   # a new one, and one that replaces what is there
            with disk_with(room), pytest.raises(UserError) as caught:
                save_checkpoint(tmp_path / name, changed, other, INFO, "fp16", {"clips": {}})
            (problem,) = caught.value.problems
            assert re.match(rf"{tmp_path / name}: could not be written \(.*\)\. "
                            r"It takes [\d.]+ kB; [\d.]+ \wB are free there", problem), problem
        with disk_with(room % len(motion)), pytest.raises(UserError, match="It takes .* are free there"):
            save_motion(tmp_path / "motion.safetensors", changed, INFO, "fp16")
        assert sorted(os.listdir(tmp_path)) == ["checkpoint-3", "motion.safetensors"]
        assert (tmp_path / "motion.safetensors").read_bytes() == motion
        restored = trained_network(-1)
        load_checkpoint(tmp_path / "checkpoint-3", *restored)
        assert all(map(torch.equal, values_of(*restored), before))
        report.add("refused in a line, what was there loads")
    report.write()
    with disk_with(whole + 1000):
        save_checkpoint(tmp_path / "checkpoint-6", changed, other, INFO, "fp16", {"clips": {}})
    assert len(checkpoints(tmp_path)) == 2


def test_run_on_a_disk_that_fills_stops_in_a_line_and_resumes(run_main, write_config, disk_with, tmp_path):
    """Wherever it fills: in the cache, the config, the log, a sample, a checkpoint or the result."""
    report = Report("disks that fill in a run")
    config = write_config("checkpointing_steps=1", "keep_checkpoints=1", "max_train_steps=2",
                          "validation_steps=2", "validation_data.num_inference_steps=1",
                          "cached_latent_dir=null")   # the cache fills the disk too

    def train(name: str, *arguments: str) -> tuple[int, str]:
        where = f"output_dir={tmp_path / name}"
        code, _, err = run_main("train_model", "--config", config, where, *arguments)
        return code, err

    def run_of(name: str) -> Path | None:
        return next((tmp_path / name).glob("spin-*/config.yaml"), Path()).parent

    assert train("whole")[0] == 0
    whole = load_file(run_of("whole") / "motion.safetensors")
    # what is written in all, the checkpoints that are removed again too
    written = 2 * size_of(run_of("whole") / "checkpoint-2") + size_of(tmp_path / "whole" / "cache")
    for attempt in range(count(sample=1, full=20)):
        name, room = f"full-{attempt}", numbers("disk", attempt).randrange(written)
        with disk_with(room):
            code, err = train(name)
        problems = [line for line in err.splitlines() if line.startswith(str(tmp_path))]
        assert code == 2 and len(problems) == 1 and "Traceback" not in err, err
        has_run = run_of(name) != Path()
        num_saved = len(checkpoints(run_of(name))) if has_run else 0
        assert num_saved <= 1   # the newer one was whole before the older one went
        code, err = train(name, *(["--resume"] if has_run else []))
        assert code == 0, err
        tensors = load_file(run_of(name) / "motion.safetensors")
        assert all(torch.equal(tensors[key], whole[key]) for key in whole)
        report.add(f"refused in a line, resumed {'from a checkpoint' if num_saved else 'from the start'}")
        report.write()
