"""Training and generating in two processes, as on two GPUs: they meet through gloo, on the CPU."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import processes
from tests.conftest import ROOT
from training.config import Config
from training.run_folder import checkpoints, read_log
from utils.video import video_metadata

pytestmark = pytest.mark.slow
# Of the largest weight, where two steps move by 2e-3: the gradients of a batch are added up in another order,
# and AdamW makes more of it where gradients are small.
SUM_ROUNDING = 5e-5


@pytest.fixture
def run_in_two(tmp_path):
    """Return a function that runs a script in two processes, in the seconds that importing does not take, and
    returns what they said."""
    def run(script: str, *arguments: str | Path, launched_by: str = "ddp") -> str:
        code, said = processes.run_in_two(script, list(arguments), tmp_path, launched_by)
        assert code == 0, said
        return said

    return run


@pytest.fixture(autouse=True)
def one_thread():
    """Compute with one thread here too: with more, sums are taken in another order, and videos differ."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def settings(tiny_base, clip_folders) -> list[str]:
    exemplars, regularization = clip_folders
    return [
        f"pretrained_model_path={tiny_base}", "subject=spin", "max_train_steps=2", "learning_rate=1e-3",
        "checkpointing_steps=1", "validation_steps=null", "mixed_precision=no", "motion_dtype=fp32",
        f"train_data.path={exemplars}", f"train_data.class_path={regularization}", "train_data.width=64",
        "train_data.height=64", "train_data.n_sample_frames=4", "train_data.fps=8",
        "train_data.held_out=1", "held_out_steps=1"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, settings) -> tuple[Path, Path]:
    """The run folder of two processes with one exemplar each, and the folder of what was noted of them.

    Started by the command that docs/performance.md gives.
    """
    results, observed = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("observed")
    command = [sys.executable, "-m", "accelerate.commands.launch",
               "--config_file", ROOT / "configs" / "accelerate" / "ddp.yaml", "--num_processes", "2",
               "--main_process_port", "0", ROOT / "tests" / "observed_training.py",
               "--config", os.devnull, *settings, f"output_dir={results}"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OBSERVED": str(observed)})
    assert done.returncode == 0, done.stdout + done.stderr
    return next(results.glob("spin-*")), observed


def noted(observed: Path, rank: int, kind: str) -> list:
    lines = (observed / f"rank_{rank}.jsonl").read_text().splitlines()
    return [noted for what, noted in map(json.loads, lines) if what == kind]


def test_replicas_are_equal_after_each_step(two_processes):
    first, second = (noted(two_processes[1], rank, "weights") for rank in (0, 1))
    assert first == second and len(set(first)) == 3   # of the base, which is measured, and of each step


def test_noise_differs_between_processes_and_steps(two_processes):
    digests = [digest for rank in (0, 1) for digest in noted(two_processes[1], rank, "noise")]
    assert len(digests) >= 4 and len(set(digests)) == len(digests)


def test_gradients_lie_in_the_blocks_that_ddp_sends(two_processes):
    """From the first batch on, and there is no second copy of them."""
    blocks = noted(two_processes[1], 0, "blocks")
    # two steps, in each a batch for every shape of clips; 266 tensors
    assert 2 <= len(blocks) <= 4 and 1 <= min(blocks) <= max(blocks) < 10


def test_one_process_writes(two_processes):
    run, _ = two_processes
    assert [entry["step"] for entry in read_log(run)] == [0, 1, 2]
    assert len(list(run.parent.glob("spin-*"))) == 1
    assert [path.name for path in checkpoints(run)] == ["checkpoint-1", "checkpoint-2"]


def test_one_process_with_the_whole_batch_gives_the_same_weights(two_processes, settings, run_main, tmp_path):
    code, out, err = run_main("train_model", "--config", os.devnull, *settings, "train_batch_size=2",
                              f"output_dir={tmp_path}")
    assert code == 0, out + err
    runs = next(tmp_path.glob("spin-*")), two_processes[0]
    held_out = [[entry["held_out_exemplar"] for entry in read_log(run)] for run in runs]
    assert len(held_out[0]) == 3 and held_out[0] == pytest.approx(held_out[1], rel=1e-4)
    assert_equal_within_rounding(*(load_file(run / "motion.safetensors") for run in runs))


def assert_equal_within_rounding(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    largest = max(tensor.abs().max() for tensor in one.values())
    assert max((one[name] - two[name]).abs().max() for name in one) < SUM_ROUNDING * largest


def test_samples_in_half_precision_leave_the_weights_those_of_a_run_without_samples(settings, run_in_two,
                                                                                    tmp_path):
    settings = [*settings, "mixed_precision=bf16", "checkpointing_steps=null", "validation_data.num_frames=2",
                "validation_data.num_inference_steps=1", "validation_data.prompt=[a cat,a dog,a man]"]
    for name, steps in ("with", 1), ("without", "null"):
        run_in_two("train_model", "--config", os.devnull, *settings, f"validation_steps={steps}",
                   f"output_dir={tmp_path / name}")
    videos = list(tmp_path.glob("with/spin-*/samples/step_*/*.mp4"))
    assert len(videos) == 3 * 3 and {video_metadata(path)["precision"] for path in videos} == {"bf16"}
    page = next(tmp_path.glob("with/spin-*/video_lightbox.html")).read_text(encoding="utf-8")
    assert all(f"step_{step:05d}/a_{who}_seed64.mp4" in page
               for step in range(3) for who in ("cat", "dog", "man"))
    one, two = (load_file(next(tmp_path.glob(f"{name}/spin-*/motion.safetensors")))
                for name in ("with", "without"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_low_rank_updates_are_those_of_one_process_with_the_whole_batch(settings, run_main, run_in_two,
                                                                        tmp_path):
    settings = [*settings, "lora_rank=4", "checkpointing_steps=null"]
    run_in_two("train_model", "--config", os.devnull, *settings, f"output_dir={tmp_path / 'two'}")
    code, out, err = run_main("train_model", "--config", os.devnull, *settings, "train_batch_size=2",
                              f"output_dir={tmp_path / 'one'}")
    assert code == 0, out + err
    assert_equal_within_rounding(*(load_file(next(tmp_path.glob(f"{name}/spin-*/motion.safetensors")))
                                   for name in ("one", "two")))


# AnimateDiff's network has buffers, ZeroScope's has none
@pytest.mark.parametrize("kind, launched_by, script", [
    ("animatediff", "ddp", "train_model"), ("zeroscope", "fsdp", "tests.sharded_training")])
def test_processes_may_draw_clips_of_different_shapes(settings, animatediff, run_main, run_in_two, tmp_path,
                                                      kind, launched_by, script):
    """A process passes through the network once for each shape. What processes send each other in a pass must
    not depend on the shapes, or one waits for the other for ever."""
    settings = [*settings, "train_batch_size=2", "checkpointing_steps=null", "train_data.class_path=null",
                "train_data.held_out=0", "seed=2"]   # where one process draws two shapes and the other one
    if kind == "animatediff":
        _, images, adapter = animatediff
        settings += [f"pretrained_model_path={images}", f"motion_adapter_path={adapter}",
                     "trainable_modules=[cross,temporal]"]
    run_in_two(script, "--config", os.devnull, *settings, f"output_dir={tmp_path / 'two'}",
               launched_by=launched_by)
    code, out, err = run_main("train_model", "--config", os.devnull, *settings, "train_batch_size=4",
                              f"output_dir={tmp_path / 'one'}")
    assert code == 0, out + err
    assert_equal_within_rounding(*(load_file(next(tmp_path.glob(f"{name}/spin-*/motion.safetensors")))
                                   for name in ("one", "two")))


@pytest.mark.parametrize("launched_by", ["fsdp", "zero2"])
def test_sharded_run_saves_the_weights_of_ddp_and_resumes(two_processes, settings, run_in_two, tmp_path,
                                                             launched_by):
    script = "tests.sharded_training"
    said = run_in_two(script, "--config", os.devnull, *settings, f"output_dir={tmp_path}",
                      launched_by=launched_by)
    # the second pass of a step finds the gradients of the first, sent and spread
    assert set(re.findall(r"gradients: (\d+)\n", said)) == {"0", "266"}
    run = next(tmp_path.glob("spin-*"))
    for name in ("motion.safetensors", "checkpoint-1/state.safetensors", "checkpoint-2/motion.safetensors"):
        assert_equal_within_rounding(*(load_file(folder / name) for folder in (two_processes[0], run)))
    whole = load_file(run / "motion.safetensors")
    (run / "motion.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-2")
    assert f"resuming {run} after step 1" in run_in_two(script, "--resume", run, launched_by=launched_by)
    resumed = load_file(run / "motion.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_processes_wait_for_each_other_for_hours(monkeypatch):
    """As they must while one of them encodes clips or renders samples."""
    from accelerate.state import AcceleratorState

    import train_model

    class Given(Exception):
        pass

    def init_process_group(**given):
        raise Given(given["timeout"])

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(Given) as given:
        train_model.start(Config(), None)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert given.value.args[0] >= timedelta(hours=12)


def test_one_of_several_processes_ends_whatever_its_threads_do():
    program = ("import threading, time; from utils.errors import run_script\n"
               "threading.Thread(target=time.sleep, args=(60,)).start()\n"
               "run_script(lambda: print('learned', end=''))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "WORLD_SIZE": "2"}, timeout=30)
    assert (done.returncode, done.stdout) == (0, "learned")


def test_sharded_launch_without_gpus_says_that_nothing_is_sharded(settings, run_in_two, tmp_path):
    said = run_in_two("train_model", "--config", os.devnull, *settings, "max_train_steps=1",
                      f"output_dir={tmp_path}", launched_by="fsdp")
    assert "FSDP needs GPUs" in said and "every process holds the whole network" in said


def test_resuming_with_another_number_of_processes_is_refused(two_processes, settings, run_main, tmp_path):
    run = shutil.copytree(two_processes[0], tmp_path / two_processes[0].name)
    (run / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 2 and "was trained by 2 processes, not 1. Start a new run, or resume with as many: " in err
    command = shlex.split(err.strip().rpartition("as many: ")[2])
    assert command[1:4] == ["-m", "accelerate.commands.launch", "--config_file"]
    assert [Path(command[4]).name, *command[5:7], Path(command[7]).name] == [
        "ddp.yaml", "--num_processes", "2", "train_model.py"]
    assert command[8:] == ["--resume", str(run)]


def test_resuming_with_as_many_processes_changes_nothing(two_processes, run_in_two, tmp_path):
    run = shutil.copytree(two_processes[0], tmp_path / two_processes[0].name)
    (run / "motion.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-2")
    assert f"resuming {run} after step 1" in run_in_two("train_model", "--resume", run)
    whole, resumed = (load_file(folder / "motion.safetensors") for folder in (two_processes[0], run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_prompts_are_shared_out_and_videos_are_those_of_one_process(tiny_base, run_main, run_in_two,
                                                                     tmp_path):
    prompts = "a cat|a dog|a man"
    common = ["-m", tiny_base, "-p", prompts, "-r", "64", "-d", "3", "--steps", "2"]
    run_in_two("generate_pretrained", *common, "-o", tmp_path / "two")
    code, _, err = run_main("generate_pretrained", *common, "-o", tmp_path / "one")
    assert code == 0, err
    one, two = (sorted((tmp_path / name).glob("*.mp4")) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 3
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(one, two)] == [True] * 3
    assert (tmp_path / "two" / "video_lightbox.html").exists()
