"""studies/logged_commands.py: commands of hours are logged, and stopped in a way that lets them save."""

import signal
import sys
import time

import pytest

from studies.logged_commands import OutOfTime, run_logged
from utils.errors import UserError

SAVES_WHEN_STOPPED = 'trap "echo saved; exit" TERM; touch "$0"; while :; do sleep 0.02; done'


def test_commands_and_what_they_say_are_added_to_the_log(tmp_path):
    log = tmp_path / "new" / "log.txt"
    for said in ("one", "two"):
        run_logged([sys.executable, "-c", f"print('{said}')"], log)
    lines = log.read_text().splitlines()
    assert [lines[1], lines[3]] == ["one", "two"] and lines[0] == f"$ {sys.executable} -c print('one')"


def test_command_that_fails_is_told_with_the_last_line_of_its_log(tmp_path):
    with pytest.raises(UserError, match="log.txt: -c ended with code 3: no such clip"):
        run_logged([sys.executable, "-c", "print('no such clip'); exit(3)"], tmp_path / "log.txt")


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_at_the_deadline_a_command_is_stopped_and_waited_for(tmp_path, on_ctrl_c):
    """Ctrl-C is ignored by the background jobs of a shell script, and by all that these start."""
    started, log = tmp_path / "started", tmp_path / "log.txt"
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with pytest.raises(OutOfTime):
            run_logged(["sh", "-c", SAVES_WHEN_STOPPED, str(started)], log, time.monotonic() + 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started.exists() and log.read_text().endswith("saved\n")


def test_past_the_deadline_nothing_is_started(tmp_path):
    with pytest.raises(OutOfTime):
        run_logged(["no such command"], tmp_path / "log.txt", time.monotonic())
    assert not (tmp_path / "log.txt").exists()
