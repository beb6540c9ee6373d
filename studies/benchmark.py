"""Measures what training and rendering cost on this machine: the plain way against the fast way.

    python -m studies.benchmark                                   # everything; 20 minutes on 2 quiet cores
    python -m studies.benchmark --quick                           # plain against all on, a minute or two
    python -m studies.benchmark --cases small --parts steps memory

Plain is the usual way of such programs: both encoders in the loop, float32, activations recomputed,
diffusers' own forms of the layers, every tensor handed to the optimizer. The changes that make it
train_model.py's way are added one by one. Each variant has its own process, and the processes take turns, so
that other load on the machine slows all variants alike. benchmark.md and benchmark.json in --output always
hold the parts that are finished, and name each part that failed with its reason.
"""

import argparse
import functools
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from rendering.sampling import Rendering
from studies.benchmark_cases import CASES, NUM_FRAMES, Setting, groups_in_turn, prepare
from studies.benchmark_report import benchmark_report
from studies.run_costs import cache_cost, checkpoint_cost, clip_costs, video_costs
from studies.step_costs import (
    ALL_ON,
    LADDER,
    OTHERS,
    PEAK_IS_FORGOTTEN_BY,
    PLAIN,
    matmul_rate,
    set_up_variant,
    step_flop,
    step_memory,
    step_phases,
    timed_step,
)
from training.config_loading import load_config
from training.plan import make_plan
from training.run_folder import create_run, read_log
from training.setup import Training
from utils.commands import ROOT
from utils.errors import UserError, plain_errors, run_script
from utils.files import replacing, write_json
from utils.prompt_lists import read_prompts

PROMPTS = str(ROOT / "data" / "prompts" / "puppet_dance.txt")
NUM_VIDEOS, BATCH_SIZES = 16, (1, 8)
TUNED = (["cross"], ["temp_convs"], ["cross", "temporal", "temp_convs"], ["all"])
NUM_PROCESSES = (1, 2, 4)
# freed memory then leaves the process at once, and the allocator's reserves are not measured
RETURNS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def main() -> None:
    args = parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    command = shlex.join(["python", "-m", "studies.benchmark", *sys.argv[1:]])
    results = {"command": command, "machine": machine(), "cases": {}}
    with tempfile.TemporaryDirectory() as work:
        for name in args.cases:
            setting = prepare(name, Path(work))
            parts = results["cases"][name] = {"what": CASES[name].what}
            for part in args.parts:
                began, failed = time.perf_counter(), {}
                with survived(failed, part):
                    parts[part] = PARTS[part](name, setting, args.quick)
                if failed:
                    parts[part] = {"failed": failed}
                print(f"{name}: {part}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
                write_json(args.output / "benchmark.json", results)
                with replacing(args.output / "benchmark.md") as partial:
                    partial.write_text(benchmark_report(results), encoding="utf-8")
    print(benchmark_report(results))


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    usual = ["bundled", "small", *["zeroscope"] * torch.cuda.is_available()]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=usual, metavar="CASE",
                        help=f"of {', '.join(CASES)} (default: {' '.join(usual)})")
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART",
                        help=f"of {', '.join(PARTS)} (default: all; with --quick steps, memory)")
    parser.add_argument("--quick", action="store_true", help="three rounds, and only plain against all on")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    args = parser.parse_args()
    args.parts = args.parts or (["steps", "memory"] if args.quick else list(PARTS))
    return args


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")   # of Linux, where platform.processor() is empty
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text(encoding="utf-8").splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "cpu": names[0] if names else platform.machine(), "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "torch": torch.__version__, "python": platform.python_version()}


# ------------------------------------------------------------------------------------ parts of a measurement

def measure_steps(name: str, setting: Setting, quick: bool) -> dict[str, Any]:
    case = CASES[name]
    variants = [PLAIN, ALL_ON] if quick else [*LADDER, *OTHERS]
    rounds = min(3, case.rounds) if quick else case.rounds
    taken, phases, failed = {variant.title: [] for variant in variants}, {}, {}
    for group in groups_in_turn(case, variants):
        with ExitStack() as stack:
            workers = {variant: stack.enter_context(worker()) for variant in group}
            for turn in range(rounds + 1):
                for variant, call in workers.items():
                    if variant.title not in failed:
                        with survived(failed, variant.title):
                            taken[variant.title].append(
                                call(of_training, timed_step, replace(setting, variant=variant), turn))
            for variant, call in workers.items():   # apart from the times, since a profiler slows a step down
                if variant.title not in failed:
                    with survived(failed, f"the shares of {variant.title}"):
                        phases[variant.title] = call(of_training, step_phases,
                                                     replace(setting, variant=variant), rounds + 1)
    flop, rates = None, {}
    with worker() as call, survived(failed, "counting operations"):
        # two passes have the same operations and take less memory
        flop = call(of_training, step_flop, replace(setting, variant=replace(ALL_ON, apart=True)))
    with worker() as call, survived(failed, "large matrix products"):
        rates = {precision: call(matmul_rate, precision) for precision in ("no", "bf16")}
    taken = {title: steps for title, steps in taken.items() if title not in failed}
    return {"taken": taken, "phases": phases, "failed": failed, "flop": flop, "rates": rates,
            "precision": {variant.title: variant.precision for variant in variants}}


def measure_memory(name: str, setting: Setting, quick: bool) -> dict[str, Any]:
    if not (torch.cuda.is_available() or PEAK_IS_FORGOTTEN_BY.exists()):
        print("memory: left out, as only Linux and GPUs tell the peak of a step.", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as work:
        warm = prepare("tiny", Path(work))
        found, failed = {}, {}
        for variant in (PLAIN, ALL_ON) if quick else (PLAIN, ALL_ON, *OTHERS):
            with worker(RETURNS_MEMORY) as call, survived(failed, variant.title):
                found[variant.title] = call(memory, replace(warm, variant=variant),
                                            replace(setting, variant=variant))
        return {"peaks": found, "failed": failed}


def measure_surroundings(name: str, setting: Setting, quick: bool) -> dict[str, Any]:
    with worker() as call:
        return {"cache": call(of_training, cache_cost, setting),
                "checkpoint": call(of_training, checkpoint_cost, setting)}


def measure_videos(name: str, setting: Setting, quick: bool) -> dict[str, Any] | None:
    how = CASES[name].videos
    if how is None:
        return None
    how, rounds = (replace(how, num_inference_steps=4), 1) if quick else (how, 3)
    with worker() as call:
        return {"num": NUM_VIDEOS, "steps": how.num_inference_steps,
                "taken": call(videos, setting, how, rounds)}


def measure_growth(name: str, setting: Setting, quick: bool) -> dict[str, Any]:
    def with_changes(*changes: str) -> dict[str, float]:
        changed = replace(setting, overrides=(*setting.overrides, *changes))
        with worker() as call:
            seconds = [call(of_training, timed_step, changed, turn)["seconds"] for turn in range(4)]
        return {"seconds": statistics.median(seconds[1:])}

    growth, failed = {"frames": {}, "tuned": {}}, {}
    for num in NUM_FRAMES:
        with survived(failed, f"{num} frames"):
            growth["frames"][num] = with_changes(
                f"train_data.n_sample_frames={num}", "train_data.class_path=null", "train_batch_size=1",
                "train_data.allow_short_clips=true")
    for groups in map(",".join, TUNED):
        with survived(failed, f"training {groups}"):
            growth["tuned"][groups.replace(",", ", ")] = with_changes(f"trainable_modules=[{groups}]")
    if not CASES[name].is_random:
        with worker() as call, survived(failed, "many clips"):
            growth["clips"] = call(of_training, clip_costs, setting)
        growth["processes"] = {}
        for num in process_counts():
            with survived(failed, f"{num} processes"):
                growth["processes"][num] = launched(num, setting)
    return {**growth, "failed": failed}


PARTS: dict[str, Callable] = {"steps": measure_steps, "memory": measure_memory, "videos": measure_videos,
                              "surroundings": measure_surroundings, "growth": measure_growth}


@contextmanager
def survived(failed: dict[str, str], what: str) -> Iterator[None]:
    """Note in `failed` why `what` did not run, whatever the reason, so that all other parts are still
    measured."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        failed[what] = lines[0] if lines else type(error).__name__
        print(f"{what}: did not run ({failed[what]})", file=sys.stderr, flush=True)


def process_counts() -> list[int]:
    """Return the numbers of processes to train in: no more than there are GPUs, since two cannot share
    one."""
    most = torch.cuda.device_count() if torch.cuda.is_available() else max(NUM_PROCESSES)
    return [num for num in NUM_PROCESSES if num <= most]


def launched(num_processes: int, setting: Setting) -> dict[str, float]:
    """Train a few steps in so many processes, by the command that users type. Return the seconds of a
    step."""
    threads = max(1, torch.get_num_threads() // num_processes)
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                   ROOT / "configs" / "accelerate" / "ddp.yaml", "--num_processes", num_processes,
                   "--main_process_port", 0] if num_processes > 1 else [sys.executable]
        command += [ROOT / "train_model.py", "--config", setting.config, *setting.overrides,
                    f"output_dir={results}", "max_train_steps=6"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT,
                              env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        if done.returncode:
            raise UserError(f"train_model.py ended with code {done.returncode}: {last_words(done.stderr)}")
        run = next(path for path in Path(results).iterdir() if (path / "log.jsonl").exists())
        return {"seconds": statistics.median(entry["seconds"] for entry in read_log(run)[2:]),
                "threads": threads}


def last_words(said: str) -> str:
    """Return the line of `said` that best says why a command failed: the last one that names an error.

    If none does, it is the last line.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"(Error|Exception): \S", line)]
    return [*(lines[-1:] or ["it said nothing"]), *errors][-1]


# ------------------------------------------------------------------------ in processes that measure one thing

@contextmanager
def worker(environment: dict[str, str] | None = None) -> Iterator[Callable]:
    """Give a function that calls another one in a new process, and returns its result."""
    with patch.dict(os.environ, environment or {}), \
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@functools.cache
def training_of(setting: Setting) -> Training:
    return set_up_variant(*material(setting))


def material(setting: Setting) -> tuple:
    """Return the arguments of set_up_variant for a setting."""
    from accelerate import Accelerator

    config, _ = load_config(setting.config, list(setting.overrides))
    accelerator = Accelerator(mixed_precision=setting.variant.precision, cpu=not torch.cuda.is_available())
    plan = make_plan(replace(config, mixed_precision=setting.variant.precision))
    return plan, setting.variant, accelerator, create_run(config)


def of_training(measure: Callable, setting: Setting, *arguments) -> Any:
    return measure(training_of(setting), *arguments)


def memory(warm: Setting, setting: Setting) -> dict[str, int | None]:
    of_training(timed_step, warm, 0)   # the libraries take memory once, which is not the step's
    return step_memory(*material(setting))


def videos(setting: Setting, how: Rendering, rounds: int) -> dict[int, list[float]]:
    config, _ = load_config(setting.config, list(setting.overrides))
    prompts = read_prompts(PROMPTS)[:NUM_VIDEOS]
    return video_costs(config.pretrained_model_path, prompts, how, BATCH_SIZES, rounds)


if __name__ == "__main__":
    run_script(main)
