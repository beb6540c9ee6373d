"""Run folders: names, logs, checkpoints, and which run a resume means."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.config import Config, TrainData
from training.config_loading import load_config, parse_config
from training.run_folder import (
    append_log,
    checkpoint_dir,
    checkpoints,
    config_differences,
    create_run,
    find_run,
    hold_run,
    named_run,
    read_log,
    remove_leftovers,
    remove_old_checkpoints,
    rewind_log,
    runs_of,
    samples_dir,
    set_aside,
    stretch_note,
)
from utils.errors import UserError


@pytest.fixture
def config(tmp_path) -> Config:
    text = f"output_dir: {tmp_path}\nsubject: spin\ntrain_data: {{path: clips}}"
    return parse_config(text, "config.yaml")[0]


def make_run(config: Config, time: str, *, steps: tuple[int, ...] = (), finished: bool = False) -> Path:
    """Make the folder of a run that was started at `time`."""
    run = create_run(config)
    run = run.rename(run.with_name(f"{config.subject}-{time}"))
    for step in steps:
        checkpoint_dir(run, step).mkdir()
    if finished:
        (run / "motion.safetensors").touch()
    return run


EARLY, LATE = "2024-01-01T00-00-00", "2024-01-02T00-00-00"


def test_run_is_named_by_subject_and_holds_the_resolved_config(config, tmp_path):
    run = create_run(config)
    assert run.parent == tmp_path and run.name.startswith("spin-20")
    assert load_config(run / "config.yaml") == (config, [])


def test_runs_of_the_same_second_have_folders_of_their_own(config):
    runs = [create_run(config) for _ in range(5)]
    assert len(set(runs)) == 5
    assert runs_of(config.output_dir, "spin") == runs


def test_tenth_run_of_a_second_comes_after_the_ninth(config, tmp_path):
    for number in (10, 9, 2):
        make_run(config, f"{EARLY}-{number}")
    assert [run.name.rpartition("-")[2] for run in runs_of(tmp_path, "spin")] == ["2", "9", "10"]


def test_runs_of_a_subject_are_not_those_of_a_longer_name(config, tmp_path):
    make_run(replace(config, subject="spin-fast"), LATE)
    mine = make_run(config, EARLY)
    (tmp_path / "spin-notes").mkdir()
    assert runs_of(tmp_path, "spin") == [mine]


@pytest.mark.parametrize("subject", ["a[b]", "a*", "\U0001f57a", "my run", "a.b"])
def test_subject_of_any_letters_is_found_again(config, subject):
    config = replace(config, subject=subject)
    run = create_run(config)
    assert find_run(config, "latest") == run


def test_latest_is_the_newest_unfinished(config):
    make_run(config, EARLY)
    late = make_run(config, LATE)
    make_run(config, "2024-01-03T00-00-00", finished=True)
    assert find_run(config, "latest") == find_run(config, None) == late


def test_no_unfinished_run_is_said(config):
    make_run(config, EARLY, finished=True)
    with pytest.raises(UserError, match="has no unfinished run of 'spin' to resume. "
                                        "Start one without --resume."):
        find_run(config, "latest")


def test_output_folder_that_is_not_there_has_no_run(config, tmp_path):
    with pytest.raises(UserError, match="has no unfinished run"):
        find_run(replace(config, output_dir=str(tmp_path / "nowhere")), "latest")


def test_run_may_be_named_by_its_folder_or_its_newest_checkpoint(config):
    run = make_run(config, EARLY, steps=(2, 10))
    make_run(config, LATE)
    assert find_run(config, str(run)) == find_run(config, f"{run}/") == run
    assert find_run(config, str(checkpoint_dir(run, 10))) == run


def test_run_that_is_named_by_a_dot_has_its_name(config, monkeypatch):
    run = make_run(config, EARLY)
    monkeypatch.chdir(run)
    assert named_run(".").name == run.name
    (run / "samples").mkdir()
    monkeypatch.chdir(run / "samples")
    assert named_run("..").name == run.name


def test_checkpoint_that_does_not_exist_is_said(config):
    run = make_run(config, EARLY, steps=(2, 4))
    with pytest.raises(UserError, match="checkpoint-9: does not exist. "
                                        "The run has checkpoint-2, checkpoint-4."):
        find_run(config, str(checkpoint_dir(run, 9)))


def test_older_checkpoint_is_not_taken_for_the_newest(config):
    run = make_run(config, EARLY, steps=(2, 10))
    with pytest.raises(UserError, match="a run goes on from its newest checkpoint, checkpoint-10. "
                                        "To go back further"):
        find_run(config, str(checkpoint_dir(run, 2)))


def test_folder_that_is_no_run_is_said(config, tmp_path):
    with pytest.raises(UserError, match="nowhere: does not exist. Runs are folders in output_dir"):
        find_run(config, str(tmp_path / "nowhere"))


def test_finished_run_is_said_with_its_result(config):
    run = make_run(config, EARLY, finished=True)
    with pytest.raises(UserError, match="has finished; its result is .*motion.safetensors. "
                                        "Nothing to resume."):
        find_run(config, str(run))


def test_other_configuration_names_every_key_that_differs(config):
    run = make_run(config, EARLY)
    now = replace(config, learning_rate=1e-3, train_data=TrainData(path="other", fps=8))
    with pytest.raises(UserError) as caught:
        find_run(now, str(run))
    assert list(caught.value.problems) == [
        f"{run}: was made with another configuration: train_data.fps was 24.0, is 8.0.",
        f"{run}: was made with another configuration: learning_rate was 5e-06, is 0.001.",
        f"Resume with --config {run / 'config.yaml'}, or start a new run without --resume."]


def test_what_does_not_change_the_learning_may_differ(config):
    now = replace(config, checkpointing_steps=5, validation_steps=None, report_to="tensorboard",
                  output_dir="elsewhere", cached_latent_dir="cache", gradient_checkpointing=False,
                  resume_from_checkpoint="latest", motion_adapter_path="moved",
                  validation_data=replace(config.validation_data, prompt=["a cat"], width=64))
    assert config_differences(config, now) == []


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"prior_lambda": 1.0}, {"max_train_steps": 5}, {"trainable_modules": ["cross"]},
    {"placeholder_token": "xyz"}, {"mixed_precision": "bf16"}, {"temporal_dropout": 0.1},
    {"train_batch_size": 2}, {"use_offset_noise": True}])
def test_what_changes_the_learning_is_a_difference(config, change):
    (difference,) = config_differences(config, replace(config, **change))
    assert difference.startswith(f"{next(iter(change))} was ")


def test_more_steps_are_no_difference_and_fewer_are(config):
    assert config_differences(config, replace(config, max_train_steps=9000)) == []
    assert config_differences(replace(config, max_train_steps=9000), config) == [
        "max_train_steps was 9000, is 3000"]


@pytest.mark.parametrize("name, is_said", [("constant", False), ("constant_with_warmup", False),
                                           ("piecewise_constant", False), ("cosine", True), ("linear", True)])
def test_schedules_that_end_with_the_run_are_said_to_be_stretched(config, name, is_said):
    run, now = create_run(config), replace(config, lr_scheduler=name, max_train_steps=4000)
    assert [is_said] == [bool(stretch_note(run, now))]
    assert stretch_note(run, replace(now, max_train_steps=3000)) == []


def test_checkpoints_are_in_the_order_of_their_steps(config):
    run = make_run(config, EARLY, steps=(1000, 2, 30))
    (run / ".checkpoint-40.x.partial").mkdir()
    (run / "checkpoint-new").mkdir()
    assert checkpoints(run) == [checkpoint_dir(run, step) for step in (2, 30, 1000)]


def test_samples_of_a_step_have_a_folder(tmp_path):
    assert samples_dir(tmp_path, 1000) == tmp_path / "samples" / "step_01000"


def test_leftovers_are_removed_and_nothing_else(config):
    run = make_run(config, EARLY, steps=(2,))
    (run / ".checkpoint-4.abc.partial").mkdir()
    (run / ".checkpoint-4.abc.partial" / ".state.7.partial.safetensors").touch()
    (run / ".checkpoint-2.abc.partial-replaced").mkdir()
    (run / "samples" / "step_00000").mkdir(parents=True)
    (run / "samples" / "step_00000" / ".a_cat_seed0.99.partial.mp4").touch()
    (run / "samples" / "step_00000" / "a.partial.mp4").touch()
    remove_leftovers(run)
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*")) == [
        "checkpoint-2", "config.yaml", "samples", "samples/step_00000", "samples/step_00000/a.partial.mp4"]


def test_log_comes_back_as_it_was_written(tmp_path):
    entries = [{"step": 1, "loss": 0.1 + 0.2, "regularization": None}, {"step": 2, "loss": 1e-12}]
    for entry in entries:
        append_log(tmp_path, entry)
    assert read_log(tmp_path) == entries


def test_line_cut_off_by_a_kill_is_left_out(tmp_path):
    append_log(tmp_path, {"step": 1})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]


def test_rewound_log_ends_at_the_step_and_goes_on(tmp_path):
    for step in (1, 2, 3):
        append_log(tmp_path, {"step": step})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    rewind_log(tmp_path, 2)
    append_log(tmp_path, {"step": 3, "again": True})
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_log_of_a_new_run_is_empty(tmp_path):
    assert read_log(tmp_path) == []


def test_full_disk_while_logging_is_named(tmp_path, full_disk):
    with full_disk(), pytest.raises(UserError, match=r"log.jsonl: could not be written \(File too large\). "
                                                     r".* are free"):
        append_log(tmp_path, {"note": "x" * 5000})


def test_run_is_held_by_one_process(config):
    run = make_run(config, EARLY)
    hold = f"from pathlib import Path; from training.run_folder import hold_run; hold_run(Path({str(run)!r}))"
    held = hold_run(run)
    done = subprocess.run([sys.executable, "-c", hold], capture_output=True, text=True, cwd=ROOT)
    assert "is being trained by another process" in done.stderr
    held.release()
    assert subprocess.run([sys.executable, "-c", hold], cwd=ROOT).returncode == 0


def test_old_checkpoints_go_and_the_newest_stay(config):
    run = make_run(config, EARLY, steps=(2, 4, 6, 10))
    remove_old_checkpoints(run, None)
    assert len(checkpoints(run)) == 4
    remove_old_checkpoints(run, 2)
    assert [folder.name for folder in checkpoints(run)] == ["checkpoint-6", "checkpoint-10"]
    remove_old_checkpoints(run, 5)
    assert len(checkpoints(run)) == 2


def test_checkpoint_set_aside_is_kept_and_no_longer_found(config):
    run = make_run(config, EARLY, steps=(2, 4))
    for content in ("first", "second"):
        (run / "checkpoint-4").mkdir(exist_ok=True)
        (run / "checkpoint-4" / "state.json").write_text(content)
        aside = set_aside(run / "checkpoint-4")
        assert [folder.name for folder in checkpoints(run)] == ["checkpoint-2"]
        assert (aside / "state.json").read_text() == content
