"""Our scripts as real processes that can be killed at any moment, or at a chosen file operation.

They are forked from one process that has imported everything and computed nothing, which saves each of them
the seconds that importing takes. `Process` is a script at work; an `Aim` makes it say when it has come to a
certain file operation, and stop dead there.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.conftest import ROOT

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")
PRELOADED = ["training.loop", "training.plan", "training.validation", "accelerate", "utils.decoder",
             "PIL.Image", "training.step", "train_model", "generate_pretrained", "evaluate_motion",
             "evaluation.summary", "evaluation.recognizing", "imageio.v2", "tests.processes"]


@dataclass(frozen=True)
class Aim:
    """A file operation: the one of this number, counted from 1, on a path that contains `place`."""

    place: str
    number: int
    stops: bool = True    # stop there until killed; else go on, to be killed a moment later


JUST_COUNT = Aim("/", 0)


class Process:
    """A script at work, in a process group of its own, with more of an environment, its output in a file."""

    def __init__(self, script: str, arguments: list, output: Path, aim: Aim | None = None,
                 environment: dict[str, str] | None = None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        os.environ["OMP_NUM_THREADS"] = "1"   # for the process that the others are forked from
        self.output, (self.channel, end) = output, context.Pipe()
        arguments = [str(argument) for argument in arguments]
        self.process = context.Process(target=_run, args=(script, arguments, str(output), aim, end,
                                                          environment or {}))
        self.process.start()
        end.close()
        self.pid = self.process.pid

    def send(self, number: int) -> None:
        """Send a signal to the process and those it has started, as a terminal does."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        self.process.kill()   # alone: what it has started must end by itself
        self.wait()

    def wait(self, seconds: float = 300) -> int:
        """Return the exit code; minus the signal's number where one ended it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still runs after {seconds} s: {self.said()}"
        return self.process.exitcode

    def reached(self, seconds: float = 300) -> bool:
        """Wait until the process is at the operation aimed at; False if it ends or `seconds` pass before."""
        try:
            return self.channel.poll(seconds) and self.channel.recv() == "here"
        except EOFError:
            return False

    def operations(self) -> list[str]:
        """Return the paths of all file operations, after a process that was to JUST_COUNT has ended."""
        return self.channel.recv()

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def run_in_two(script: str, arguments: list, folder: Path, launched_by: str = "ddp") -> tuple[int, str]:
    """Run a script in two processes, as `accelerate launch` with a config of configs/accelerate does. Return
    the larger exit code, and what both have said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {**_told_by_accelerate(launched_by), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [Process(script, arguments, folder / f"{launched_by}_{rank}.txt",
                         environment={**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    return max(process.wait() for process in processes), "".join(process.said() for process in processes)


def _told_by_accelerate(launched_by: str) -> dict[str, str]:
    """Return the variables that accelerate sets for the processes of a launch."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    config = ROOT / "configs" / "accelerate" / f"{launched_by}.yaml"
    given, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(
        ["--config_file", str(config), "--num_processes", "2", "script.py"]))
    return {name: value for name, value in prepare_multi_gpu_env(given).items()
            if os.environ.get(name) != value}


def _run(script: str, arguments: list[str], output: str, aim: Aim | None, channel: Connection,
         environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    os.chdir(ROOT)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)   # the process all are forked from ignores it
    import torch

    from utils.errors import run_script

    torch.set_num_threads(1)
    sys.argv = [f"{script}.py", *arguments]
    seen = _watch(aim, channel) if aim else []
    try:
        run_script(importlib.import_module(script).main)
    finally:
        if aim == JUST_COUNT:
            channel.send(list(seen))


def _watch(aim: Aim, channel: Connection) -> list[str]:
    """Collect the paths of operations in the list returned; at the one aimed at, say so."""
    seen = []

    def hook(event: str, arguments: tuple) -> None:
        if event not in OPERATIONS or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if aim.place in os.fspath(arguments[0]):
            seen.append(os.fspath(arguments[0]))
            if len(seen) == aim.number:
                channel.send("here")
                if aim.stops:
                    time.sleep(1000)

    sys.addaudithook(hook)
    return seen
