"""train_model.py --new-config: five answers become a config that passes --dry-run."""

import io
import sys

import pytest

from tests.conftest import ROOT, write_clip
from training.config_loading import load_config
from training.new_config import ZEROSCOPE, motion_word, sample_prompts


@pytest.fixture
def asked(run_main, monkeypatch, tmp_path):
    """Return a function that runs the command with answers on stdin: (exit code, stdout, stderr)."""
    def run(*answers: str):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{answer}\n" for answer in answers)))
        return run_main("train_model", "--new-config", tmp_path / "my.yaml")

    return run


def test_answers_become_a_config_that_passes_a_dry_run(asked, run_main, tiny_base, clip_folders, tmp_path):
    code, out, err = asked(str(tiny_base), *map(str, clip_folders), "24 GB", str(tmp_path / "runs"))
    assert code == 0, err
    assert [f"{number} of 5." in out for number in range(1, 6)] == [True] * 5
    config, notes = load_config(tmp_path / "my.yaml")
    assert notes == [] and config.subject == "spin" and config.output_dir == str(tmp_path / "runs")
    data = config.train_data
    assert (data.path, data.class_path, data.fps) == (*map(str, clip_folders), 8)
    assert config.validation_data.prompt == ["a man doing the V* spin", "a robot doing the V* spin"]
    code, report, err = run_main("train_model", "--config", tmp_path / "my.yaml", "--dry-run")
    assert code == 0 and "memory, estimated" in report, err
    text = (tmp_path / "my.yaml").read_text()
    assert "  # folder of regularization clips; null: none\n  class_path: " in text
    assert out.rstrip().endswith(f"--config {tmp_path / 'my.yaml'} --dry-run")


def test_short_regularization_clip_shortens_the_windows_and_is_named(asked, run_main, tiny_base, clip_folders,
                                                                     tmp_path):
    """All five answers were thrown away, because of a key that no question asks for."""
    write_clip(tmp_path / "reg" / "short.mp4", num_frames=6, caption="a cat")
    code, out, err = asked(str(tiny_base), str(clip_folders[0]), str(tmp_path / "reg"), "0",
                           str(tmp_path / "runs"))
    assert code == 0 and "short.mp4 has no more than 6 frames, so n_sample_frames is 6" in out, err
    assert load_config(tmp_path / "my.yaml")[0].train_data.n_sample_frames == 6
    assert run_main("train_model", "--config", tmp_path / "my.yaml", "--dry-run")[0] == 0


def test_defaults_teach_the_bundled_base_without_a_gpu(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("training.new_config.has_gpu", lambda: False)
    monkeypatch.chdir(ROOT)
    code, _, err = asked("", "", "", "0", str(tmp_path / "runs"))
    assert code == 0, err
    config, _ = load_config(tmp_path / "my.yaml")
    demo, _ = load_config(ROOT / "config.yaml")
    for key in ("pretrained_model_path", "max_train_steps", "learning_rate", "lr_scheduler", "subject",
                "train_batch_size", "gradient_checkpointing"):
        assert getattr(config, key) == getattr(demo, key), key
    assert config.train_data == demo.train_data


def test_image_model_is_asked_for_its_motion_adapter(asked, run_main, animatediff, clip_folders, tmp_path):
    full, images, adapter = animatediff
    code, out, err = asked(str(images), str(full), str(adapter), *map(str, clip_folders), "0",
                           str(tmp_path / "runs"))
    assert code == 0, err
    assert out.count("This base makes images.") == 2   # of the wrong answer, and again
    config, _ = load_config(tmp_path / "my.yaml")
    assert (config.pretrained_model_path, config.motion_adapter_path) == (str(images), str(adapter))
    assert run_main("train_model", "--config", tmp_path / "my.yaml", "--dry-run")[0] == 0
    (tmp_path / "my.yaml").unlink()
    code, out, err = asked(str(full), *map(str, clip_folders), "0", str(tmp_path / "runs"))
    assert code == 0 and "This base makes images." not in out, err
    assert load_config(tmp_path / "my.yaml")[0].motion_adapter_path is None


def test_wrong_answer_is_said_and_asked_again(asked, tiny_base, clip_folders, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = asked("/nowhere", str(tiny_base), str(tmp_path / "empty"), str(clip_folders[0]), "none",
                           "much", "24", str(tmp_path / "runs"))
    assert code == 0, err
    for words in ("/nowhere: does not exist", f"{tmp_path / 'empty'}", "'much' is not a number of GB"):
        assert words in out
    assert out.count("2 of 5.") == out.count("4 of 5.") == 2 and load_config(tmp_path / "my.yaml")[0]


def test_answers_that_end_too_early_write_nothing(asked, tiny_base, tmp_path):
    code, _, err = asked(str(tiny_base))
    assert code == 2 and 'no answer to "2 of 5.' in err and "Nothing was written." in err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_writes_nothing(asked, tiny_base, tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert asked()[0] == 130 and list(tmp_path.iterdir()) == []


def test_file_that_exists_is_not_overwritten(asked, tmp_path):
    (tmp_path / "my.yaml").write_text("mine")
    code, out, err = asked("", "", "", "", "")
    assert code == 2 and "my.yaml: exists, and is not overwritten. Name another file." in err
    assert (tmp_path / "my.yaml").read_text() == "mine" and "1 of 5" not in out


@pytest.mark.parametrize("memory, side, frames, recompute, rank", [
    ("80", 384, 10, False, 0), ("16", 384, 10, True, 0), ("12", 384, 10, True, 16), ("4", 256, 8, True, 16)])
def test_memory_chooses_what_trains_and_on_what(asked, clip_folders, tmp_path, memory, side, frames,
                                                recompute, rank):
    """Of a base that is not on this machine; the shortest clip has 10 frames at the rate of the slowest."""
    code, _, err = asked(ZEROSCOPE, str(clip_folders[0]), "none", memory, str(tmp_path / "runs"))
    assert code == 0, err
    config, _ = load_config(tmp_path / "my.yaml")
    data = config.train_data
    assert (data.width, data.height, data.n_sample_frames, config.gradient_checkpointing) == (
        side, side, frames, recompute)
    assert (config.lora_rank, config.learning_rate) == (rank, 1e-4 if rank else 5e-6)
    assert config.use_8bit_adam is False   # neither the package nor an NVIDIA GPU is here


def test_8bit_adam_is_taken_where_it_is_needed_and_there(asked, clip_folders, tmp_path, monkeypatch):
    import importlib.util
    from types import SimpleNamespace

    import torch

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "bitsandbytes" or find_spec(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=12.6e9))
    monkeypatch.setattr("training.new_config.make_plan", lambda *_, **__: None)
    code, out, err = asked("", str(clip_folders[0]), "", "", str(tmp_path / "runs"))
    assert code == 0, err
    config, _ = load_config(tmp_path / "my.yaml")
    assert config.use_8bit_adam and config.pretrained_model_path == ZEROSCOPE and "[13]" in out
    assert config.lora_rank == 0


def test_captions_without_the_motion_still_give_a_prompt(tmp_path, asked, tiny_base):
    write_clip(tmp_path / "clips" / "a.mp4", caption="a man: \"hello\", # and ${x}")
    code, _, err = asked(str(tiny_base), str(tmp_path / "clips"), "none", "0", str(tmp_path / "runs"))
    assert code == 0, err
    config, _ = load_config(tmp_path / "my.yaml")
    assert config.validation_data.prompt == ["a person doing the V*", "a robot doing the V*"]


def test_words_of_the_motion_come_from_the_captions():
    from types import SimpleNamespace

    clips = [SimpleNamespace(captions=(text,)) for text in ("a cat sleeping", "a cat doing the sks twirl")]
    assert motion_word(clips) == "twirl" and motion_word(clips[:1]) == ""
    assert sample_prompts(clips) == ["a cat doing the V* twirl", "a robot doing the V* twirl"]
