"""Training end to end on a tiny base: what trains, what repeats exactly, and what stops it."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.tunable import select_tunable, union
from tests.conftest import ROOT, write_clip
from training.config import Config
from training.optimization import learning_rate_schedule
from training.run_folder import checkpoints, read_log


def run_of(config: Path) -> Path:
    """The newest run folder of a config written by `write_config`."""
    return sorted((config.parent / "results").glob("spin-*"), key=lambda path: path.stat().st_mtime)[-1]


def assert_equal(first: Path, second: Path) -> None:
    first, second = load_file(first / "motion.safetensors"), load_file(second / "motion.safetensors")
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture
def train(run_main):
    def run(config: Path, *arguments: str) -> Path:
        code, out, err = run_main("train_model", "--config", config, *arguments)
        assert code == 0, out + err
        return run_of(config)

    return run


@pytest.fixture(scope="module")
def plain_runs() -> list[Path]:
    """A run of the plain config, once there is one, for others to be compared with."""
    return []


def test_exactly_the_named_groups_train(train, write_config, tiny_base):
    run = train(write_config())
    base = load_file(tiny_base / "unet" / "diffusion_pytorch_model.safetensors")
    tuned = load_file(run / "motion.safetensors")
    assert sorted(tuned) == union(select_tunable(base, ["cross", "temporal", "temp_convs"]))
    assert all(not torch.equal(tuned[name], base[name].half()) for name in tuned)


def test_run_folder_has_what_is_promised(train, write_config):
    run = train(write_config("validation_steps=2"))
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.yaml", "log.jsonl", "samples", "checkpoint-2", "checkpoint-4", "motion.safetensors",
        "video_lightbox.html"}
    folders = sorted((run / "samples").iterdir())
    assert [path.name for path in folders] == ["step_00000", "step_00002", "step_00004"]
    for folder in (run / "samples").iterdir():
        assert {path.name for path in folder.iterdir()} == {
            ".index.lock", "a_cat_doing_the_sks_spin_seed64.mp4", "text.json", "video_lightbox.html"}


def test_samples_of_the_untuned_base_can_be_left_out(train, write_config):
    run = train(write_config("max_train_steps=1", "validation_steps=1",
                             "validation_data.before_training=false"))
    assert [path.name for path in (run / "samples").iterdir()] == ["step_00001"]


def test_log_has_a_line_per_step_with_both_losses(train, write_config):
    log = read_log(train(write_config()))
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    for entry in log:
        assert entry["loss"] == pytest.approx(entry["exemplar"] + 0.5 * entry["regularization"], rel=1e-5)
        assert entry["lr"] == 1e-3 and entry["grad_norm"] > 0 and entry["seconds"] > 0


def test_ends_with_movement_and_the_next_command(run_main, write_config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)   # the command is for the folder it is printed in
    code, out, _ = run_main("train_model", "--config", write_config())
    assert code == 0
    assert [line.split()[0] for line in out.partition("moved from the base")[2].splitlines()[1:4]] == [
        "cross", "temporal", "temp_convs"]
    command = shlex.split(out.strip().splitlines()[-1])
    assert Path(command[0]).name.startswith("python")
    assert command[1:3] == [str(ROOT / "generate_pretrained.py"), "-m"]
    assert command[-4:] == ["-p", "a cat doing the V* spin", "-s", "64"]


def test_same_seed_same_weights_and_another_seed_others(train, write_config):
    config = write_config()
    first, second = train(config), train(config)
    assert first != second
    assert_equal(first, second)
    with pytest.raises(AssertionError):
        assert_equal(first, train(config, "seed=65"))


def test_warm_cache_changes_nothing(train, write_config, monkeypatch):
    """The first run encodes; the second reads what the first wrote; the third encodes at every step."""
    from models.base import load_base
    from training import step
    from training.inputs import encode_clip, latents_from

    config = write_config()
    cold, warm = train(config), train(config)
    pipeline = load_base(str(load_config_path(config))).pipeline

    def encode_now(_, window):
        posterior = encode_clip(pipeline, window.clip)
        stop = window.start + window.clip.window
        windowed = {name: rows[window.start:stop] for name, rows in posterior.items()}
        return latents_from(windowed, window.generator)

    monkeypatch.setattr(step, "sample_latents", encode_now)
    assert_equal(cold, warm)
    assert_equal(cold, train(config))


def load_config_path(config: Path) -> str:
    from training.config_loading import load_config

    return load_config(config)[0].pretrained_model_path


def test_memory_of_the_encoders_is_given_back_before_it_is_asked_what_is_free(train, write_config,
                                                                              monkeypatch):
    from training import loop as training

    done, encode, choose = [], training.encode_inputs, training.fitting_way
    monkeypatch.setattr(training, "encode_inputs", lambda *given: done.append("encode") or encode(*given))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("give back"))
    monkeypatch.setattr(training, "fitting_way", lambda plan: done.append("choose") or choose(plan))
    train(write_config("max_train_steps=1"))
    assert done[:3] == ["encode", "give back", "choose"]


def test_samples_do_not_disturb_training(train, write_config):
    plain = train(write_config("temporal_dropout=0.1"))
    assert_equal(plain, train(write_config("temporal_dropout=0.1", "validation_steps=1")))


def test_gradient_checkpointing_changes_nothing(train, write_config):
    plain = train(write_config("temporal_dropout=0.1"))
    assert_equal(plain, train(write_config("temporal_dropout=0.1", "gradient_checkpointing=true")))


def test_accumulation_is_the_batch_in_pieces(train, write_config):
    """Two micro-steps of one example and one step of two see the same examples, timesteps and noise."""
    pieces = train(write_config("gradient_accumulation_steps=2", "max_train_steps=1", "motion_dtype=fp32"))
    whole = train(write_config("train_batch_size=2", "max_train_steps=1", "motion_dtype=fp32"))
    assert read_log(pieces)[0]["loss"] == pytest.approx(read_log(whole)[0]["loss"], rel=1e-5)
    assert read_log(pieces)[0]["grad_norm"] == pytest.approx(read_log(whole)[0]["grad_norm"], rel=1e-4)


def test_exemplars_and_regularization_apart_are_both_together(train, write_config, monkeypatch):
    """One pass for each and one for both see the same examples, timesteps and noise."""
    from training import loop as training
    from training import step

    losses, num_passes, logs = step.clip_losses, [0, 0], []
    for apart in (False, True):
        def counted(*arguments, apart=apart):
            num_passes[apart] += 1
            return losses(*arguments)

        monkeypatch.setattr(step, "clip_losses", counted)
        monkeypatch.setattr(training, "fitting_way", lambda plan, apart=apart: (apart, False))
        run = train(write_config("max_train_steps=1", "train_data.use_bucketing=false"))
        logs.append(read_log(run)[0])
    assert num_passes == [1, 2]
    for name, rounding in (("loss", 1e-5), ("exemplar", 1e-5), ("regularization", 1e-5), ("grad_norm", 1e-4)):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=rounding), name


@pytest.mark.parametrize("changes", [
    ["train_data.sampling=uniform"], ["train_data.sampling=low-level"], ["use_offset_noise=true"],
    ["train_data.train_weights=spatial"], ["train_batch_size=3"], ["prior_preservation=false"],
    ["train_data.use_bucketing=false"], ["lr_scheduler=cosine", "lr_warmup_steps=1"],
    ["mixed_precision=bf16"], ["trainable_modules=[all]"], ["temporal_dropout=0.5"], ["prior_lambda=2"],
    ["train_data.class_path=null"],
])
def test_every_option_trains_and_matters(train, write_config, changes, plain_runs):
    if not plain_runs:
        plain_runs.append(train(write_config()))
    changed = train(write_config(*changes))
    assert len(read_log(changed)) == 4
    with pytest.raises(AssertionError):
        assert_equal(plain_runs[0], changed)


def test_v_prediction_base_trains(train, write_config, other_base):
    run = train(write_config(f"pretrained_model_path={other_base}"))
    assert [0.01 < entry["exemplar"] < 3 for entry in read_log(run)] == [True] * 4


def test_loss_falls_on_one_clip(train, write_config, tmp_path):
    """If the target or the noise were wrong, the loss would stay where it was."""
    run = train(write_config("max_train_steps=40", "learning_rate=5e-3", "trainable_modules=[all]",
                             "train_batch_size=2", "train_data.class_path=null", "checkpointing_steps=null"))
    log = read_log(run)
    early, late = (sum(entry["exemplar"] for entry in part) / 8 for part in (log[:8], log[-8:]))
    assert late < 0.7 * early


def test_learning_rate_follows_the_schedule(train, write_config):
    run = train(write_config("lr_scheduler=linear", "lr_warmup_steps=2"))
    assert [entry["lr"] for entry in read_log(run)] == pytest.approx([0, 5e-4, 1e-3, 5e-4])


def test_scale_lr_counts_batch_and_accumulation_once(train, write_config):
    run = train(write_config("scale_lr=true", "train_batch_size=2", "gradient_accumulation_steps=3",
                             "max_train_steps=1"))
    assert read_log(run)[0]["lr"] == pytest.approx(6e-3)


def test_stop_and_resume_equals_no_stop(train, run_main, write_config):
    changes = ["temporal_dropout=0.1", "gradient_accumulation_steps=2", "lr_scheduler=cosine",
               "validation_steps=3"]
    whole = train(write_config(*changes))
    config = write_config(*changes, name="again.yaml")
    run = train(config)
    # as a kill after step 3 leaves it
    (run / "motion.safetensors").unlink()
    (run / "checkpoint-4" / "state.json").parent.rename(run / ".checkpoint-4.x.partial")
    assert train(config, "--resume") == run
    assert_equal(whole, run)
    assert [entry["loss"] for entry in read_log(run)] == [entry["loss"] for entry in read_log(whole)]
    assert not list(run.glob(".*partial*"))


def test_run_named_to_resume_brings_its_own_config(train, run_main, write_config):
    whole, run = train(write_config()), train(write_config())
    (run / "motion.safetensors").unlink()
    (run / "checkpoint-4").rename(run / ".checkpoint-4.x.partial")
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert f"resuming {run} after step 2" in out
    assert_equal(whole, run)


def test_run_killed_before_its_first_checkpoint_starts_its_log_anew(train, write_config):
    whole, run = train(write_config()), train(write_config())
    for path in ("motion.safetensors", "checkpoint-2", "checkpoint-4"):
        path = run / path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert train(write_config(), "--resume") == run
    assert_equal(whole, run)
    assert [entry["step"] for entry in read_log(run)] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial",
                                  "constant_with_warmup"])
def test_every_schedule_starts_at_its_rate_whatever_its_size(name):
    rate_at = learning_rate_schedule(Config(lr_scheduler=name, learning_rate=1e-8, max_train_steps=10), 1)
    assert rate_at(0) == pytest.approx(1e-8) and 0 <= rate_at(9) <= 1e-8


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_damaged_newest_checkpoint_is_passed_over_and_said(train, run_main, write_config, name):
    whole, run = train(write_config()), train(write_config())
    (run / "motion.safetensors").unlink()
    damaged = run / "checkpoint-4" / name
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1   # one bit, in what no header tells of
    damaged.write_bytes(content)
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert (f"{run / 'checkpoint-4'}: is damaged, and set aside as damaged-checkpoint-4. "
            f"Going on from checkpoint-2." in out)
    assert f"resuming {run} after step 2" in out
    assert_equal(whole, run)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-4"]


def test_run_without_a_whole_checkpoint_starts_over(train, run_main, write_config):
    config = write_config("checkpointing_steps=[3]")
    whole, run = train(config), train(config)
    (run / "motion.safetensors").unlink()
    (run / "checkpoint-3" / "state.json").write_text("{")
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0 and "Going on from the start." in out, err
    assert_equal(whole, run)


def test_only_the_newest_checkpoints_are_kept(train, write_config):
    run = train(write_config("checkpointing_steps=1", "keep_checkpoints=2"))
    assert [path.name for path in checkpoints(run)] == ["checkpoint-3", "checkpoint-4"]


def test_run_killed_before_it_removed_an_old_checkpoint_does_so_when_resumed(train, run_main, write_config):
    run = train(write_config("checkpointing_steps=1", "keep_checkpoints=2"))
    shutil.copytree(run / "checkpoint-3", run / "checkpoint-2")
    (run / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert [path.name for path in checkpoints(run)] == ["checkpoint-3", "checkpoint-4"]
    assert not list(run.glob(".*partial*"))


def test_finished_run_is_not_resumed(train, run_main, write_config):
    run = train(write_config())
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 2 and f"{run}: has finished" in err


def test_config_mistakes_and_broken_clips_are_reported_together(run_main, write_config, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"")
    config = write_config(f"train_data.path={tmp_path / 'clips'}", "pretrained_model_path=/nowhere")
    code, _, err = run_main("train_model", "--config", config, "max_steps=3", "seed=many")
    assert code == 2
    for words in ("max_steps is not a key", "seed", "broken.mp4: is empty", "/nowhere: does not exist"):
        assert words in err, err


def test_resume_without_a_run_says_so(run_main, write_config):
    code, _, err = run_main("train_model", "--config", write_config(), "--resume")
    assert code == 2 and "has no unfinished run of 'spin' to resume" in err


def test_resume_with_another_config_names_the_keys(train, run_main, write_config):
    config = write_config()
    (train(config) / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--config", config, "--resume",
                            "learning_rate=5", "train_data.fps=7")
    assert code == 2
    assert "learning_rate was 0.001, is 5.0" in err and "train_data.fps was 8.0, is 7.0" in err


def test_resume_with_an_edited_clip_names_it(train, run_main, write_config, clip_folders, tmp_path):
    exemplars = shutil.copytree(clip_folders[0], tmp_path / "exemplars")
    config = write_config(f"train_data.path={exemplars}")
    (train(config) / "motion.safetensors").unlink()
    write_clip(exemplars / "spin_2.mp4", seed=9)
    code, _, err = run_main("train_model", "--config", config, "--resume")
    assert code == 2 and "was trained on other clips or captions: exemplar/spin_2.mp4" in err


def test_resume_with_another_caption_names_the_clip(train, run_main, write_config, clip_folders, tmp_path):
    exemplars = shutil.copytree(clip_folders[0], tmp_path / "exemplars")
    config = write_config(f"train_data.path={exemplars}")
    (train(config) / "motion.safetensors").unlink()
    (exemplars / "spin_1.txt").write_text("somebody else")
    code, _, err = run_main("train_model", "--config", config, "--resume")
    assert code == 2 and "other clips or captions: exemplar/spin_1.mp4" in err


def test_resume_with_moved_clips_and_base_goes_on(train, run_main, write_config, clip_folders, tiny_base,
                                                  tmp_path):
    config = write_config()
    whole, run = train(config), train(config)
    for path in ("motion.safetensors", "checkpoint-4"):
        shutil.rmtree(run / path) if (run / path).is_dir() else (run / path).unlink()
    exemplars = shutil.copytree(clip_folders[0], tmp_path / "m")
    base = shutil.copytree(tiny_base, tmp_path / "base")
    assert train(config, "--resume", f"train_data.path={exemplars}", f"pretrained_model_path={base}") == run
    assert_equal(whole, run)


def test_resume_on_another_base_is_refused(train, run_main, write_config, other_base):
    config = write_config()
    (train(config) / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--config", config, "--resume",
                            f"pretrained_model_path={other_base}")
    assert code == 2 and "was trained on another base" in err


def test_run_that_does_not_exist_cannot_be_resumed(run_main, write_config, tmp_path):
    nowhere = tmp_path / "nope"
    for arguments in (["--resume", nowhere], ["--config", write_config(), "--resume", nowhere]):
        code, _, err = run_main("train_model", *arguments)
        assert code == 2 and "nope: does not exist. Runs are folders" in err


def test_loss_that_is_not_finite_stops_before_the_weights(run_main, write_config, monkeypatch):
    from training import step

    losses = step.clip_losses
    calls = []

    def broken(*arguments):
        calls.append(1)
        return losses(*arguments) * (torch.nan if len(calls) > 4 else 1)   # two passes a step

    monkeypatch.setattr(step, "clip_losses", broken)
    config = write_config("train_batch_size=1", "train_data.use_bucketing=false")
    code, _, err = run_main("train_model", "--config", config)
    run = run_of(config)
    assert code == 2 and "the loss is not finite" in err and "Try a lower learning_rate" in err
    assert len(read_log(run)) == 2 and "step 3:" in err and "spin_" in err
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2"]
    assert not (run / "motion.safetensors").exists()


def test_gradient_that_is_not_finite_stops_before_the_weights(run_main, write_config, monkeypatch):
    """A loss that is finite can have a gradient that is not."""
    from training import step

    losses = step.clip_losses
    monkeypatch.setattr(step, "clip_losses", lambda *arguments: losses(*arguments) * 1e37)
    config = write_config("checkpointing_steps=1")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "step 1: the gradient is not finite" in err and "spin_" in err, err
    assert "Try a lower learning_rate" in err and not checkpoints(run_of(config))


def test_weights_that_overflow_leave_the_last_good_checkpoint(run_main, write_config):
    """A learning rate that no network survives: the first checkpoint whose numbers are finite stays."""
    config = write_config("learning_rate=1e15", "checkpointing_steps=1", "max_train_steps=20")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "not finite" in err and "Try a lower learning_rate" in err, err
    for folder in checkpoints(run_of(config)):
        assert all(tensor.isfinite().all() for tensor in load_file(folder / "state.safetensors").values())
    assert not (run_of(config) / "motion.safetensors").exists()


def test_disk_that_fills_keeps_the_checkpoint_before(run_main, write_config, monkeypatch):
    from training import checkpoint

    write = checkpoint.write_tensors

    def full_at_step_4(path, tensors, metadata=None):
        if "checkpoint-4" in str(path):
            raise OSError(28, "No space left on device")
        return write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "write_tensors", full_at_step_4)
    config = write_config()
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "checkpoint-4: could not be written (No space left on device)" in err
    assert [path.name for path in checkpoints(run_of(config))] == ["checkpoint-2"]
    monkeypatch.undo()


def test_dry_run_writes_nothing_but_a_report(run_main, write_config):
    config = write_config()
    code, out, _ = run_main("train_model", "--config", config, "--dry-run")
    assert code == 0 and "memory, estimated:" in out and "disk, at most:" in out
    assert all(name in out for name in ("spin_1.mp4", "spin_2.mp4", "spin_3.mp4", "a_man_walking.mp4"))
    assert not (config.parent / "results").exists()


def test_missing_tensorboard_is_said_before_anything_slow(run_main, write_config, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = run_main("train_model", "--config", write_config(), "report_to=tensorboard")
    assert code == 2 and "pip install tensorboard" in err


def test_metadata_of_the_result_says_how_it_was_made(train, write_config, tiny_base):
    from models.motion_weights import read_motion_info
    from training.config_loading import parse_config

    info = read_motion_info(train(write_config()) / "motion.safetensors")
    assert (info.base, info.step, info.fps, info.placeholder_token) == (str(tiny_base), 4, 8.0, "sks")
    assert info.groups == ["cross", "temporal", "temp_convs"] and "torch" in info.versions
    assert parse_config(info.config, "motion")[0].learning_rate == 1e-3


def test_checkpoint_state_is_plain_json(train, write_config):
    state = json.loads((train(write_config()) / "checkpoint-2" / "state.json").read_text())
    assert state["step"] == 2 and state["num_processes"] == 1
    assert sorted(state["clips"])[0] == "exemplar/spin_1.mp4"
