"""Killed anywhere, a run resumes to the same weights, and no folder is left in a state that needs hands."""

import shutil
import signal
import time
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import write_clip
from tests.processes import JUST_COUNT, Aim, Process
from tests.reliability import Report, count, numbers
from training.checkpoint import TENSORS_NAME, read_state
from training.run_folder import checkpoints, read_log
from utils.tensor_files import read_tensors
from utils.video import probe

pytestmark = pytest.mark.slow
STEPS = 4
CHANGES = [f"max_train_steps={STEPS}", "checkpointing_steps=1", "validation_steps=3", "keep_checkpoints=2",
           "temporal_dropout=0.1"]
PLACES = {"checkpoint writing": "checkpoint-", "cache writing": "/cache", "sampling": "/samples/",
          "the run folder": "/spin-"}
PROMPTS = "a cat|a dog doing the V* spin|it's <b>50 %</b> \"blue\""


class Runs:
    """What all kills of one test share: the config, an uninterrupted run, and how long that took."""

    def __init__(self, folder: Path, config: Path):
        self.folder, self.config = folder, config
        where, self.cache = folder / "whole", folder / "whole" / "cache"
        began = time.monotonic()
        process = self.start(where, JUST_COUNT)
        assert process.wait() == 0, process.said()
        self.seconds, self.whole = time.monotonic() - began, self.run_in(where)
        paths = process.operations()
        self.num_operations = {name: sum(place in path for path in paths) for name, place in PLACES.items()}

    def start(self, where: Path, aim: Aim | None = None, cache: Path | None = None, resume: bool = False):
        where.mkdir(exist_ok=True)
        return Process("train_model", ["--config", self.config, f"output_dir={where}",
                                       f"cached_latent_dir={cache or self.cache}",
                                       *(["--resume"] if resume else [])], where / "output.txt", aim)

    def run_in(self, where: Path) -> Path | None:
        return next((path.parent for path in sorted(where.glob("spin-*/config.yaml"))), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_base) -> Runs:
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("killed")
    for number in range(2):
        write_clip(folder / "exemplars" / f"{number}.mp4", num_frames=6, seed=number, caption="a V* spin")
    write_clip(folder / "regularization" / "a_dog.mp4", num_frames=6, seed=3)
    config = OmegaConf.create({
        "pretrained_model_path": str(tiny_base), "subject": "spin", "learning_rate": 1e-3,
        "gradient_checkpointing": False,
        "train_data": {"path": str(folder / "exemplars"), "class_path": str(folder / "regularization"),
                       "width": 64, "height": 64, "n_sample_frames": 4, "fps": 8},
        "validation_data": {"prompt": "a cat doing the V* spin", "num_inference_steps": 1}})
    config = OmegaConf.merge(config, OmegaConf.from_dotlist(CHANGES))
    OmegaConf.save(config, folder / "config.yaml")
    return Runs(folder, folder / "config.yaml")


def kill_somewhere(runs: Runs, rng: Random, where: Path, place: str | None, cache: Path | None,
                   resume: bool) -> bool:
    """Start training and kill it: at a file operation in `place`, soon after one, or at any moment. Say
    whether it was still at work."""
    if place is None:
        process = runs.start(where, None, cache, resume)
        time.sleep(rng.uniform(0, runs.seconds))
    else:
        number = rng.randint(1, runs.num_operations[place])
        aim = Aim(PLACES[place], number, stops=rng.random() < 0.5)
        process = runs.start(where, aim, cache, resume)
        if process.reached() and not aim.stops:
            time.sleep(rng.uniform(0, 0.05))
    process.kill()
    return process.process.exitcode == -signal.SIGKILL


def assert_nothing_half_written(folder: Path) -> None:
    """All that lies under its final name is whole."""
    for checkpoint in folder.rglob("checkpoint-*"):
        if ".partial" not in str(checkpoint):
            assert read_state(checkpoint)["step"] == int(checkpoint.name.partition("-")[2])
            assert read_tensors(checkpoint / TENSORS_NAME) and load_file(checkpoint / "motion.safetensors")
    for path in [*folder.rglob("*.mp4"), *folder.rglob("*.safetensors")]:
        if ".partial" not in str(path):
            assert probe(path).num_frames == 4 if path.suffix == ".mp4" else read_tensors(path)


def assert_same_weights(first: Path, second: Path) -> None:
    first, second = load_file(first / "motion.safetensors"), load_file(second / "motion.safetensors")
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_killed_run_resumes_to_the_same_weights(runs):
    report, wanted = Report("kills in training"), count(sample=3, full=100)
    places = [*PLACES, None]
    for attempt in range(10 * wanted):
        if sum(report.outcomes.values()) == wanted:
            break
        rng, place = numbers("kills", attempt), places[attempt % len(places)]
        where = runs.folder / f"killed-{attempt}"
        cache = where / "cache" if place == "cache writing" else None
        if not kill_somewhere(runs, rng, where, place, cache, resume=False):
            continue   # it was faster
        assert_nothing_half_written(where)
        run = runs.run_in(where)
        if run and attempt % 3 == 0:   # and its continuation too
            kill_somewhere(runs, rng, where, rng.choice(["the run folder", None]), cache, resume=True)
            assert_nothing_half_written(where)
        is_finished = run and (run / "motion.safetensors").exists()
        if not is_finished:
            process = runs.start(where, None, cache, resume=run is not None)
            assert process.wait() == 0, process.said()
        run = runs.run_in(where)
        assert_same_weights(runs.whole, run)
        assert [entry["step"] for entry in read_log(run)] == list(range(1, STEPS + 1))
        assert [path.name for path in checkpoints(run)] == [path.name for path in checkpoints(runs.whole)]
        assert is_finished or not [*run.rglob(".*.partial*")]
        report.add(f"in {place}, the same weights" if place else "at any moment, the same weights")
        report.write()
        shutil.rmtree(where)
    assert sum(report.outcomes.values()) == wanted


def test_killed_generation_leaves_whole_videos_and_goes_on(runs, tiny_base):
    report, wanted = Report("kills in generation"), count(sample=1, full=25)

    def start(folder: Path, aim: Aim | None = None) -> Process:
        arguments = ["-m", tiny_base, "-p", PROMPTS, "-o", folder, "-r", "64", "-d", "4", "--steps", "1"]
        return Process("generate_pretrained", arguments, folder.with_suffix(".txt"), aim)

    whole = start(runs.folder / "videos", JUST_COUNT)
    assert whole.wait() == 0, whole.said()
    num_operations = sum("/videos/" in path for path in whole.operations())
    videos = {path.name: path.read_bytes() for path in (runs.folder / "videos").glob("*.mp4")}
    assert len(videos) == 3
    for attempt in range(wanted):
        rng = numbers("generation", attempt)
        folder = runs.folder / f"videos-{attempt}"
        aim = Aim("/videos-", rng.randint(1, num_operations), stops=attempt % 2 == 0)
        process = start(folder, aim)
        if process.reached() and not aim.stops:
            time.sleep(rng.uniform(0, 0.1))
        process.kill()
        for path in folder.glob("*.mp4"):
            if not path.name.startswith("."):
                assert path.read_bytes() == videos[path.name]
        again = start(folder)
        assert again.wait() == 0, again.said()
        assert {path.name: path.read_bytes() for path in folder.glob("[!.]*.mp4")} == videos
        report.add("whole videos only, and the rest made afterwards")
        report.write()
        shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_asked_to_stop_it_saves_and_ends_within_seconds(runs, number):
    """Ctrl-C reaches the decoder and the encoder too, as in a terminal."""
    report, slowest = Report(f"stops by {number.name}"), 0.0
    for attempt in range(count(sample=1, full=10)):
        rng, where = numbers("stops", number.name, attempt), runs.folder / f"stopped-{number}-{attempt}"
        where.mkdir()
        process = Process("train_model", ["--config", runs.config, f"output_dir={where}",
                                          f"cached_latent_dir={runs.cache}", "max_train_steps=10000",
                                          "checkpointing_steps=null"], where / "output.txt")
        deadline = time.monotonic() + 120
        while not (run := runs.run_in(where)) or not read_log(run):
            assert time.monotonic() < deadline, process.said()
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        began = time.monotonic()
        process.send(number)
        code = process.wait(60)
        slowest = max(slowest, time.monotonic() - began)
        steps = len(read_log(run))
        assert code == 128 + number, process.said()
        assert [path.name for path in checkpoints(run)] == [f"checkpoint-{steps}"]
        assert f"Stopped after step {steps}, and saved." in process.said()
        assert "Traceback" not in process.said()
        assert_nothing_half_written(where)
        report.add("saved, and ended")
        report.figures["slowest, seconds"] = round(slowest, 2)
        report.write()
    assert slowest < 20
