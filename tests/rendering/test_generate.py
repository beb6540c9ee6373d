"""Rendering: same prompt and seed, same frames, whatever else is rendered; the files say what they are."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.base import load_base
from models.base_folder import find_base, native_size
from rendering.sampling import Rendering, faults, render
from training.sources import EXPORT_NAME, Exported, find_source, named_model, read_exported
from utils.prompts import Prompt
from utils.video import probe, read_frames, video_metadata

HOW = Rendering(64, 64, 4, 2, 9.0)
PROMPTS = [Prompt(3, "a cat"), Prompt(4, "a dog running"), Prompt(3, "a robot")]


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return load_base(str(tiny_base)).pipeline


@pytest.fixture
def run(finished_run) -> Path:
    return finished_run


def all_frames(path: Path) -> np.ndarray:
    return read_frames(path, range(probe(path).num_frames))


def test_alone_in_a_list_and_in_any_order_are_equal(pipeline):
    alone = [render(pipeline, [prompt], HOW)[0] for prompt in PROMPTS]
    backwards = [render(pipeline, [prompt], HOW)[0] for prompt in PROMPTS[::-1]][::-1]
    assert all(np.array_equal(first, second) for first, second in zip(alone, backwards))


def test_batch_of_another_size_is_equal_within_rounding(pipeline):
    alone = np.stack([render(pipeline, [prompt], HOW)[0] for prompt in PROMPTS])
    together = render(pipeline, PROMPTS, HOW)
    assert np.abs(alone.astype(int) - together).max() <= 2


def test_seed_and_prompt_both_matter(pipeline):
    prompts = [Prompt(3, "a cat"), Prompt(4, "a cat"), Prompt(3, "a dog")]
    frames = [render(pipeline, [prompt], HOW) for prompt in prompts]
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_negative_prompt_matters(pipeline):
    from dataclasses import replace

    plain = render(pipeline, PROMPTS[:1], HOW)
    assert not np.array_equal(plain, render(pipeline, PROMPTS[:1], replace(HOW, negative_prompt="blurry")))


def test_samples_of_training_are_the_videos_of_generation(run, run_main, tmp_path, tiny_base):
    for model, step in ((run, 2), (tiny_base, 0)):
        out = tmp_path / str(step)
        code, _, err = run_main("generate_pretrained", "-m", model, "-o", out,
                                "-p", "a cat doing the V* spin", "-s", "64",
                                "--steps", "2", "-r", "64", "-d", "4", "--fps", "8")
        assert code == 0, err
        name = "a_cat_doing_the_sks_spin_seed64.mp4"
        sample = run / "samples" / f"step_{step:05d}" / name
        assert np.array_equal(all_frames(sample), all_frames(out / name))


def test_size_length_and_rate_default_to_those_of_the_training(run, run_main, tmp_path):
    run_main("generate_pretrained", "-m", run, "-o", tmp_path, "-p", "a cat", "--steps", "1")
    info = probe(tmp_path / "a_cat_seed0.mp4")
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 64, 4, 8.0)


def test_known_base_renders_at_its_own_size(tiny_base, run_main, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "zeroscope_v2_576w")
    _, out, _ = run_main("generate_pretrained", "-m", base, "-o", tmp_path, "-p", "a cat", "--steps", "1",
                         "-d", "1")
    assert "1 video of 1 frame, 576x320" in out
    info = probe(tmp_path / "a_cat_seed0.mp4")
    assert (info.width, info.height, info.fps) == (576, 320, 8.0)
    load_base(str(base)).pipeline.save_pretrained(tmp_path / "converted")
    assert native_size(str(tmp_path / "converted"), tmp_path / "converted") == (576, 320)
    assert native_size(str(tiny_base), tiny_base) == (64, 64)


def test_strength_zero_is_the_base(run, run_main, tmp_path, tiny_base):
    arguments = ["-p", "a cat", "--steps", "2", "-r", "64", "-d", "4"]
    run_main("generate_pretrained", "-m", run, "-o", tmp_path / "zero", "--strength", "0", *arguments)
    run_main("generate_pretrained", "-m", run, "-o", tmp_path / "one", *arguments)
    run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path / "base", *arguments)
    zero, one, base = (all_frames(tmp_path / name / "a_cat_seed0.mp4") for name in ("zero", "one", "base"))
    assert np.array_equal(zero, base) and not np.array_equal(one, base)


def test_published_spelling_of_the_flags(tiny_base, run_main, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path, "-p", "a cat", "-s", "3",
                            "-n", "blurry", "-r", "16", "-d", "2", "-steps", "1")
    made = video_metadata(tmp_path / "a_cat_seed3.mp4")
    assert code == 0, err
    assert (made["num_inference_steps"], made["negative_prompt"], made["width"]) == (1, "blurry", 16)


def test_list_with_seeds_is_rendered_with_its_own_seeds(tiny_base, run_main, tmp_path):
    (tmp_path / "list.txt").write_text(
        "# cats\r\n7,a cat, sleeping\r\n\r\na dog\r\n8,a cat, sleeping", newline="")
    arguments = ["--steps", "1", "-r", "64x48", "-d", "2", "-s", "5"]
    code, out, _ = run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path / "out",
                            "-p", tmp_path / "list.txt", *arguments)
    assert code == 0 and "3 videos of 2 frames, 64x48" in out
    assert f"3 prompts from {tmp_path / 'list.txt'}, 2 with a seed of their own" in out
    names = {path.name for path in (tmp_path / "out").glob("*.mp4")}
    assert names == {"a_cat,_sleeping_seed7.mp4", "a_cat,_sleeping_seed8.mp4", "a_dog_seed5.mp4"}
    run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path / "alone",
             "-p", "a cat, sleeping", "-s", "8", *arguments[:-2])
    name = "a_cat,_sleeping_seed8.mp4"
    assert np.array_equal(all_frames(tmp_path / "out" / name), all_frames(tmp_path / "alone" / name))


def test_of_several_processes_the_first_speaks(tiny_base, run_main, tmp_path, monkeypatch):
    said = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, said[rank], _ = run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path / rank, "-p",
                                       "a cat|a dog", "-r", "64", "-d", "3", "--steps", "2")
        assert code == 0
    assert "2 videos of 3 frames" in said["0"] and "video_lightbox.html" in said["0"] and said["1"] == ""


def test_random_seed_is_the_one_in_the_name(tiny_base, run_main, tmp_path):
    run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path, "-p", "a cat|a dog", "-s", "random",
             "--steps", "1", "-r", "64", "-d", "2")
    paths = sorted(tmp_path.glob("*.mp4"))
    seeds = [int(path.stem.rpartition("_seed")[2]) for path in paths]
    assert [video_metadata(path)["seed"] for path in paths] == seeds and seeds[0] != seeds[1]


def test_file_carries_how_it_was_made(run, run_main, tmp_path, tiny_base):
    run_main("generate_pretrained", "-m", run, "-o", tmp_path, "-p", "a V* cat", "--steps", "1")
    made = video_metadata(tmp_path / "a_sks_cat_seed0.mp4")
    assert (made["prompt"], made["seed"], made["base"]) == ("a sks cat", 0, str(tiny_base))
    assert (made["motion"], made["step"]) == (str(run / "motion.safetensors"), 2)


def test_what_is_there_is_kept_and_replaced_only_when_asked(tiny_base, run_main, tmp_path):
    arguments = ["-m", tiny_base, "-o", tmp_path, "-r", "64", "-d", "2", "--steps"]
    run_main("generate_pretrained", *arguments, "1", "-p", "a cat")
    before = (tmp_path / "a_cat_seed0.mp4").stat().st_mtime_ns
    _, out, _ = run_main("generate_pretrained", *arguments, "1", "-p", "a cat|a dog")
    assert "1 of 2 videos are there already" in out and (tmp_path / "a_dog_seed0.mp4").exists()
    assert (tmp_path / "a_cat_seed0.mp4").stat().st_mtime_ns == before
    code, _, err = run_main("generate_pretrained", *arguments, "2", "-p", "a dog|a cat")
    assert code == 2 and "was made in another way (num_inference_steps 1, not 2), as 2 of 2" in err
    assert (tmp_path / "a_cat_seed0.mp4").stat().st_mtime_ns == before
    assert run_main("generate_pretrained", *arguments, "2", "-p", "a cat", "--overwrite")[0] == 0
    assert video_metadata(tmp_path / "a_cat_seed0.mp4")["num_inference_steps"] == 2


def test_captions_and_gallery_lost_by_a_kill_come_back(tiny_base, run_main, tmp_path):
    arguments = ["-m", tiny_base, "-o", tmp_path, "-r", "64", "-d", "2", "--steps", "1", "-p", "a cat"]
    run_main("generate_pretrained", *arguments)
    for name in ("text.json", "video_lightbox.html"):
        (tmp_path / name).unlink()
    run_main("generate_pretrained", *arguments)
    assert json.loads((tmp_path / "text.json").read_text()) == {"a_cat_seed0.mp4": "a cat"}
    assert "a_cat_seed0.mp4" in (tmp_path / "video_lightbox.html").read_text()


def test_run_that_has_moved_still_has_its_videos(finished_run, run_main, tmp_path):
    arguments = ["-o", tmp_path / "out", "--steps", "1", "-p", "a cat"]
    run_main("generate_pretrained", "-m", finished_run, *arguments)
    moved = shutil.copytree(finished_run, tmp_path / "moved")
    _, out, _ = run_main("generate_pretrained", "-m", moved, *arguments)
    assert "1 of 1 videos are there already" in out


@pytest.mark.parametrize("size", ["8x64", "16x32", "48x96", "72x24"])
def test_narrow_videos_are_written_and_read(tiny_base, run_main, tmp_path, size):
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path, "-r", size, "-d", "3",
                            "--steps", "1", "-p", "a cat")
    assert code == 0, err
    info = probe(tmp_path / "a_cat_seed0.mp4")
    assert f"{info.width}x{info.height}" == size and len(all_frames(tmp_path / "a_cat_seed0.mp4")) == 3


def test_output_folder_is_a_data_folder(tiny_base, run_main, tmp_path, write_config):
    run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path / "made",
             "-p", 'a "cat"/dog|a man walking', "-r", "64", "-d", "6", "--steps", "1")
    captions = json.loads((tmp_path / "made" / "text.json").read_text())
    assert set(captions.values()) == {'a "cat"/dog', "a man walking"}
    config = write_config(f"train_data.class_path={tmp_path / 'made'}")
    code, out, err = run_main("train_model", "--config", config, "--dry-run")
    assert code == 0, err
    assert '"a "cat"/dog"' in out and '"a man walking"' in out


@pytest.mark.slow
def test_export_keeps_the_precision_of_the_bases_files(finished_run, run_main, tmp_path, tiny_base):
    """A base in fp16, as most are: the export is not twice the size, and the untuned is equal bit for bit."""
    from safetensors.torch import save_file

    base = shutil.copytree(tiny_base, tmp_path / "base")
    for path in base.rglob("*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    code, _, err = run_main("generate_pretrained", "-m", base, "--export", tmp_path / "full")
    assert code == 0, err
    for path in base.rglob("*.safetensors"):
        before, after = load_file(path), load_file(tmp_path / "full" / path.relative_to(base))
        prefix = "text_model." if path.parent.name == "text_encoder" else ""
        assert after.keys() == {prefix + name for name in before}
        assert {tensor.dtype for tensor in after.values()} == {torch.float16}
        assert all(torch.equal(after[prefix + name], before[name]) for name in before)


def test_export_copies_what_the_motion_does_not_change(run_main, tmp_path, tiny_base):
    """Files of real bases have older names of tensors in them, and are variants."""
    from safetensors.torch import save_file

    base = shutil.copytree(tiny_base, tmp_path / "base")
    for path in sorted(base.rglob("*.safetensors")):
        prefix = "text_model." if path.parent.name == "text_encoder" else ""
        save_file({f"{prefix}{name}": tensor.half() for name, tensor in load_file(path).items()},
                  path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    code, _, err = run_main("generate_pretrained", "-m", base, "--export", tmp_path / "full")
    assert code == 0, err
    for path in (path for path in base.rglob("*") if path.is_file() and path.parent.name != "unet"):
        copy = tmp_path / "full" / str(path.relative_to(base)).replace(".fp16.", ".")
        assert copy.read_bytes() == path.read_bytes(), copy
    assert load_base(str(tmp_path / "full")).fingerprint == load_base(str(base)).fingerprint


@pytest.mark.parametrize("name", [".", "../here", "../link"])
def test_export_into_the_current_folder_is_refused_before_anything_is_loaded(
        run_main, tmp_path, tiny_base, monkeypatch, name):
    """The folder is replaced when all is written, and the current one cannot be."""
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("models.base.load_base", lambda *_, **__: pytest.fail("a base was loaded"))
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, "--export", name)
    assert code == 2 and err == (f"{name}: is the current folder or a disk of its own, which cannot be "
                                 f"replaced. Name a new folder in it.\n")


def test_export_to_a_full_disk_is_one_line_and_leaves_nothing(run_main, full_disk, tmp_path, tiny_base):
    with full_disk():
        code, _, err = run_main("generate_pretrained", "-m", tiny_base, "--export", tmp_path / "full")
    assert code == 2, err
    assert err.startswith(f"{tmp_path / 'full'}: could not be written (File too large). ") and \
        err.endswith("are free there.\n") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_base_that_has_moved_can_be_named(finished_run, run_main, tmp_path, tiny_base):
    from utils import tensor_files

    learned, motion = finished_run / "motion.safetensors", tmp_path / "motion.safetensors"
    metadata = {**tensor_files.read_metadata(learned), "base": "/gone"}
    tensor_files.write_tensors(motion, load_file(learned), metadata)
    arguments = ["-m", motion, "-p", "a cat", "-o", tmp_path / "out", "--steps", "1"]
    code, _, err = run_main("generate_pretrained", *arguments)
    assert code == 2 and "/gone: does not exist" in err and "--base" in err
    shutil.copytree(tiny_base, tmp_path / "moved")
    assert run_main("generate_pretrained", *arguments, "--base", tmp_path / "moved")[0] == 0


def test_end_of_a_prompt_that_the_encoder_does_not_see_is_said(tiny_base, run_main, tmp_path):
    code, out, _ = run_main("generate_pretrained", "-m", tiny_base, "-p", "cat " * 40 + "END",
                            "-o", tmp_path, "-r", "64", "-d", "2", "--steps", "1", "-n", "dog " * 40 + "LAST")
    assert code == 0 and "too long for the text encoder, not seen:" in out and 'end"' in out
    (negative,) = [line for line in out.splitlines() if "the negative prompt is too long" in line]
    assert negative.endswith('last"')


def test_exported_pipeline_is_rendered_as_the_run_is(finished_run, run_main, tmp_path):
    export_to, said = tmp_path / "full", []
    assert run_main("generate_pretrained", "-m", finished_run, "--export", export_to)[0] == 0
    for model in (finished_run, export_to):
        code, out, err = run_main("generate_pretrained", "-m", model, "-o", tmp_path / model.name,
                                  "--steps", "1", "-p", "a cat doing the V* spin")
        assert code == 0, err
        said.append([line for line in out.splitlines() if "frames per second" in line])
    assert said[0] == said[1] and said[0]
    (export_to / EXPORT_NAME).write_text('{"placeholder_token": "sks", "width": "wide", "fps": -1}')
    assert read_exported(export_to) == Exported()
    (export_to / EXPORT_NAME).write_text("[]")
    assert read_exported(export_to) == Exported()


def test_exported_base_keeps_the_size_it_was_made_for(tiny_base, run_main, tmp_path):
    """A known base is told by the name in its config, which an export replaces."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "unet/config.json").read_text())
    config["_name_or_path"] = "cerspense/zeroscope_v2_576w"
    (base / "unet/config.json").write_text(json.dumps(config))
    code, _, err = run_main("generate_pretrained", "-m", base, "--export", tmp_path / "full")
    assert code == 0, err
    size = find_source([named_model(str(tmp_path / "full"))]).size
    assert size == native_size(str(base), base) == (576, 320)


def test_exported_pipeline_remembers_the_word_of_its_motion(finished_run, run_main, tmp_path):
    """V* became the default word, which the exported weights have never seen."""
    export_to, videos = tmp_path / "full", tmp_path / "videos"
    code, _, err = run_main("generate_pretrained", "-m", finished_run, "--export", export_to)
    assert code == 0, err
    made = json.loads((export_to / EXPORT_NAME).read_text())
    (export_to / EXPORT_NAME).write_text(json.dumps({**made, "placeholder_token": "zwx"}))
    code, _, err = run_main("generate_pretrained", "-m", export_to, "-o", videos, "-r", "64", "-d", "2",
                            "--steps", "1", "-p", "a cat doing the V* spin")
    assert code == 0, err
    assert list(json.loads((videos / "text.json").read_text()).values()) == ["a cat doing the zwx spin"]


@pytest.mark.slow
def test_export_loads_in_stock_diffusers_and_equals_the_base_elsewhere(run, run_main, stock, tmp_path,
                                                                         tiny_base):
    code, out, err = run_main("generate_pretrained", "-m", run, "--export", tmp_path / "full")
    assert code == 0, err
    program = ("import sys, torch; from diffusers import DiffusionPipeline\n"
               "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
               "out = pipe('a cat', height=64, width=64, num_frames=2, "
               "num_inference_steps=1, output_type='np')\n"
               "print(type(pipe).__name__, out.frames.shape)")
    said, _ = stock.run(program, tmp_path / "full", folder=tmp_path)
    assert said.split() == ["TextToVideoSDPipeline", "(1,", "2,", "64,", "64,", "3)"]
    tuned = load_file(run / "motion.safetensors")
    for part in ("unet", "vae", "text_encoder"):
        name = next((tiny_base / part).glob("*.safetensors")).name
        before, after = load_file(tiny_base / part / name), load_file(tmp_path / "full" / part / name)
        prefix = "text_model." if part == "text_encoder" else ""   # as all versions read it
        assert after.keys() == {prefix + key for key in before}
        for key in before:
            expected = tuned[key].float() if part == "unet" and key in tuned else before[key]
            assert torch.equal(after[prefix + key], expected), key


@pytest.mark.parametrize("arguments, words", [
    (["-p", "x", "-m", "nowhere"], "nowhere: does not exist"),
    (["-p", "x", "-m", "{base}/../no_run"], "no_run: does not exist"),
    (["-p", "x", "-m", "{base}/unet"], "holds neither motion weights nor a diffusers pipeline. Name a run"),
    (["-m", "{base}"], "-p/--prompt is missing"),
    (["-p", "x", "-m", "{base}", "-r", "65"], "must be multiples of 8"),
    (["-p", "x", "-m", "{base}", "-r", "64x"], "neither a number of pixels nor WIDTHxHEIGHT"),
    (["-p", "x", "-m", "{base}", "-s", "1.5"], "neither a whole number"),
    (["-p", "x", "-m", "{base}", "-d", "0"], "not a whole number above zero"),
    (["-p", "missing.txt", "-m", "{base}"], "missing.txt: cannot be read"),
    (["-p", "|", "-m", "{base}"], "The prompt is empty"),
    (["-p", "", "-m", "{base}"], "The prompt is empty"),
    (["-p", "a\x07cat", "-m", "{base}"], "has control characters"),
    (["-p", "cat " * 5000, "-m", "{base}"], "has 19999 characters"),
    (["-p", "x", "-m", "{base}", "--steps", "2000"], "--steps 2000: this base takes at most 1000"),
    (["-p", "x", "-m", "{base}", "--fps", "20000"], "above 1000"),
    (["-p", "x", "-m", "{base}/model_index.json"], "is not a motion.safetensors"),
    (["-p", "x", "-m", "{base}", "-o", "{base}/model_index.json"], "cannot be written"),
    (["-m", "{base}", "--export", "{base}"], "is there already"),
    (["-p", "x", "-m", "{base}", "--strength", "nan"], "is not a number"),
    (["-p", "x", "-m", "{base}", "--strength", "0.3"], "is a base, which has no strength. Leave out"),
    (["-p", "x", "-m", "{base}", "-b", "{base}"], "is a base itself, so --base"),
    (["-p", "x", "-m", "n" * 300], "n: File name too long."),
    (["-p", "x", "-m", "{base}", "-o", "n" * 300], "n: File name too long."),
    (["-m", "{base}", "--export", "n" * 300], "n: File name too long."),
])
def test_wrong_arguments_are_one_line_and_code_2(run_main, tiny_base, arguments, words, tmp_path,
                                                 monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_main("generate_pretrained", *[part.format(base=tiny_base) for part in arguments])
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1


def test_everything_wrong_is_said_at_once(run_main, tmp_path):
    (tmp_path / "list.txt").write_text("x1.5,fine\n1.5,a cat\n-2,a dog\n")
    code, _, err = run_main("generate_pretrained", "-m", tmp_path / "nowhere", "-p", tmp_path / "list.txt")
    assert code == 2 and "line 2" in err and "line 3" in err and "nowhere" in err


def test_negative_prompt_names_motions_as_prompts_do(run, run_main, tmp_path):
    arguments = ["-m", run, "-o", tmp_path, "-p", "a cat", "--steps", "1", "-n"]
    code, _, err = run_main("generate_pretrained", *arguments, "the V3* dance")
    assert code == 2 and "V3*" in err and not list(tmp_path.glob("*.mp4"))
    assert run_main("generate_pretrained", *arguments, "the V* dance")[0] == 0
    assert video_metadata(tmp_path / "a_cat_seed0.mp4")["negative_prompt"] == "the sks dance"


def test_everything_that_a_base_cannot_do_is_said_at_once(run, run_main, tiny_base, animatediff, tmp_path):
    arguments = ["-o", tmp_path, "-p", "a V2* cat|a V3* dog", "--steps", "5000", "-r", "65", "-d", "9"]
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, *arguments)
    assert code == 2 and len(err.strip().splitlines()) == 4
    assert all(word in err for word in ("V2*", "V3*", "--steps 5000", "--res 65x65"))
    code, _, err = run_main("generate_pretrained", "-m", animatediff[0], *arguments)
    assert code == 2 and "--duration 9: this base takes at most 8 frames" in err
    assert len(err.strip().splitlines()) == 5
    code, _, err = run_main("generate_pretrained", "-m", run, "-b", tmp_path / "gone", *arguments)
    assert code == 2 and "gone: does not exist" in err and "V3*" in err


@pytest.mark.parametrize("part", ["unet/config.json", "vae", "tokenizer", "scheduler/scheduler_config.json"])
def test_base_that_lacks_a_part_is_refused(run_main, tiny_base, tmp_path, part):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    shutil.rmtree(base / part) if (base / part).is_dir() else (base / part).unlink()
    code, _, err = run_main("generate_pretrained", "-m", base, "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and "is missing" in err and part.split("/")[0] in err


def test_base_that_is_not_text_to_video_is_refused(run_main, tiny_base, tmp_path):
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["a", "UNet2D"]}')
    code, _, err = run_main("generate_pretrained", "-m", tmp_path, "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and "is a StableDiffusionPipeline with a UNet2D" in err


@pytest.mark.parametrize("parts", [["unet"], ["unet", "vae", "text_encoder"]])
def test_base_of_pickles_is_refused_with_the_way_to_convert(run_main, tiny_base, tmp_path, parts):
    base = shutil.copytree(tiny_base, tmp_path / "it's a \"base\" $(no)")
    for part in parts:
        path, = (base / part).glob("*.safetensors")
        torch.save(load_file(path), path.with_name("pytorch_model.bin" if part == "text_encoder"
                                                   else f"{path.stem}.bin"))
        path.unlink()
    code, _, err = run_main("generate_pretrained", "-m", base, "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and f"the weights of its {', '.join(parts)} only as pickle" in err
    assert len(err.splitlines()) == 1
    exec(shlex.split(err.partition(" -c ")[2])[0], {})
    assert find_base(str(base)) == base


def test_black_and_frozen_videos_are_noticed():
    black = np.zeros((4, 8, 8, 3), np.uint8)
    picture = np.random.default_rng(0).integers(0, 255, (1, 8, 8, 3), np.uint8)
    assert "one flat colour" in faults(black)[0]
    assert "does not move" in faults(np.repeat(picture, 4, axis=0))[0]
    assert faults(np.concatenate([picture, picture[:, ::-1]])) == []
    assert "1 of 5 frames in one flat colour" in faults(np.concatenate([black[:1], *[picture] * 4]))[0]
    almost = np.repeat(picture, 4, axis=0)
    almost[2, 0, 0] ^= 1   # less than any codec keeps
    assert "does not move" in faults(almost)[0]
    red = np.zeros((4, 8, 8, 3), np.uint8) + np.uint8([255, 0, 0])
    assert "one flat colour" in faults(red)[0]


def test_base_whose_numbers_overflow_makes_a_black_video_and_says_so(run_main, tiny_base, tmp_path):
    from safetensors.torch import save_file

    base = shutil.copytree(tiny_base, tmp_path / "base")
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({**weights, "conv_out.weight": weights["conv_out.weight"] * 1e38}, path)
    code, out, _ = run_main("generate_pretrained", "-m", base, "-p", "a cat", "-o", tmp_path / "out",
                            "--steps", "2", "-d", "2", "-r", "64")
    assert code == 0 and "note: a_cat_seed0.mp4: is one flat colour. In fp16" in out


def test_scores_of_a_replaced_video_are_forgotten(tiny_base, run_main, tmp_path):
    arguments = ["-m", tiny_base, "-o", tmp_path, "-r", "64", "-d", "2", "-p", "a cat|a dog", "--steps"]
    run_main("generate_pretrained", *arguments, "1")
    scores = {f"a_{name}_seed0.mp4": {"scores": {"motion": 0.5}} for name in ("cat", "dog")}
    (tmp_path / "videos.json").write_text(json.dumps(scores))
    run_main("generate_pretrained", *arguments, "1")
    assert json.loads((tmp_path / "videos.json").read_text()) == scores      # kept videos keep their scores
    run_main("generate_pretrained", *arguments, "2", "--overwrite")
    assert "motion" not in (tmp_path / "videos.json").read_text()
    assert '"motion"' not in (tmp_path / "video_lightbox.html").read_text()


def test_scores_of_a_deleted_video_are_not_those_of_the_next(tiny_base, run_main, tmp_path):
    arguments = ["-m", tiny_base, "-o", tmp_path, "-r", "64", "-d", "2", "-p", "a cat", "--steps"]
    run_main("generate_pretrained", *arguments, "1")
    (tmp_path / "videos.json").write_text('{"a_cat_seed0.mp4": {"seed": 0, "scores": {"motion": 0.5}}}')
    (tmp_path / "a_cat_seed0.mp4").unlink()
    assert run_main("generate_pretrained", *arguments, "2")[0] == 0
    assert json.loads((tmp_path / "videos.json").read_text()) == {"a_cat_seed0.mp4": {"seed": 0}}
    assert '"motion"' not in (tmp_path / "video_lightbox.html").read_text()
