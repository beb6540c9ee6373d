"""Training end to end on a tiny base: what trains, what repeats exactly, and what stops it."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.tunable import select_tunable, union
from tests.conftest import ROOT, run_script_here, write_clip
from training.config import Config, ValidationData
from training.learning_rate import learning_rate_schedule
from training.run_folder import checkpoints, read_log
from training.run_page import read_page, show_scores


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


SHORT = ("max_train_steps=2", "checkpointing_steps=1")


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, save_small_config) -> Path:
    """A finished run of two steps with a checkpoint of each, to be compared with and copied, not changed."""
    config = save_small_config(tmp_path_factory.mktemp("short"), *SHORT)
    assert run_script_here("train_model", "--config", config) == 0
    return run_of(config)


@pytest.fixture
def copied_run(short_run, tmp_path) -> Path:
    return shutil.copytree(short_run, tmp_path / "results" / short_run.name)


@pytest.fixture
def killed_run(copied_run):
    """Return a function that gives the short run as a kill leaves it: without the named parts."""
    def copy(*missing: str) -> Path:
        run = copied_run
        for path in (run / name for name in ("motion.safetensors", *missing)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return run

    return copy


def test_exactly_the_named_groups_train(short_run, tiny_base):
    base = load_file(tiny_base / "unet" / "diffusion_pytorch_model.safetensors")
    tuned = load_file(short_run / "motion.safetensors")
    assert sorted(tuned) == union(select_tunable(base, ["cross", "temporal", "temp_convs"]))
    assert all(not torch.equal(tuned[name], base[name].half()) for name in tuned)


def test_run_folder_has_what_is_promised(train, write_config):
    run = train(write_config(*SHORT, "validation_steps=1"))
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.yaml", "log.jsonl", "run.html", "samples", "checkpoint-1", "checkpoint-2",
        "motion.safetensors", "video_lightbox.html"}
    folders = sorted((run / "samples").iterdir())
    assert [path.name for path in folders] == ["step_00000", "step_00001", "step_00002"]
    for folder in (run / "samples").iterdir():
        assert {path.name for path in folder.iterdir()} == {
            ".index.lock", "a_cat_doing_the_sks_spin_seed64.mp4", "text.json", "video_lightbox.html"}


def test_samples_of_the_untuned_base_can_be_left_out(train, write_config):
    run = train(write_config("max_train_steps=1", "validation_steps=1",
                             "validation_data.before_training=false"))
    assert [path.name for path in (run / "samples").iterdir()] == ["step_00001"]


def test_samples_of_steps_that_are_taken_again_are_rendered_again(train, write_config, run_main):
    """Also where validation_steps no longer asks for them: they were there."""
    run = train(write_config(*SHORT, "checkpointing_steps=[1]", "validation_steps=1",
                             "validation_data.before_training=false"))
    before = (run / "samples" / "step_00002" / "a_cat_doing_the_sks_spin_seed64.mp4").stat().st_mtime_ns
    code, out, err = run_main("train_model", "--resume", run, "max_train_steps=3", "validation_steps=3")
    assert code == 0, out + err
    assert {path.name for path in (run / "samples").iterdir()} == {"step_00001", "step_00002", "step_00003"}
    after = (run / "samples" / "step_00002" / "a_cat_doing_the_sks_spin_seed64.mp4").stat().st_mtime_ns
    assert after > before
    code, out, err = run_main("train_model", "--resume", run, "max_train_steps=4", "validation_steps=null")
    assert code == 0 and "removed the samples of 2 steps after step 1" in out, out + err
    assert [path.name for path in (run / "samples").iterdir()] == ["step_00001"]


def test_error_while_samples_are_rendered_loses_no_step(run_main, write_config, monkeypatch):
    from training import loop

    def no_memory(*_):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB.")

    monkeypatch.setattr(loop, "write_samples", no_memory)
    config = write_config("max_train_steps=3", "checkpointing_steps=null", "validation_steps=[2]",
                          "validation_data.before_training=false")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "Lower validation_data.width" in err and "train_data" not in err
    assert [path.name for path in config.parent.glob("results/spin-*/checkpoint-*")] == ["checkpoint-2"]


def test_key_that_resumes_the_latest_run_starts_one_where_there_is_none(run_main, write_config):
    config = write_config("max_train_steps=1", "resume_from_checkpoint=latest")
    code, out, err = run_main("train_model", "--config", config)
    assert code == 0 and "no unfinished run of 'spin', so a new one starts" in out, err
    code, _, err = run_main("train_model", "--config", config, "--resume")
    assert code == 2 and "has no unfinished run of 'spin' to resume" in err


def test_steps_that_never_come_are_noted(run_main, write_config):
    config = write_config("max_train_steps=3", "checkpointing_steps=[4,8]", "validation_steps=5")
    _, out, _ = run_main("train_model", "--config", config, "--dry-run")
    assert "none of checkpointing_steps ([4, 8]) comes within the 3 steps: a run that is killed" in out
    assert "none of validation_steps (5) comes within the 3 steps" in out
    _, out, _ = run_main("train_model", "--config", config, "--dry-run", "checkpointing_steps=null",
                         "validation_steps=3")
    assert "comes within" not in out


def test_captions_are_dropped(train, write_config, short_run):
    """All but all of them: what is learned then comes from the empty caption, which the cache has."""
    run = train(write_config(*SHORT, "caption_dropout_rate=0.99"))
    assert any(not torch.equal(*pair) for pair in zip(*(
        load_file(folder / "motion.safetensors").values() for folder in (run, short_run))))


@pytest.mark.parametrize("dropout", ["lora_dropout=0.1", "temporal_dropout=0.1"])
def test_free_memory_does_not_choose_what_is_dropped_out(write_config, dropout):
    """One pass and two draw other masks, so there is one way, whatever is free."""
    from training.config_loading import load_config
    from training.plan import make_plan

    def ways(*changes):
        plan = make_plan(load_config(write_config("lora_rank=2", *changes))[0])
        return {apart for apart, _ in plan.footprints}

    assert ways() == {False, True} and ways(dropout) == {True}


def test_log_has_a_line_per_step_with_both_losses(short_run):
    log = read_log(short_run)
    assert [entry["step"] for entry in log] == [1, 2]
    for entry in log:
        assert entry["loss"] == pytest.approx(entry["exemplar"] + 0.5 * entry["regularization"], rel=1e-5)
        assert entry["lr"] == 1e-3 and entry["grad_norm"] > 0 and entry["seconds"] > 0


def test_ends_with_movement_and_the_next_command(run_main, write_config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)   # the command is for the folder it is printed in
    code, out, _ = run_main("train_model", "--config", write_config("max_train_steps=1"))
    assert code == 0
    assert [line.split()[0] for line in out.partition("moved from the base")[2].splitlines()[1:4]] == [
        "cross", "temporal", "temp_convs"]
    command = shlex.split(out.strip().splitlines()[-1])
    assert Path(command[0]).name.startswith("python")
    assert command[1:3] == [str(ROOT / "generate_pretrained.py"), "-m"]
    assert command[-4:] == ["-p", "a cat doing the V* spin", "-s", "64"]


def test_next_command_names_a_list_of_prompts_and_no_prompt_beside_it():
    from train_model import next_command

    config = Config(validation_data=ValidationData(prompt=["a bird", "p2.csv"]))
    assert next_command(config, Path("run")).endswith(" -p p2.csv -s 64")


def test_same_seed_same_weights_and_another_seed_others(train, write_config, short_run):
    again, other = train(write_config(*SHORT)), train(write_config("max_train_steps=1", "seed=65"))
    assert again != short_run
    assert_equal(short_run, again)
    with pytest.raises(AssertionError):
        assert_equal(short_run / "checkpoint-1", other)


def test_cache_changes_nothing(train, write_config, monkeypatch, tiny_base):
    """A run fills its own cache, the next reads it, and another encodes at every step."""
    from models.base import load_base
    from training import inputs
    from training.inputs import encode_clip, latents_from

    config = write_config("cached_latent_dir=null", "max_train_steps=2", "motion_dtype=fp32",
                          "train_data.num_shifts=2")
    cold, warm = train(config), train(config)
    pipeline = load_base(str(tiny_base)).pipeline

    def encode_now(_, window):
        posterior = encode_clip(pipeline, window.clip, window.shift)
        stop = window.start + window.clip.window
        windowed = {name: rows[window.start:stop] for name, rows in posterior.items()}
        return latents_from(windowed, window.generator)

    monkeypatch.setattr(inputs, "sample_latents", encode_now)
    assert_equal(cold, warm)
    assert_equal(cold, train(config))


def test_caption_is_read_from_the_cache_once(tmp_path, monkeypatch):
    from training import inputs

    path, reads, read = tmp_path / "caption.safetensors", [], inputs.read_tensors
    inputs.write_tensors(path, {"prompt_embeds": torch.ones(3, 2)})
    monkeypatch.setattr(inputs, "read_tensors", lambda path: reads.append(path) or read(path))
    embeds = [inputs.read_prompt_embeds(path) for _ in range(3)]
    assert reads == [path] and all(torch.equal(each, torch.ones(3, 2)) for each in embeds)


def test_free_memory_is_asked_for_after_the_encoders_have_left(train, write_config, monkeypatch):
    from training import setup

    given_back, asked, fastest_way = [], [], setup.fastest_way
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    monkeypatch.setattr(setup, "fastest_way",
                        lambda footprints: asked.append(bool(given_back)) or fastest_way(footprints))
    train(write_config("max_train_steps=1"))
    assert asked == [True]


def test_neither_samples_nor_gradient_checkpointing_change_the_weights(train, write_config):
    common = ["temporal_dropout=0.1", "max_train_steps=2", "checkpointing_steps=null"]
    plain, both = (train(write_config(*common, *others)) for others in (
        (), ("validation_steps=1", "gradient_checkpointing=true")))
    assert len(list((both / "samples").iterdir())) == 3
    assert_equal(plain, both)


def test_accumulation_is_the_batch_in_pieces(train, write_config):
    """Two micro-steps of one example and one step of two see the same examples, timesteps and noise."""
    pieces = train(write_config("gradient_accumulation_steps=2", "max_train_steps=1", "motion_dtype=fp32"))
    whole = train(write_config("train_batch_size=2", "max_train_steps=1", "motion_dtype=fp32"))
    assert read_log(pieces)[0]["loss"] == pytest.approx(read_log(whole)[0]["loss"], rel=1e-5)
    assert read_log(pieces)[0]["grad_norm"] == pytest.approx(read_log(whole)[0]["grad_norm"], rel=1e-4)


def test_exemplars_and_regularization_apart_are_both_together(train, write_config, monkeypatch):
    """One pass for each and one for both see the same examples, timesteps and noise."""
    from training import setup, step

    losses, num_passes, logs = step.clip_losses, [0, 0], []
    for apart in (False, True):
        def counted(*arguments, apart=apart):
            num_passes[apart] += 1
            return losses(*arguments)

        monkeypatch.setattr(step, "clip_losses", counted)
        monkeypatch.setattr(setup, "fastest_way", lambda footprints, apart=apart: (apart, False))
        run = train(write_config("max_train_steps=1", "train_data.use_bucketing=false"))
        logs.append(read_log(run)[0])
    assert num_passes == [1, 2]
    for name, rounding in (("loss", 1e-5), ("exemplar", 1e-5), ("regularization", 1e-5), ("grad_norm", 1e-4)):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=rounding), name


@pytest.mark.parametrize("changes", [
    ["train_data.sampling=uniform"], ["train_data.sampling=low-level"], ["use_offset_noise=true"],
    ["train_data.train_weights=spatial"], ["train_batch_size=3"], ["prior_preservation=false"],
    ["lr_scheduler=cosine", "lr_warmup_steps=1"], ["mixed_precision=bf16"], ["trainable_modules=[all]"],
    ["temporal_dropout=0.5"], ["prior_lambda=2"], ["train_data.class_path=null"],
])
def test_every_option_trains_and_matters(train, write_config, changes, short_run):
    num_steps = 2 if "sampling" in changes[0] else 1   # every sampling draws the same timesteps in step 1
    changed = train(write_config(*changes, f"max_train_steps={num_steps}", "checkpointing_steps=null"))
    assert len(read_log(changed)) == num_steps
    with pytest.raises(AssertionError):
        assert_equal(short_run / f"checkpoint-{num_steps}", changed)


def test_bucketing_matters_where_a_clip_has_another_shape(train, write_config, clip_folders, tmp_path):
    (tmp_path / "landscape").mkdir()
    for path in clip_folders[0].glob("spin_3.*"):
        shutil.copy(path, tmp_path / "landscape")
    kept, cropped = (train(write_config(
        f"train_data.path={tmp_path / 'landscape'}", "train_data.class_path=null", "max_train_steps=1",
        "checkpointing_steps=null", f"train_data.use_bucketing={bucketing}")) for bucketing in (True, False))
    with pytest.raises(AssertionError):
        assert_equal(kept, cropped)


def test_single_frames_skip_temporal_layers_as_the_config_says(train, write_config):
    first_losses = {read_log(train(write_config(
        "train_data.train_weights=spatial", "trainable_modules=[cross,self]", "max_train_steps=1",
        "checkpointing_steps=null", f"train_data.single_frame_layers={layers}")))[0]["loss"]
        for layers in ("all", "spatial")}
    assert len(first_losses) == 2


def test_v_prediction_base_trains(train, write_config, other_base):
    run = train(write_config(f"pretrained_model_path={other_base}", "max_train_steps=1",
                             "checkpointing_steps=null"))
    assert [0.01 < entry["exemplar"] < 3 for entry in read_log(run)] == [True]


def test_loss_falls_on_one_clip(train, write_config, tmp_path):
    """If the target or the noise were wrong, the loss would stay where it was."""
    run = train(write_config("max_train_steps=24", "learning_rate=5e-3", "trainable_modules=[all]",
                             "train_data.class_path=null", "checkpointing_steps=null"))
    log = read_log(run)
    early, late = (sum(entry["exemplar"] for entry in part) / 8 for part in (log[:8], log[-8:]))
    assert late < 0.7 * early


def test_learning_rate_follows_the_schedule(train, write_config):
    run = train(write_config("lr_scheduler=linear", "lr_warmup_steps=1", "max_train_steps=3"))
    assert [entry["lr"] for entry in read_log(run)] == pytest.approx([0, 1e-3, 5e-4])


def test_scale_lr_counts_batch_and_accumulation_once(train, write_config):
    run = train(write_config("scale_lr=true", "train_batch_size=2", "gradient_accumulation_steps=2",
                             "max_train_steps=1"))
    assert read_log(run)[0]["lr"] == pytest.approx(4e-3)


def test_stop_and_resume_equals_no_stop(train, write_config):
    config = write_config(*SHORT, "temporal_dropout=0.1", "gradient_accumulation_steps=2",
                          "lr_scheduler=cosine", "validation_steps=2")
    run = train(config)
    whole = shutil.copytree(run, config.parent / "whole")
    # as a kill while it saves step 2 leaves it
    (run / "motion.safetensors").unlink()
    (run / "checkpoint-2").rename(run / ".checkpoint-2.x.partial")
    assert train(config, "--resume") == run
    assert_equal(whole, run)
    assert [entry["loss"] for entry in read_log(run)] == [entry["loss"] for entry in read_log(whole)]
    assert not list(run.glob(".*partial*"))


def test_run_named_to_resume_brings_its_own_config(killed_run, run_main, short_run):
    run = killed_run("checkpoint-2")
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert f"resuming {run} after step 1" in out
    assert_equal(short_run, run)


def test_run_killed_before_its_first_checkpoint_starts_its_log_anew(killed_run, train, write_config,
                                                                    short_run):
    run = killed_run("checkpoint-1", "checkpoint-2")
    assert train(write_config(*SHORT), "--resume") == run
    assert_equal(short_run, run)
    assert [entry["step"] for entry in read_log(run)] == [1, 2]


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial",
                                  "constant_with_warmup"])
def test_every_schedule_starts_at_its_rate_whatever_its_size(name):
    rate_at = learning_rate_schedule(Config(lr_scheduler=name, learning_rate=1e-8, max_train_steps=10), 1)
    assert rate_at(0) == pytest.approx(1e-8) and 0 <= rate_at(9) <= 1e-8


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_damaged_newest_checkpoint_is_passed_over_and_said(killed_run, run_main, short_run, name):
    run = killed_run()
    damaged = run / "checkpoint-2" / name
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1   # one bit, in what no header tells of
    damaged.write_bytes(content)
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert f"{run / 'checkpoint-2'}: is damaged" in out and "set aside as damaged-checkpoint-2" in out
    assert "Going on from checkpoint-1." in out and f"resuming {run} after step 1" in out
    assert_equal(short_run, run)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-1", "checkpoint-2"]


def test_run_without_a_whole_checkpoint_starts_over(killed_run, run_main, short_run):
    run = killed_run("checkpoint-1")
    (run / "checkpoint-2" / "state.json").write_text("{")
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0 and "Going on from the start." in out, err
    assert_equal(short_run, run)


def test_only_the_newest_checkpoints_are_kept_also_after_a_kill(train, run_main, write_config):
    run = train(write_config("checkpointing_steps=1", "max_train_steps=3", "keep_checkpoints=2"))
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-3"]
    shutil.copytree(run / "checkpoint-2", run / "checkpoint-1")   # killed before it removed this one
    (run / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 0, err
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-3"]
    assert not list(run.glob(".*partial*"))


def test_finished_run_is_not_resumed(run_main, short_run):
    code, _, err = run_main("train_model", "--resume", short_run)
    assert code == 2 and f"{short_run}: has finished" in err and "add a larger max_train_steps" in err


def test_finished_run_trains_further_as_if_it_had_been_longer(copied_run, run_main, baseline_run):
    """Two steps, then two more, are four steps, bit for bit."""
    run = copied_run
    before = load_file(run / "motion.safetensors")
    code, out, err = run_main("train_model", "--resume", run, "max_train_steps=4")
    assert code == 0, out + err
    assert f"resuming {run} after step 2" in out and "stretched" not in out
    assert_equal(baseline_run, run)
    assert [entry["loss"] for entry in read_log(run)] == [entry["loss"] for entry in read_log(baseline_run)]
    assert any(not torch.equal(before[name], tensor)
               for name, tensor in load_file(run / "motion.safetensors").items())


def test_run_killed_while_it_trains_further_keeps_its_result_and_goes_on(run_main, copied_run, train,
                                                                         write_config, monkeypatch,
                                                                         baseline_run):
    from training import loop

    run = copied_run
    before, take_step = (run / "motion.safetensors").read_bytes(), loop.take_step

    def killed(training, step):
        if step == 3:
            raise KeyboardInterrupt
        return take_step(training, step)

    monkeypatch.setattr(loop, "take_step", killed)
    code, _, _ = run_main("train_model", "--resume", run, "max_train_steps=4")
    assert code == 130 and (run / "motion.safetensors").read_bytes() == before
    monkeypatch.undo()
    assert train(write_config("max_train_steps=4", "checkpointing_steps=1"), "--resume") == run
    assert_equal(baseline_run, run)


def test_schedule_of_a_run_that_trains_further_is_stretched_and_said(killed_run, run_main):
    run = killed_run("checkpoint-2")
    text = (run / "config.yaml").read_text().replace("lr_scheduler: constant", "lr_scheduler: linear")
    (run / "config.yaml").write_text(text)
    code, out, err = run_main("train_model", "--resume", run, "max_train_steps=4")
    assert code == 0, err
    assert "lr_scheduler: linear is stretched from 2 to 4 steps" in out
    assert [entry["lr"] for entry in read_log(run)][1:] == pytest.approx([7.5e-4, 5e-4, 2.5e-4])


def test_samples_of_a_step_that_is_taken_anew_are_rendered_anew(killed_run, run_main):
    """The schedule is stretched, so the same step has other weights. Its samples and scores stayed."""
    run = killed_run("checkpoint-2")
    text = (run / "config.yaml").read_text().replace("lr_scheduler: constant", "lr_scheduler: linear")
    (run / "config.yaml").write_text(text)
    old = [run / "samples" / name / "old.mp4" for name in ("step_00001", "step_00002")]
    for path in old:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    show_scores(run, {"step": 2})
    code, out, err = run_main("train_model", "--resume", run, "max_train_steps=4")
    assert code == 0, err
    assert [path.exists() for path in old] == [True, False] and read_page(run)["scores"] is None


def test_finished_run_without_a_checkpoint_cannot_train_further(killed_run, run_main, short_run):
    run = killed_run("checkpoint-1", "checkpoint-2")
    shutil.copy(short_run / "motion.safetensors", run)
    code, _, err = run_main("train_model", "--resume", run, "max_train_steps=5")
    assert code == 2 and "kept no checkpoint, so it cannot train further" in err


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


def test_resume_with_another_config_names_the_keys(killed_run, run_main, write_config):
    killed_run()
    code, _, err = run_main("train_model", "--config", write_config(*SHORT), "--resume",
                            "learning_rate=5", "train_data.fps=7")
    assert code == 2
    assert "learning_rate was 0.001, is 5.0" in err and "train_data.fps was 8.0, is 7.0" in err


def test_resume_with_an_edited_clip_or_caption_names_the_clip(killed_run, run_main, clip_folders, tmp_path):
    run, exemplars = killed_run(), shutil.copytree(clip_folders[0], tmp_path / "exemplars")
    write_clip(exemplars / "spin_2.mp4", seed=9)
    (exemplars / "spin_1.txt").write_text("somebody else")
    code, _, err = run_main("train_model", "--resume", run, f"train_data.path={exemplars}")
    assert code == 2
    assert "was trained on other clips or captions: exemplar/spin_1.mp4, exemplar/spin_2.mp4. " in err


def test_resume_with_folders_in_another_order_is_refused(train, run_main, write_config, clip_folders,
                                                         tmp_path):
    """Clips are drawn by their number, so other clips would be trained on than without a stop."""
    folders = [tmp_path / name for name in ("one", "two")]
    for number, folder in enumerate(folders, start=1):
        folder.mkdir()
        for path in clip_folders[0].glob(f"spin_{number}.*"):
            shutil.copy(path, folder)
    run = train(write_config(*SHORT, f"train_data.path=[{folders[0]},{folders[1]}]"))
    (run / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--resume", run, f"train_data.path=[{folders[1]},{folders[0]}]")
    assert code == 2 and "was trained on the same clips in another order" in err
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 0, err


def test_resume_with_another_part_of_a_file_names_it(train, run_main, write_config, clip_folders, tmp_path):
    clip = clip_folders[0] / "spin_1.mp4"

    def list_parts(caption: str, first: int) -> None:
        parts = [{"frame_index": 0, "prompt": "V* spin"}, {"frame_index": first, "prompt": caption}]
        (tmp_path / "parts.json").write_text(json.dumps(
            {"name": "parts", "data": [{"video_path": str(clip), "num_frames": 14, "data": parts}]}))

    list_parts("V* spin to the left", 6)
    run = train(write_config(*SHORT, "dataset_types=[json]",
                             f"train_data.json_path={tmp_path / 'parts.json'}"))
    (run / "motion.safetensors").unlink()
    for caption, first in (("V* spin to the right", 6), ("V* spin to the left", 5)):
        list_parts(caption, first)
        code, _, err = run_main("train_model", "--resume", run)
        assert code == 2 and "was trained on other clips or captions" in err, err
        assert "exemplar/spin_1.mp4 (2). Put them back" in err, err
    list_parts("V* spin to the left", 6)
    code, _, err = run_main("train_model", "--resume", run)
    assert code == 0, err


def test_resume_with_moved_clips_and_base_goes_on(killed_run, train, write_config, clip_folders, tiny_base,
                                                  tmp_path, short_run):
    config, run = write_config(*SHORT), killed_run("checkpoint-2")
    exemplars = shutil.copytree(clip_folders[0], tmp_path / "m")
    base = shutil.copytree(tiny_base, tmp_path / "base")
    assert train(config, "--resume", f"train_data.path={exemplars}", f"pretrained_model_path={base}") == run
    assert_equal(short_run, run)


def test_resume_on_another_base_is_refused(killed_run, run_main, other_base):
    run = killed_run()
    before = (run / "config.yaml").read_bytes()
    code, _, err = run_main("train_model", "--resume", run, f"pretrained_model_path={other_base}",
                            "max_train_steps=9")
    assert code == 2 and "was trained on another base" in err
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_resume_on_a_base_with_another_encoder_is_refused(killed_run, run_main, tiny_base, tmp_path, part):
    """The latents or the embeddings of the remaining steps would be others than those of the first."""
    run, base = killed_run("checkpoint-2"), shutil.copytree(tiny_base, tmp_path / "base")
    weights = next((base / part).glob("*.safetensors"))
    save_file({name: tensor + 0.1 for name, tensor in load_file(weights).items()}, weights)
    code, _, err = run_main("train_model", "--resume", run, f"pretrained_model_path={base}")
    assert code == 2 and f"{run}: was trained on another base than {base} is now" in err


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
        return losses(*arguments) * (torch.nan if len(calls) > 1 else 1)   # one pass a step

    monkeypatch.setattr(step, "clip_losses", broken)
    config = write_config(*SHORT, "train_batch_size=1", "train_data.use_bucketing=false")
    code, _, err = run_main("train_model", "--config", config)
    run = run_of(config)
    assert code == 2 and "the loss is not finite" in err and "Try a lower learning_rate" in err
    assert len(read_log(run)) == 1 and "step 2:" in err and "spin_" in err
    assert [path.name for path in checkpoints(run)] == ["checkpoint-1"]
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

    def full_at_step_2(path, tensors, metadata=None):
        if "checkpoint-2" in str(path):
            raise OSError(28, "No space left on device")
        return write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "write_tensors", full_at_step_2)
    config = write_config(*SHORT)
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "checkpoint-2: could not be written (No space left on device)" in err
    assert [path.name for path in checkpoints(run_of(config))] == ["checkpoint-1"]
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


def test_metadata_of_the_result_says_how_it_was_made(short_run, tiny_base):
    from models.motion_weights import read_motion_info
    from training.config_loading import parse_config

    info = read_motion_info(short_run / "motion.safetensors")
    assert (info.base, info.step, info.fps, info.placeholder_token) == (str(tiny_base), 2, 8.0, "sks")
    assert info.groups == ["cross", "temporal", "temp_convs"] and "torch" in info.versions
    assert parse_config(info.config, "motion")[0].learning_rate == 1e-3


def test_checkpoint_state_is_plain_json(short_run):
    state = json.loads((short_run / "checkpoint-2" / "state.json").read_text())
    assert state["step"] == 2 and state["num_processes"] == 1
    assert sorted(state["clips"])[0] == "exemplar/spin_1.mp4"
