"""Runs with lora_rank: everything that holds for whole weights holds for low-rank updates."""

import shutil

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.lora_files import lora_weights
from models.motion_weights import read_motion_info
from models.tunable import select_tunable, union
from tests.conftest import run_script_here
from tests.training.test_loop import assert_equal, run_of
from training.run_folder import read_log
from utils.tensor_files import tensor_bytes

LORA = ("lora_rank=4", "lora_alpha=8", "lora_dropout=0.1")
TWO_STEPS = ("max_train_steps=2", "checkpointing_steps=null")   # as many as `lora_run` has


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory, save_small_config):
    """A finished run of two steps of low-rank updates with samples of the last, not to be changed."""
    folder = tmp_path_factory.mktemp("lora")
    config = save_small_config(folder, *LORA, "max_train_steps=2", "checkpointing_steps=1",
                               "validation_steps=2", "validation_data.before_training=false")
    assert run_script_here("train_model", "--config", config) == 0
    return run_of(config)


@pytest.fixture
def train(run_main, write_config):
    def run(*changes: str):
        config = write_config(*LORA, *changes)
        code, out, err = run_main("train_model", "--config", config)
        assert code == 0, out + err
        return run_of(config)

    return run


def frames(folder) -> np.ndarray:
    (path,) = folder.glob("*.mp4")
    return np.stack(imageio.mimread(path))


def test_file_has_the_low_rank_updates_of_the_groups_and_all_have_moved(lora_run, tiny_base):
    base = {name: tuple(tensor.shape) for name, tensor in
            load_file(tiny_base / "unet" / "diffusion_pytorch_model.safetensors").items()}
    weights = lora_weights(base, union(select_tunable(base, ["cross", "temporal", "temp_convs"])))
    tensors = load_file(lora_run / "motion.safetensors")
    assert sorted(tensors) == sorted(f"unet.{name.removesuffix('weight')}lora_{side}.weight"
                                     for name in weights for side in "AB")
    assert all(tensor.dtype == torch.float16 and tensor.any() for tensor in tensors.values())
    info = read_motion_info(lora_run / "motion.safetensors")
    assert (info.lora.rank, info.lora.alpha, info.groups) == (4, 4, ["cross", "temporal", "temp_convs"])


def test_stop_and_resume_equals_no_stop(lora_run, run_main, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "results" / lora_run.name)
    (run / "motion.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-2")
    code, out, err = run_main("train_model", "--resume", run)
    assert code == 0 and f"resuming {run} after step 1" in out, err
    assert_equal(lora_run, run)


def test_checkpoint_holds_masters_in_float32_and_the_file_of_its_step(lora_run):
    tensors = load_file(lora_run / "checkpoint-2" / "state.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("weight/")} == {torch.float32}
    assert_equal(lora_run, lora_run / "checkpoint-2")


def test_samples_are_what_generation_renders(lora_run, run_main, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", lora_run, "-o", tmp_path, "-s", "64",
                            "-p", "a cat doing the V* spin", "--steps", "2", "--sampler", "dpm")
    assert code == 0, err
    assert np.array_equal(frames(tmp_path), frames(lora_run / "samples" / "step_00002"))


def test_strength_zero_renders_the_base(lora_run, tiny_base, run_main, tmp_path):
    prompt = ["-s", "64", "-p", "a cat doing the sks spin", "--steps", "2", "-d", "4", "-r", "64",
              "--precision", "no"]
    for out, model in (("none", ["-m", lora_run, "--strength", "0"]), ("base", ["-m", tiny_base])):
        assert run_main("generate_pretrained", *model, "-o", tmp_path / out, *prompt)[0] == 0
    assert np.array_equal(frames(tmp_path / "none"), frames(tmp_path / "base"))


def test_neither_gradient_checkpointing_nor_samples_change_the_weights(lora_run, train):
    assert_equal(lora_run, train(*TWO_STEPS, "gradient_checkpointing=true"))


def test_accumulation_is_the_batch_in_pieces(train):
    same = ("lora_dropout=0", "temporal_dropout=0", "motion_dtype=fp32", *TWO_STEPS)
    whole = load_file(train("train_batch_size=2", *same) / "motion.safetensors")
    pieces = load_file(train("gradient_accumulation_steps=2", *same) / "motion.safetensors")
    largest = max(tensor.abs().max() for tensor in whole.values())
    assert max((whole[name] - pieces[name]).abs().max() for name in whole) < 1e-4 * largest


def test_bf16_keeps_masters_in_float32(train):
    run = train("mixed_precision=bf16", "max_train_steps=1", "checkpointing_steps=1")
    log, state = read_log(run), load_file(run / "checkpoint-1" / "state.safetensors")
    assert all(entry["grad_norm"] > 0 for entry in log)
    masters = [tensor for name, tensor in state.items() if name.startswith("weight/")]
    assert {tensor.dtype for tensor in masters} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in masters)


@pytest.mark.parametrize("change", ["seed=65", "lora_dropout=0", "lora_alpha=null", "lora_rank=3"])
def test_every_setting_matters(lora_run, train, change):
    with pytest.raises(AssertionError):
        assert_equal(lora_run, train(*TWO_STEPS, change))


def test_dropout_of_temporal_convolutions_does_not_turn_off_that_of_low_rank_updates(train):
    """Both are modules of nn.Dropout inside temp_convs."""
    alone = ("trainable_modules=[temp_convs]", "max_train_steps=1")
    with pytest.raises(AssertionError):
        assert_equal(train(*alone), train(*alone, "lora_dropout=0"))


def test_report_says_what_trains_and_the_size_of_the_file(lora_run, run_main, write_config):
    code, out, _ = run_main("train_model", "--config", write_config(*LORA), "--dry-run")
    tensors = load_file(lora_run / "motion.safetensors")
    number = sum(tensor.numel() for tensor in tensors.values())
    assert code == 0
    assert f"as low-rank updates: rank 4, alpha 8, of {len(tensors) // 2} layers, {number:,} values" in out
    assert f"motion.safetensors: {tensor_bytes(tensors) / 1e3:.3g} kB in fp16" in out
    assert f"trained weights {number * 4 / 1e3:.3g} kB, optimizer {number * 8 / 1e3:.3g} kB" in out


def test_settings_without_effect_and_small_steps_are_said(run_main, write_config):
    def report(*changes):
        return run_main("train_model", "--config", write_config(*changes), "--dry-run")[1]

    assert "lora_alpha has no effect with lora_rank: 0, which trains whole weights." in report("lora_alpha=8")
    assert "note: learning_rate 5e-06 is that of whole weights" in report("lora_rank=4", "learning_rate=5e-6")
    assert "no effect" not in report(*LORA) and "note: learning_rate" not in report(*LORA)


def test_groups_without_such_layers_are_an_error_before_anything_is_loaded(run_main, write_config):
    config = write_config(*LORA, "trainable_modules=[cross,norm1]")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("lora_rank: 'norm1' of trainable_modules has no Linear layer and no convolution")


def test_resuming_with_another_rank_is_refused(lora_run, run_main, write_config, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "results" / lora_run.name)
    (run / "motion.safetensors").unlink()
    code, _, err = run_main("train_model", "--config", run / "config.yaml", "--resume", run, "lora_rank=8")
    assert code == 2 and "lora_rank was 4, is 8" in err


@pytest.mark.parametrize("broken, words", [
    (lambda content: content.replace(b"unet.r", b"unet.x"), "damaged"),
    (lambda content: content[:-50] + b"\xff" * 50, "is damaged: its content is not what was written"),
])
def test_damaged_file_is_one_line_and_no_video(lora_run, run_main, tmp_path, broken, words):
    path = tmp_path / "motion.safetensors"
    path.write_bytes(broken((lora_run / "motion.safetensors").read_bytes()))
    code, _, err = run_main("generate_pretrained", "-m", path, "-o", tmp_path / "out", "-p", "a cat",
                            "--steps", "1")
    assert code == 2 and words in err and err.count("\n") == 1 and not list(tmp_path.glob("out/*.mp4"))


def test_lora_of_another_base_is_one_line_and_no_video(lora_run, other_base, run_main, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", lora_run, "-b", other_base, "-o", tmp_path / "out",
                            "-p", "a cat", "--steps", "1")
    assert code == 2 and "this base has other weights" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("out/*.mp4"))
