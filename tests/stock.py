"""Programs of people who have diffusers and do not have this project, each in a process of its own.

The processes are forked from one that has imported diffusers and computed nothing, because importing it takes
seconds. A program runs in a folder where this project is not found.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

FORKS = """
import json, os, sys, traceback
import torch
from diffusers import AnimateDiffPipeline, TextToVideoSDPipeline
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        for number, name in (1, "stdout"), (2, "stderr"):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT), number)
        os.chdir(job["folder"])
        sys.argv[1:] = job["arguments"]
        code = 0
        try:
            exec(job["program"], {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Stock:
    """Runs programs; started by the first of them."""

    def __init__(self, folder: Path):
        self.folder, self.server = folder, None

    def run(self, program: str, *arguments: object, folder: Path) -> tuple[str, str]:
        """Run a program in a folder, with as many threads as here, and return its stdout and stderr."""
        if self.server is None:
            environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
            environment.pop("PYTHONPATH", None)
            self.server = subprocess.Popen([sys.executable, "-c", FORKS], cwd=self.folder, env=environment,
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = {name: self.folder / name for name in ("stdout", "stderr")}
        for path in said.values():
            path.unlink(missing_ok=True)
        print(json.dumps({"program": program, "arguments": list(map(str, arguments)), "folder": str(folder),
                          **{name: str(path) for name, path in said.items()}}),
              file=self.server.stdin, flush=True)
        code = self.server.stdout.readline().strip()
        out, err = (path.read_text() for path in said.values())
        assert code == "0", err
        return out, err

    def close(self) -> None:
        if self.server is not None:
            self.server.communicate()
