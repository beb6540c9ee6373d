"""The decoder is a process of its own: what happens to it is said of the file, and the program goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, draw_frames, write_clip
from tests.filmed import ffmpeg
from utils import decoder
from utils.errors import UserError
from utils.video import probe, read_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", num_frames=5, width=96, height=64)


@pytest.fixture
def endless(tmp_path) -> Path:
    """A file that is never read to its end: a pipe that nobody writes to."""
    path = tmp_path / "endless.mp4"
    os.mkfifo(path)
    return path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and "Z" not in state


def wait_until(claim, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def test_frames_are_decoded_elsewhere(clip):
    frames = read_frames(clip, range(5))
    assert np.abs(frames.astype(int) - draw_frames(5, 96, 64)).mean() < 6 and frames.flags.writeable
    assert decoder._free[0][1].pid != os.getpid() and "decord" not in sys.modules


def test_decoders_at_rest_can_be_ended(clip):
    read_frames(clip, [0])
    resting = [process for _, process in decoder._free]
    decoder.end_free_decoders()
    assert resting and all(process.wait(20) for process in resting) and not decoder._free
    assert len(read_frames(clip, range(5))) == 5   # by a new one


def test_processes_of_a_launch_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert decoder.num_cores() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert decoder.num_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert decoder.num_cores() == 1


def test_file_that_hangs_the_decoder_is_named_in_bounded_time(clip, endless, monkeypatch):
    read_frames(clip, [0])
    monkeypatch.setattr(decoder, "SECONDS", 1)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"endless.mp4: takes longer than 1 s to decode. Remove it"):
        read_frames(endless, [0])
    assert time.monotonic() - began < 10
    monkeypatch.undo()
    assert len(read_frames(clip, range(5))) == 5   # by a new decoder


def test_file_that_crashes_the_decoder_is_named(clip, endless):
    read_frames(clip, [0])
    threading.Timer(0.3, os.kill, (decoder._free[0][1].pid, signal.SIGSEGV)).start()
    with pytest.raises(UserError, match=r"endless.mp4: takes the decoder down. Remove it, or re-encode"):
        read_frames(endless, [0])
    assert len(read_frames(clip, range(5))) == 5


def test_package_that_is_missing_is_named_and_not_the_file(clip, tmp_path, monkeypatch):
    (tmp_path / "decord.py").write_text("raise ModuleNotFoundError(\"No module named 'decord'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))   # of the decoders that are started from now on
    for wanted, said in ((lambda name: name, "No module named 'decord'"),
                         (lambda name: None, "av is missing")):
        monkeypatch.setattr(decoder, "find_spec", wanted)
        monkeypatch.setattr(decoder, "_free", [])
        with pytest.raises(UserError, match=rf"{said}.*pip install -r requirements.txt") as caught:
            decoder.decode(clip, [0], is_plain=True)
        assert "Remove it" not in str(caught.value)


def test_decoder_ends_with_a_process_that_is_killed(clip):
    code = ("import sys, time; from pathlib import Path; from utils import decoder, video\n"
            "video.probe(Path(sys.argv[1])); print(decoder._free[0][1].pid, flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, clip], cwd=ROOT, stdout=subprocess.PIPE)
    pid = int(process.stdout.readline())
    assert is_alive(pid)
    process.kill()
    process.wait()
    assert wait_until(lambda: not is_alive(pid))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """90,000 frames of 512x512, which take minutes to decode and 2 MB."""
    folder = tmp_path_factory.mktemp("long")
    ffmpeg("-f", "lavfi", "-i", "color=s=512x512:r=30:d=10", "-preset", "ultrafast", folder / "a.mkv")
    ffmpeg("-stream_loop", 300, "-i", folder / "a.mkv", "-c", "copy", folder / "long.mkv")
    return folder / "long.mkv"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_no_decoder_goes_on_with_a_long_clip_once_the_program_is_stopped(long_clip, stop):
    code = ("import signal, sys; from pathlib import Path; from training.looking import look_at_clips\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"   # in background it is ignored
            "look_at_clips([Path(sys.argv[1])], None)")
    process = subprocess.Popen([sys.executable, "-c", code, long_clip], cwd=ROOT, stderr=subprocess.DEVNULL)

    def decoders() -> list[str]:
        return subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True,
                              text=True).stdout.split()
    assert wait_until(decoders)
    time.sleep(1)   # until it decodes
    (pid,) = map(int, decoders())
    process.send_signal(stop)
    try:
        assert process.wait(10) != 0 and wait_until(lambda: not is_alive(pid), seconds=10)
    finally:
        process.kill()


def test_file_that_changes_is_opened_anew(clip, tmp_path):
    path = write_clip(tmp_path / "a.mp4", num_frames=5, width=96, height=64)
    assert probe(path).num_frames == 5
    write_clip(path, num_frames=7, width=96, height=64)
    assert probe(path).num_frames == 7


def test_file_that_decord_gives_up_is_read_all_the_same(clip, monkeypatch):
    """decord waits for its own threads only so many times, so it gives up any file on a busy machine."""
    assert probe(clip).is_plain
    before = read_frames(clip, range(5))
    monkeypatch.setattr(decoder, "_free", [])
    monkeypatch.setenv("DECORD_EOF_RETRY_MAX", "0")
    assert np.array_equal(decoder.decode(clip, list(range(5)), is_plain=True), before)


@pytest.mark.parametrize("width", [64, 96])   # below 80 pixels another decoder is used
def test_damage_that_is_decoded_all_the_same_is_told(tmp_path, width):
    path = write_clip(tmp_path / "a.mp4", num_frames=20, width=width, height=64)
    read_frames(path, range(20))
    assert probe(path).damage == ""
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 40] = b"\x55" * 40
    path.write_bytes(content)
    read_frames(path, range(20))
    assert probe(path).damage != ""
