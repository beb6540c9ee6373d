"""Several motions in one video: their changes add up, each has its own word, and clashes are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from models.base import load_base
from models.lora import add_trainable_lora, base_shapes, merge_loras
from models.lora_files import Lora
from models.motion_weights import MotionInfo, apply_motions, read_motion_info, save_motion
from models.tunable import select_tunable, union
from training.config import Config, TrainData, ValidationData
from training.config_loading import config_yaml
from training.sources import find_source, named_model
from utils.errors import UserError
from utils.video import probe, video_metadata

RENDERING = ["--steps", "1", "-r", "64", "-d", "2"]


def write_motion(path: Path, base, token: str, groups: list[str], seed: int, **train_data) -> Path:
    """Write motion weights with a random change of `groups`."""
    parameters = dict(base.unet.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    tuned = {name: parameters[name].detach() + 0.1 * torch.randn(parameters[name].shape, generator=generator)
             for name in union(select_tunable(parameters, groups))}
    config = Config(placeholder_token=token, trainable_modules=groups, subject=path.parent.name,
                    train_data=TrainData(path="clips", **train_data),
                    validation_data=ValidationData(num_frames=3, width=64, height=48))
    save_motion(path, tuned, MotionInfo(base.name, base.fingerprint, groups, token, 5, 12.0,
                                        config_yaml(config), {"torch": "2"}), "fp32")
    return path


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base) -> Path:
    """Three files of motion weights: a dance and a jump of the same groups, and a person, an appearance."""
    folder = tmp_path_factory.mktemp("motions")
    write_motion(folder / "dance" / "motion.safetensors", base, "sks", ["cross", "temporal"], 1)
    write_motion(folder / "jump" / "motion.safetensors", base, "zwx", ["temporal"], 2)
    write_motion(folder / "person" / "motion.safetensors", base, "ohwx", ["cross", "self"], 3,
                 train_weights="spatial")
    return folder


def combined(tiny_base, *motions: tuple[Path, float]) -> dict[str, torch.Tensor]:
    base = load_base(str(tiny_base))
    apply_motions(base.unet, base.fingerprint, motions)
    return {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}


def test_changes_of_several_motions_add_up(base, folder, tiny_base):
    strengths = {"dance": 0.5, "jump": 1.5, "person": 1.0}
    paths = {name: folder / name / "motion.safetensors" for name in strengths}
    tuned = {name: load_file(path) for name, path in paths.items()}
    result = combined(tiny_base, *((paths[name], strength) for name, strength in strengths.items()))
    for name, before in base.unet.state_dict().items():
        changes = [strengths[one] * (tuned[one][name] - before) for one in strengths if name in tuned[one]]
        assert torch.allclose(result[name], before + sum(changes), atol=1e-6), name
        assert changes or torch.equal(result[name], before)
        if name in tuned["person"] and len(changes) == 1:   # alone and at strength 1: the tensor itself
            assert torch.equal(result[name], tuned["person"][name])


def test_order_of_the_motions_changes_no_bit(folder, tiny_base):
    motions = [(folder / name / "motion.safetensors", strength)
               for name, strength in (("dance", 0.7), ("jump", 0.3), ("person", 1.1), ("dance", 0.2))]
    first, second = combined(tiny_base, *motions), combined(tiny_base, *motions[::-1])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_motion_of_strength_zero_changes_nothing(folder, tiny_base):
    dance, jump = (folder / name / "motion.safetensors" for name in ("dance", "jump"))
    alone, both = combined(tiny_base, (dance, 1.0)), combined(tiny_base, (dance, 1.0), (jump, 0.0))
    assert all(torch.equal(alone[name], both[name]) for name in alone)


def test_of_two_files_that_do_not_fit_both_are_named_and_nothing_is_applied(folder, tiny_base, other_base,
                                                                            tmp_path):
    other, base = load_base(str(other_base)), load_base(str(tiny_base))
    strange = write_motion(tmp_path / "strange.safetensors", other, "sks", ["temporal"], 4)
    (tmp_path / "damaged.safetensors").write_bytes(strange.read_bytes()[:-8])
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    with pytest.raises(UserError) as caught:
        apply_motions(base.unet, base.fingerprint, [(folder / "dance" / "motion.safetensors", 1.0),
                                                    (strange, 1.0), (tmp_path / "damaged.safetensors", 1.0)])
    assert len(caught.value.problems) == 2
    assert "strange.safetensors: was trained on" in caught.value.problems[0]
    assert "damaged.safetensors: cannot be read" in caught.value.problems[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())


def test_each_motion_has_its_identifier_and_the_video_names_all(folder, run_main, tmp_path):
    arguments = ["-o", tmp_path, "--steps", "1", "-p", "a cat doing the V* dance and the V2* jump"]
    code, _, err = run_main("generate_pretrained", "-m", f"{folder / 'dance'}:0.5", "-m", folder / "jump",
                            *arguments, "--strength", "0.7")
    assert code == 0, err
    path = tmp_path / "a_cat_doing_the_sks_dance_and_the_zwx_jump_seed0.mp4"
    made, info = video_metadata(path), probe(path)
    named = dict(zip(made["motion"], zip(made["strength"], made["step"])))
    assert named == {str(folder / "dance" / "motion.safetensors"): (0.5, 5),
                     str(folder / "jump" / "motion.safetensors"): (0.7, 5)}
    assert len(made["motion_digest"]) == 2 and made["placeholder_token"] == "sks,zwx"
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 48, 3, 12.0)

    # the other order and another place: the video is there already
    moved = shutil.copytree(folder, tmp_path / "moved")
    _, out, _ = run_main("generate_pretrained", "-m", f"{moved / 'jump'}:0.7", "-m", f"{moved / 'dance'}:0.5",
                         *arguments[:-1], "a cat doing the V2* dance and the V* jump")
    assert "1 of 1 videos are there already" in out


def test_motion_that_is_named_twice_is_refused(folder):
    with pytest.raises(UserError, match="is named twice"):
        find_source([named_model(str(folder / name)) for name in ("dance", "jump", "dance")], None)


def test_appearance_knows_no_rate_and_no_length(folder):
    source = find_source([named_model(str(folder / name)) for name in ("person", "dance")], None)
    assert source.leading.path == folder / "dance" / "motion.safetensors"
    assert source.placeholder_token == "ohwx,sks"


def test_export_of_several_motions_holds_their_sum(folder, run_main, tmp_path, tiny_base):
    code, _, err = run_main("generate_pretrained", "-m", f"{folder / 'jump'}:0.5", "-m", folder / "person",
                            "--export", tmp_path / "full")
    assert code == 0, err
    made = json.loads((tmp_path / "full" / "customized_motion.json").read_text())
    assert sorted(made["strength"]) == [0.5, 1.0] and made["placeholder_token"] == "zwx,ohwx"
    exported = load_file(tmp_path / "full" / "unet" / "diffusion_pytorch_model.safetensors")
    expected = combined(tiny_base, (folder / "jump" / "motion.safetensors", 0.5),
                        (folder / "person" / "motion.safetensors", 1.0))
    assert all(torch.equal(exported[name], expected[name]) for name in exported)


def test_same_word_twice_is_refused_until_it_may_be_shared(folder, base, run_main, tmp_path):
    write_motion(tmp_path / "second" / "motion.safetensors", base, "sks", ["temporal"], 9)
    arguments = ["-m", folder / "dance", "-m", tmp_path / "second", "-o", tmp_path / "out", *RENDERING]
    code, _, err = run_main("generate_pretrained", *arguments, "-p", "a V* cat")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "both were taught the word 'sks'" in err and "--share-tokens" in err
    assert not (tmp_path / "out").exists()
    assert run_main("generate_pretrained", *arguments, "-p", "a V* cat", "--share-tokens")[0] == 0


def test_two_steps_of_one_run_mean_the_same(folder, base, tmp_path):
    write_motion(tmp_path / "dance" / "motion.safetensors", base, "sks", ["cross", "temporal"], 7)
    source = find_source([named_model(str(place / "dance")) for place in (folder, tmp_path)], None)
    assert source.placeholder_token == "sks" and len(source.motions) == 2


def test_two_steps_of_a_run_whose_continuation_has_another_config_mean_the_same(base, tmp_path):
    run = tmp_path / "dance-2026-01-01T00-00-00"
    places = run / "motion.safetensors", run / "checkpoint-5" / "motion.safetensors"
    infos = [read_motion_info(write_motion(place, base, "sks", ["temporal"], 1)) for place in places]
    assert infos[0].config != infos[1].config
    assert find_source([named_model(str(place)) for place in places]).placeholder_token == "sks"
    (tmp_path / "link").symlink_to(run)
    find_source([named_model(str(place)) for place in (run, tmp_path / "link" / "checkpoint-5")])
    # files of two runs that were put into one folder
    strange = write_motion(run / "jump.safetensors", base, "sks", ["temporal"], 1, fps=5)
    with pytest.raises(UserError, match="both were taught the word 'sks'"):
        find_source([named_model(str(place)) for place in (run, strange)])


@pytest.mark.parametrize("arguments, words", [
    (["-m", "{folder}/dance:abc"], "'abc' is not a strength"),
    (["-m", "{folder}/dance:nan"], "'nan' is not a strength"),
    (["-m", "{folder}/dance:"], "'' is not a strength"),
    (["-m", ":abc"], "'abc' is not a strength"),
    (["-m", "{folder}/nowhere:0.5"], "{folder}/nowhere: does not exist"),
    (["-m", "{folder}/dance", "-m", "{base}"], "-m {base}: is a base, and several -m combine motions"),
    (["-m", "{base}:0.5"], "is a base, which has no strength"),
    (["-m", "{folder}/dance", "-p", "a V2* cat"], "asks for V2*, and the motions are V* (sks)"),
])
def test_wrong_models_are_one_line_and_code_2(run_main, folder, tiny_base, tmp_path, arguments, words):
    arguments = [part.format(base=tiny_base, folder=folder) for part in arguments]
    prompt = [] if "-p" in arguments else ["-p", "a cat"]
    code, _, err = run_main("generate_pretrained", *arguments, *prompt, "-o", tmp_path / "out")
    assert code == 2 and words.format(base=tiny_base, folder=folder) in err
    assert len(err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_motions_of_two_bases_are_refused(folder, other_base, run_main, tmp_path):
    write_motion(tmp_path / "strange" / "motion.safetensors", load_base(str(other_base)), "zwx", ["temporal"],
                 4)
    code, _, err = run_main("generate_pretrained", "-m", folder / "dance", "-m", tmp_path / "strange",
                            "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and "has other weights. Combine motions of one base." in err
    assert len(err.strip().splitlines()) == 1


def test_path_with_a_colon_in_it_is_not_cut(folder, tmp_path):
    odd = shutil.copytree(folder / "dance", tmp_path / "dance:0.5")
    assert named_model(str(odd)) == (str(odd), None)
    assert named_model(f"{odd}:0.3") == (str(odd), 0.3)
    assert named_model(f"{odd}/missing") == (f"{odd}/missing", None)


def test_name_on_the_hub_is_not_taken_for_a_base_when_something_else_is_wrong(folder, run_main, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", folder / "dance", "-m", "jo/jump:0.5",
                            "-p", "a\x07cat", "-o", tmp_path / "out")
    assert code == 2 and "has control characters" in err and len(err.strip().splitlines()) == 1


def test_image_model_that_is_here_lacks_an_adapter_also_offline(animatediff, run_main, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "models--jo--images"
    shutil.copytree(animatediff[1], folder / "snapshots" / "0123")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = run_main("generate_pretrained", "-m", "jo/images", "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and "jo/images: is an image model" in err and err.count("\n") == 1


def test_motions_of_an_image_model_are_combined(animatediff, run_main, tmp_path):
    _, images, adapter = animatediff
    base = load_base(str(images), adapter=str(adapter))
    for name, token, seed in (("dance", "sks", 1), ("jump", "zwx", 2)):
        write_motion(tmp_path / name / "motion.safetensors", base, token, ["temporal"], seed)
    code, _, err = run_main("generate_pretrained", "-m", tmp_path / "dance", "-m", f"{tmp_path / 'jump'}:0.5",
                            "--adapter", adapter, "-o", tmp_path / "out", "--steps", "1", "-p", "a V2* cat")
    assert code == 0, err
    assert sorted(video_metadata(tmp_path / "out" / "a_zwx_cat_seed0.mp4")["strength"]) == [0.5, 1.0]


def write_lora(path: Path, tiny_base: Path, token: str, seed: int) -> Path:
    """Write a LoRA file with random matrices of temporal attention and text keys."""
    base, lora, groups = load_base(str(tiny_base)), Lora(2, 4.0), ["cross", "temporal"]
    names = union(select_tunable(base_shapes(base.unet), groups))
    generator = torch.Generator().manual_seed(seed)
    matrices = add_trainable_lora(base.unet, names, lora, lambda layer: generator)
    for matrix in matrices.values():
        matrix.data.normal_(std=0.05, generator=generator)
    config = Config(placeholder_token=token, trainable_modules=groups, subject=path.parent.name,
                    train_data=TrainData(path="clips"), validation_data=ValidationData(
                        num_frames=3, width=64, height=48))
    save_motion(path, matrices, MotionInfo(base.name, base.fingerprint, groups, token, 5, 12.0,
                                           config_yaml(config), {"torch": "2"}, lora), "fp32")
    return path


@pytest.fixture(scope="module")
def loras(tiny_base, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return (write_lora(folder / "wave" / "motion.safetensors", tiny_base, "olis", 5),
            write_lora(folder / "bow" / "motion.safetensors", tiny_base, "phol", 6))


def merged(tiny_base, *motions: tuple[Path, float]) -> dict[str, torch.Tensor]:
    base = load_base(str(tiny_base))
    apply_motions(base.unet, base.fingerprint, motions)
    merge_loras(base.unet)
    return {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}


def test_whole_weights_and_loras_add_up_in_any_order(base, folder, loras, tiny_base):
    motions = [(folder / "dance" / "motion.safetensors", 0.5), (loras[0], 1.0), (loras[1], -0.5)]
    together = merged(tiny_base, *motions)
    alone = [merged(tiny_base, motion) for motion in motions]
    assert together.keys() == alone[0].keys()
    for name, before in base.unet.state_dict().items():
        changes = [one[name] - before for one in alone]
        assert torch.allclose(together[name], before + sum(changes), atol=1e-6), name
    assert all(any(not torch.equal(one[name], tensor) for name, tensor in base.unet.state_dict().items())
               for one in alone)
    backwards = merged(tiny_base, *motions[::-1])
    assert all(torch.equal(together[name], backwards[name]) for name in together)


def test_lora_that_does_not_fit_leaves_whole_weights_unapplied(folder, loras, tiny_base, tmp_path):
    base = load_base(str(tiny_base))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(loras[0].read_bytes()[:-8])
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    with pytest.raises(UserError, match="damaged.safetensors"):
        apply_motions(base.unet, base.fingerprint,
                      [(folder / "dance" / "motion.safetensors", 1.0), (damaged, 1.0)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())


def test_whole_weights_and_a_lora_are_rendered_together(folder, loras, run_main, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", f"{loras[0].parent}:0.5", "-m", folder / "dance",
                            "-o", tmp_path, "--steps", "1", "-p", "a V* cat doing the V2* dance")
    assert code == 0, err
    assert (tmp_path / "a_olis_cat_doing_the_sks_dance_seed0.mp4").exists()
