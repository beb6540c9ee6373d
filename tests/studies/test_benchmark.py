"""What studies/benchmark.py measures is what it says, and its report says what was measured."""

import functools
import json
import multiprocessing
import runpy
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from rendering.sampling import Rendering
from studies import benchmark, benchmark_cases, run_costs, step_costs
from studies.benchmark_report import benchmark_report
from studies.random_base import SIZES, write_random_base
from studies.step_costs import (
    ALL_ON,
    LADDER,
    OTHERS,
    PHASES,
    PLAIN,
    matmul_rate,
    set_up_variant,
    step_flop,
    step_memory,
    step_phases,
    timed_step,
)
from tests.processes import PRELOADED
from training import step
from training.config_loading import load_config
from training.run_folder import create_run
from utils.errors import UserError
from utils.prompts import Prompt

FLOAT32_ROUNDING = 2e-6   # of the largest weight, after three steps that move each by up to 3e-3


@pytest.fixture
def material(write_config):
    """Return a function that gives what a training of a variant is made from."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def make(variant) -> tuple:
        from training.plan import make_plan

        AcceleratorState._reset_state(reset_partial_state=True)
        config, _ = load_config(write_config("train_data.use_bucketing=false"))
        accelerator = Accelerator(cpu=True, mixed_precision=variant.precision)
        return make_plan(config), variant, accelerator, create_run(config)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)   # the next test may compute in another precision


def test_phases_are_the_shares_of_a_step_and_clipping_counts_to_the_optimizer(material, monkeypatch):
    clip, training = torch.nn.utils.clip_grad_norm_, set_up_variant(*material(ALL_ON))
    began, before = time.perf_counter(), step_phases(training, 0)
    seconds = time.perf_counter() - began   # on a busy machine half a second is a small share of a step
    assert tuple(before) == PHASES and min(before.values()) > 0
    assert sum(before.values()) == pytest.approx(1)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_",
                        lambda *given: time.sleep(seconds / 4) or clip(*given))
    assert step_phases(training, 0)["optimizer"] > before["optimizer"] + 0.05


def learned(training) -> dict[str, torch.Tensor]:
    for index in range(3):
        timed_step(training, index)
    return {name: tensor.detach() for name, tensor in training.trained.items()}


def test_handing_all_tensors_to_the_optimizer_changes_nothing(material):
    """It passes over those that have no gradient."""
    alone = replace(ALL_ON, precision="no", fused=False)
    others = replace(alone, all_to_optimizer=True)
    tuned, of_all = (learned(set_up_variant(*material(variant))) for variant in (alone, others))
    assert tuned.keys() == of_all.keys() and all(torch.equal(tuned[name], of_all[name]) for name in tuned)


def test_fused_adamw_is_the_default_one_within_float32_rounding(material):
    fused = replace(ALL_ON, precision="no")
    assert set_up_variant(*material(fused)).optimizer.param_groups[0]["fused"]
    ours, theirs = (learned(set_up_variant(*material(variant)))
                    for variant in (fused, replace(fused, fused=False)))
    largest = max(tensor.abs().max() for tensor in theirs.values())
    assert max((ours[name] - theirs[name]).abs().max() for name in theirs) < FLOAT32_ROUNDING * largest


def test_plain_and_all_on_learn_the_same_from_the_same_examples(material, monkeypatch):
    """But for rounding to bf16: what is compared takes the same step."""
    noise, learned = [], []
    losses = step.clip_losses
    monkeypatch.setattr("training.plan.SMALL_PASS", 0)   # all on: two passes
    monkeypatch.setattr(step, "clip_losses",
                        lambda *arguments: noise.append(arguments[3]) or losses(*arguments))
    for variant in (PLAIN, ALL_ON):
        training = set_up_variant(*material(variant))
        before = {name: tensor.detach().clone() for name, tensor in training.trained.items()}
        timed_step(training, 0)
        learned.append(torch.cat([(tensor.detach() - before[name]).flatten()
                                  for name, tensor in training.trained.items()]))
    assert torch.equal(noise[0], torch.cat(noise[1:])) and len(noise) == 3
    # of AdamW's first step only the signs of the gradient are left
    assert (learned[0].sign() == learned[1].sign()).float().mean() > 0.9


def test_plain_has_what_programs_of_this_kind_have(material, monkeypatch):
    training, encoded = set_up_variant(*material(PLAIN)), []
    encode = step_costs.encode_frames
    monkeypatch.setattr(step_costs, "encode_frames",
                        lambda vae, frames: encoded.append(frames.shape) or encode(vae, frames))
    unet = training.base.unet
    assert {type(each).__name__ for each in unet.attn_processors.values()} == {"AttnProcessor2_0"}
    assert len(training.optimizer.param_groups[0]["params"]) == len(list(unet.parameters()))
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32} and not training.apart
    timed_step(training, 0)
    assert encoded == [(4, 64, 64, 3)] * 2   # the window of an exemplar, and of a regularization clip


def test_each_rung_changes_one_thing():
    def differences(one, other) -> int:
        return sum(vars(one)[name] != value for name, value in vars(other).items() if name != "title")

    assert [differences(*pair) for pair in pairwise(LADDER)] == [1] * (len(LADDER) - 1)
    assert LADDER[0] == PLAIN and LADDER[-1] == ALL_ON
    assert [differences(ALL_ON, variant) for variant in OTHERS] == [1] * 3


def test_recomputation_is_counted_only_where_it_happens(material):
    kept, recomputed = (step_flop(set_up_variant(*material(variant)))
                        for variant in (ALL_ON, OTHERS[2]))
    assert 1.1 < recomputed / kept < 1.6


def test_fused_attention_is_counted_on_a_cpu_too():
    query, key, value = (torch.randn(2, 3, 200, 8, requires_grad=True) for _ in range(3))

    def forward_and_backward():
        torch.nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()

    forward = 2 * 2 * 2 * 3 * 200 * 200 * 8   # two products
    assert step_costs.count_flop(forward_and_backward) == forward * 3.5   # five more, backward


def test_channels_last_trains(material):
    training = set_up_variant(*material(OTHERS[0]))
    assert timed_step(training, 0)["seconds"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory of a process")
def test_memory_parts_add_up_to_the_peak(material):
    found = step_memory(*material(ALL_ON), num_steps=1)
    parts = [found[name] for name in ("weights", "gradients", "optimizer", "activations")]
    assert sum(parts) == found["peak"] and min(parts[:3]) > 0 and found["predicted"] > 0
    assert found["optimizer"] == pytest.approx(2 * found["gradients"], rel=0.01)   # two moments


def test_many_clips_have_a_cache_each(material, monkeypatch):
    monkeypatch.setattr(run_costs, "MANY_CLIPS", (2, 5))
    take, nums = run_costs.timed_step, []
    monkeypatch.setattr(run_costs, "timed_step", lambda training, *others: nums.append(
        len(training.plan.exemplars)) or take(training, *others))
    found = run_costs.clip_costs(set_up_variant(*material(ALL_ON)), num_steps=2)
    assert nums == [2, 5] * 3   # they take turns, after a step to warm up
    assert [len(cost["taken"]) for cost in found.values()] == [2, 2]
    assert list(found) == [2, 5] and found[5]["cache"] == pytest.approx(2.5 * found[2]["cache"], rel=0.01)


def test_cache_and_checkpoint_are_those_of_the_run(material):
    training = set_up_variant(*material(ALL_ON))
    cache, checkpoint = run_costs.cache_cost(training), run_costs.checkpoint_cost(training)
    clips = training.plan.exemplars + training.plan.regularization
    assert cache["frames"] == sum(len(clip.frames) for clip in clips)
    num_trained = sum(tensor.numel() for tensor in training.trained.values())
    assert checkpoint["bytes"] == pytest.approx(num_trained * (12 + 2), rel=0.25)   # names take their share


def test_videos_are_rendered_alone_and_in_batches(tiny_base, monkeypatch):
    sizes, render = [], run_costs.render_to_folder

    def noted(pipeline, prompts, how, folder, fps, batch_size, made_with):
        sizes.append((len(prompts), batch_size))
        return render(pipeline, prompts, how, folder, fps, batch_size, made_with)

    monkeypatch.setattr(run_costs, "render_to_folder", noted)
    prompts = [Prompt(seed, "a man walking") for seed in range(3)]
    taken = run_costs.video_costs(str(tiny_base), prompts, Rendering(64, 64, 2, 1, 4.0), (1, 2), rounds=1)
    assert sizes == [(1, 1), (2, 2), (3, 1), (3, 2)] and list(taken) == [1, 2]


def test_random_base_of_the_size_that_is_promised(tmp_path):
    from models.base_folder import check_base_folder, tensor_sizes

    folder = write_random_base(tmp_path / "base", SIZES["small"])
    assert check_base_folder(folder) == []
    assert sum(tensor_sizes(folder, "unet").values()) == pytest.approx(5e6, rel=0.02)


def test_rate_of_the_machine_is_that_of_its_products():
    assert 1e8 < matmul_rate("no", 256) < 1e14


def test_report_compares_with_the_plain_way():
    def steps(*seconds: float) -> list[dict]:
        return [{"seconds": each, "processor": 2 * each} for each in seconds]

    results = {"command": "python -m studies.benchmark", "machine": {"cpu": "one", "gpu": None}, "cases": {
        "tiny": {"what": "a network", "videos": None, "steps": {
            "taken": {"plain": steps(9, 4, 3, 5), "all on": steps(7, 2, 1, 2)},
            "failed": {"huge": "no room"},
            "phases": {title: dict.fromkeys(PHASES, 0.2) for title in ("plain", "all on")},
            "precision": {"plain": "no", "all on": "bf16"}, "flop": 4e12,
            "rates": {"no": 2e12, "bf16": 4e12}}}}}
    lines = benchmark_report(results).splitlines()
    assert "| plain | 4.000 | 3.000 to 5.000 | 1.00 | 8.000 |" + " 20.0% |" * 5 + " 1 | 50% | 9.0 |" in lines
    assert "| all on | 2.000 | 1.000 to 2.000 | 2.00 | 4.000 |" + " 20.0% |" * 5 + " 2 | 50% | 7.0 |" in lines
    assert "- huge: did not run (no room)" in lines and "cpu one (load: before it began)" in lines
    del results["cases"]["tiny"]["steps"]["taken"]["plain"]   # no room for it either
    assert "| all on | 2.000 | 1.000 to 2.000 |  | 4.000 |" in benchmark_report(results)


def test_plain_and_all_on_take_turns_where_a_gpu_has_room_for_both(monkeypatch):
    variants, case = [*LADDER, *OTHERS], benchmark_cases.CASES["zeroscope"]
    for num_bytes, first in ((80 * 2**30, [PLAIN]), (139 * 2**30, [PLAIN, ALL_ON])):
        monkeypatch.setattr(benchmark_cases, "gpu_bytes", lambda num_bytes=num_bytes: num_bytes)
        groups = benchmark_cases.groups_in_turn(case, variants)
        assert groups[0] == first and {len(group) for group in groups[1:]} == {1}
        assert sorted(sum(groups, []), key=variants.index) == variants


def test_variant_that_dies_is_named_and_the_others_take_their_steps(monkeypatch):
    """Few of them are in memory at a time."""
    there, most = [], []

    @contextmanager
    def worker():
        there.append(worker)
        most.append(len(there))

        def call(function, *arguments):
            if function is not benchmark.of_training or arguments[0] is not timed_step:
                return 1.0
            title, turn = arguments[1].variant.title, arguments[2]
            if title == "activations kept" and turn == 1:
                raise BrokenProcessPool("killed")
            return {"seconds": turn}
        yield call
        there.pop()

    monkeypatch.setattr(benchmark, "worker", worker)
    found = benchmark.measure_steps("small", benchmark.Setting("config.yaml", ()), quick=False)
    assert found["failed"] == {"activations kept": "killed"} and max(most) == benchmark.CASES["small"].at_once
    titles = [variant.title for variant in (*LADDER, *OTHERS)]
    assert list(found["taken"]) == [title for title in titles if title != "activations kept"]
    assert {len(steps) for steps in found["taken"].values()} == {benchmark.CASES["small"].rounds + 1}


def test_steps_are_kept_where_they_can_be_neither_counted_nor_profiled(monkeypatch):
    @contextmanager
    def worker():
        def call(function, *arguments):
            if function is benchmark.of_training and arguments[0] is step_flop:
                raise torch.OutOfMemoryError("no room\nfor more")
            if function is benchmark.of_training and arguments[0] is step_phases \
                    and arguments[1].variant == ALL_ON:
                raise RuntimeError("no profiler")
            return {**dict.fromkeys(PHASES, 0.2), "seconds": 5.0, "processor": 5.0}
        yield call

    monkeypatch.setattr(benchmark, "worker", worker)
    found = benchmark.measure_steps("tiny", benchmark.Setting("config.yaml", ()), quick=True)
    assert len(found["taken"]["plain"]) == 2 and found["failed"] == {
        "counting operations": "no room", "the shares of all on": "no profiler"}
    report = benchmark_report({"command": "", "machine": {}, "cases": {
        "tiny": {"what": "a network", "steps": {**found, "rates": {"no": 1e12, "bf16": 1e12}}}}})
    assert "| plain | 5.000 | 5.000 to 5.000 | 1.00 | 5.000 |" + " 20.0% |" * 5 + "  |  | 5.0 |" in report
    assert "| all on | 5.000 | 5.000 to 5.000 | 1.00 | 5.000 |" + "  |" * 7 + " 5.0 |" in report
    assert "- counting operations: did not run (no room)" in report


def test_part_that_fails_is_named_and_the_others_are_kept(monkeypatch, tmp_path, capsys):
    def fails(*_):
        raise RuntimeError()

    monkeypatch.setattr(benchmark, "prepare", lambda name, work: None)
    monkeypatch.setattr(benchmark, "PARTS", {"videos": fails, "surroundings": lambda *_: {
        "cache": {"seconds": 1, "frames": 2, "bytes": 3}, "checkpoint": {"seconds": 4, "bytes": 5}}})
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--cases", "tiny", "--output", str(tmp_path)])
    monkeypatch.setenv("TQDM_DISABLE", "1")
    benchmark.main()
    report = (tmp_path / "benchmark.md").read_text()
    assert "- videos: did not run (RuntimeError)" in report and "A checkpoint: 4.00 s" in report


def test_growth_without_room_for_long_clips_is_told_as_far_as_it_goes(monkeypatch):
    @contextmanager
    def worker():
        def call(measure, of, setting, *turn):
            if "train_data.n_sample_frames=64" in setting.overrides:
                raise BrokenProcessPool("killed")
            return {"seconds": 1.0} if turn else {10: {"taken": [1.0], "cache": 1, "grown": 0}}
        yield call

    def launched(num, setting):
        raise RuntimeError("NCCL")

    monkeypatch.setattr(benchmark, "worker", worker)
    monkeypatch.setattr(benchmark, "launched", launched)
    found = benchmark.measure_growth("bundled", benchmark.Setting("config.yaml", ()), quick=False)
    assert list(found["frames"]) == [8, 16, 32] and found["failed"] == {"64 frames": "killed", **{
        f"{num} processes": "NCCL" for num in benchmark.process_counts()}}
    report = benchmark_report({"command": "", "machine": {}, "cases": {"x": {"what": "", "growth": found}}})
    assert "| frames of one clip | 8 | 16 | 32 |" in report and "- 64 frames: did not run (killed)" in report
    assert "| range | 1.000 to 1.000 |" in report and "batches a second" not in report


@pytest.mark.parametrize(("num_gpus", "counts"), [(0, [1, 2, 4]), (1, [1]), (3, [1, 2]), (8, [1, 2, 4])])
def test_gpus_are_not_shared_by_processes(monkeypatch, num_gpus, counts):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert benchmark.process_counts() == counts


def test_command_that_fails_is_told_with_its_last_words(tmp_path):
    with pytest.raises(UserError, match="train_model.py ended with code 2: .*gone.yaml: "):
        benchmark.launched(1, benchmark.Setting(str(tmp_path / "gone.yaml"), ()))
    assert benchmark.last_words("E: x\ntorch.DistBackendError: NCCL error\n  exitcode: 1\n=====\n") == \
        "torch.DistBackendError: NCCL error"
    assert benchmark.last_words("\n") == "it said nothing"


@pytest.fixture
def workers_that_need_not_import(monkeypatch):
    """Fork the processes of the benchmark from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "studies.benchmark"])
    monkeypatch.setattr(benchmark, "get_context", lambda name: context)


@pytest.mark.slow
def test_one_command_measures_and_writes_both_reports(workers_that_need_not_import, monkeypatch, tmp_path,
                                                      capsys):
    monkeypatch.setattr(benchmark, "matmul_rate", functools.partial(matmul_rate, side=128))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(sys, "argv", ["benchmark", "--cases", "tiny", "--quick", "--parts", "steps",
                                      "--output", str(tmp_path)])
    benchmark.main()
    results = json.loads((tmp_path / "benchmark.json").read_text())
    steps = results["cases"]["tiny"]["steps"]
    assert set(steps["taken"]) == set(steps["phases"]) == {"plain", "all on"} and steps["failed"] == {}
    report = (tmp_path / "benchmark.md").read_text()
    assert report == benchmark_report(results) == capsys.readouterr().out[:-1]


def test_module_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--cases", "nothing"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("studies.benchmark", run_name="__main__")
    assert ended.value.code == 2 and "nothing" in capsys.readouterr().err
