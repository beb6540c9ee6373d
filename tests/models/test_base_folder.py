"""Bases as people have them: saved by the published program, in shards, in fp16 for some parts, with a part
missing."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file

from models.base import encode_prompt, export_base, load_base
from models.base_folder import check_base_folder, find_base, is_hub_id, native_size
from models.base_parts import PARTS, WEIGHTS, choose_weights, loading
from models.hub import adapter_files, files_to_download, hub_folder
from models.tokens import unseen_captions
from utils.errors import UserError

PUBLISHED_UNET = ["models.unet_3d_condition", "UNet3DConditionModel"]


@pytest.fixture
def own_base(tiny_base, tmp_path) -> Path:
    """A copy of the base, to be changed."""
    return shutil.copytree(tiny_base, tmp_path / "base")


def change_index(base: Path, **parts: list[str]) -> None:
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps({**index, **parts}))


HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def to_half(base: Path, part: str, variant: str) -> None:
    """Leave the weights of a part in a variant of half precision alone."""
    plain = base / part / f"{WEIGHTS[part]}.safetensors"
    tensors = {name: tensor.to(HALVES[variant]) for name, tensor in load_file(plain).items()}
    save_file(tensors, plain.with_name(f"{WEIGHTS[part]}.{variant}.safetensors"), {"format": "pt"})
    plain.unlink()


def first_values(base: Path) -> list[float]:
    loaded = load_base(str(base))
    return [next(part.parameters()).flatten()[0].item()
            for part in (loaded.unet, loaded.vae, loaded.pipeline.text_encoder)]


# ------------------------------------------------------------------- folders that the published program saved

def test_published_folder_renders_the_frames_of_a_clean_one_and_is_exported_clean(
        own_base, tiny_base, tmp_path, run_main):
    change_index(own_base, unet=PUBLISHED_UNET)
    frames = []
    for base in (tiny_base, own_base):
        out = tmp_path / f"videos of {base.name}"
        code, _, err = run_main("generate_pretrained", "-m", base, "-p", "a cat", "-o", out, "--steps", "2",
                                "-d", "2", "-r", "64")
        assert code == 0, err
        frames.append(iio.imread(out / "a_cat_seed0.mp4"))
    assert np.array_equal(*frames)

    code, _, err = run_main("generate_pretrained", "-m", own_base, "--export", tmp_path / "clean")
    assert code == 0, err
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "clean")   # as anyone with plain diffusers does
    assert type(pipeline).__name__ == "TextToVideoSDPipeline"
    for name, tensor in load_file(tiny_base / "unet" / f"{WEIGHTS['unet']}.safetensors").items():
        assert pipeline.unet.state_dict()[name].equal(tensor), name


def test_published_folder_is_trained_on(own_base, write_config, run_main, tmp_path):
    change_index(own_base, unet=PUBLISHED_UNET, text_encoder=["models.clip", "CLIPTextModel"],
                 tokenizer=["transformers", "CLIPTokenizerFast"])
    code, out, err = run_main("train_model", "--config", write_config(
        f"pretrained_model_path={own_base}", "max_train_steps=1", "checkpointing_steps=null"))
    assert code == 0 and "learned: " in out, err


def test_modules_that_a_folder_names_are_never_imported(own_base, tmp_path, monkeypatch):
    for name in ("models", "unet"):
        (own_base / name).mkdir(exist_ok=True)
        (own_base / name / "bomb_3d_condition.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    monkeypatch.syspath_prepend(own_base / "unet")
    change_index(own_base, unet=["bomb_3d_condition", "UNet3DConditionModel"],
                 vae=["bomb_3d_condition", "AutoencoderKL"])
    load_base(str(own_base))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("part, name, words", [
    ("vae", "AutoencoderTiny", "its vae is a AutoencoderTiny. This program loads a AutoencoderKL."),
    ("text_encoder", "T5EncoderModel", "its text_encoder is a T5EncoderModel."),
    ("scheduler", "OwnScheduler", "its scheduler is a OwnScheduler, which diffusers does not have."),
    ("scheduler", "DiffusionPipeline", "its scheduler is a DiffusionPipeline"),
])
def test_part_of_another_class_is_refused_before_anything_is_loaded(own_base, part, name, words):
    change_index(own_base, **{part: ["somewhere", name]})
    (problem,) = check_base_folder(own_base)
    assert words in problem


# ------------------------------------------------------------------------------------------- files of weights

@pytest.mark.parametrize("variant, parts", [
    ("bf16", tuple(WEIGHTS)),
    *(("fp16", parts) for number in (1, 2, 3) for parts in combinations(WEIGHTS, number))])
def test_each_part_is_loaded_in_the_variant_that_it_has(own_base, tiny_base, variant, parts):
    before = first_values(own_base)
    for part in parts:
        to_half(own_base, part, variant)
    after = first_values(own_base)
    for part, value, halved in zip(WEIGHTS, before, after):
        assert halved == (torch.tensor(value).to(HALVES[variant]).item() if part in parts else value), part


def test_plain_weights_are_preferred_to_other_variants():
    stem = "diffusion_pytorch_model"
    names = [f"{stem}.fp16.safetensors", f"{stem}.safetensors", f"{stem}.non_ema.safetensors", "notes.txt"]
    assert choose_weights(names, stem) == [f"{stem}.safetensors"]
    assert choose_weights(names[:1] + names[2:], stem) == [f"{stem}.fp16.safetensors"]
    assert choose_weights(names[2:], stem) == []
    assert choose_weights([f"{stem}.bf16.safetensors", *names[2:]], stem) == [f"{stem}.bf16.safetensors"]
    assert choose_weights([f"{stem}.bf16.safetensors", names[0]], stem) == names[:1]
    shards = [f"{stem}-{number:05d}-of-00002.safetensors" for number in (2, 1)]
    assert choose_weights(shards, stem) == shards[::-1]


def test_weights_in_shards_are_loaded_and_a_missing_one_is_named(own_base):
    before = first_values(own_base)
    unet = load_base(str(own_base)).unet
    (own_base / "unet" / f"{WEIGHTS['unet']}.safetensors").unlink()
    unet.save_pretrained(own_base / "unet", max_shard_size="3MB")
    shards = sorted((own_base / "unet").glob("*.safetensors"))
    assert len(shards) > 1 and first_values(own_base) == before
    shards[-1].unlink()
    assert check_base_folder(own_base) == [f"{shards[-1]}: is missing. Copy the whole base again."]


@pytest.mark.parametrize("variant, has_whole_file", [("fp16", False), ("fp16", True), ("bf16", False)])
def test_weights_in_shards_of_halves_are_exported_for_stock_diffusers(
        own_base, tmp_path, variant, has_whole_file):
    """The copies kept names of the variant, which stock diffusers asks for only if it is told. With weights
    in one plain file beside the shards, that file is the base's."""
    from diffusers import DiffusionPipeline

    before, pipeline = first_values(own_base), DiffusionPipeline.from_pretrained(own_base)
    for part in ("vae", "text_encoder"):
        plain = own_base / part / f"{WEIGHTS[part]}.safetensors"
        getattr(pipeline, part).to(HALVES[variant]).save_pretrained(own_base / part, variant=variant,
                                                                    max_shard_size="50KB")
        assert len(list(plain.parent.glob(f"*.{variant}-*-of-*.safetensors"))) > 1
        if not has_whole_file:
            plain.unlink()
    export_base(load_base(str(own_base)), tmp_path / "full")
    assert not list((tmp_path / "full").rglob(f"*{variant}*"))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "full")
    assert next(pipeline.vae.parameters()).flatten()[0].item() == pytest.approx(before[1], rel=1e-2)
    assert first_values(tmp_path / "full") == [before[0], *(
        value if has_whole_file else torch.tensor(value).to(HALVES[variant]).item() for value in before[1:])]


@pytest.mark.parametrize("num_files", [1, 2])
def test_exported_text_encoder_has_the_names_that_every_version_of_transformers_reads(
        own_base, tmp_path, num_files):
    """transformers 5 writes the names without a prefix, and 4 knows them with it alone."""
    pipeline, stem = load_base(str(own_base)).pipeline, own_base / "text_encoder" / "model"
    before = pipeline.text_encoder.state_dict()
    if num_files == 2:
        Path(f"{stem}.safetensors").unlink()
        pipeline.text_encoder.save_pretrained(stem.parent, max_shard_size="80KB")
    export_base(load_base(str(own_base)), tmp_path / "full")
    files = sorted((tmp_path / "full" / "text_encoder").glob("*.safetensors"))
    assert len(files) == num_files and {name for path in files for name in load_file(path)} == {
        f"text_model.{name}" for name in before}
    after = load_base(str(tmp_path / "full")).pipeline.text_encoder.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def remove_tensors(path: Path, ending: str) -> int:
    """Remove the tensors of a file whose names end in `ending`, and return how many they were."""
    tensors = load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(ending)}
    save_file(kept, path, {"format": "pt"})
    return len(tensors) - len(kept)


@pytest.mark.parametrize("part, ending", [
    ("unet", "attn1.to_q.weight"), ("vae", "conv_in.bias"), ("text_encoder", "layer_norm1.weight")])
def test_part_whose_file_lacks_tensors_is_named(own_base, part, ending):
    """What is missing was filled with random values in the text encoder, and a traceback elsewhere."""
    number = remove_tensors(own_base / part / f"{WEIGHTS[part]}.safetensors", ending)
    with pytest.raises(UserError) as refused:
        load_base(str(own_base))
    (problem,) = refused.value.problems
    assert number > 1 and problem.startswith(f"{own_base / part}: lacks {number} tensors, the first ")
    assert problem.endswith(f"{ending}. Copy the whole folder again.")


def test_config_that_asks_for_more_layers_than_the_file_has_is_refused(own_base):
    path = own_base / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="text_encoder: lacks 16 tensors, the first .*layers.2."):
        load_base(str(own_base))


# ---------------------------------------------------------------------------------------- damaged and at odds

def change_config(base: Path, part: str, **changes) -> None:
    """Change the file that describes a part; a value of None leaves its key out."""
    path = base / part / PARTS[part]
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize("name, content", [
    ("vocab.json", ""), ("vocab.json", '{"a": 0'), ("merges.txt", "#version: 0.2\na b\nc"),
    ("tokenizer.json", '{"version": "1.0"}')])
def test_damaged_vocabulary_is_one_line(own_base, name, content):
    """The tokenizers library raises plain Exception."""
    (own_base / "tokenizer" / "tokenizer.json").unlink()
    (own_base / "tokenizer" / name).write_text(content)
    with pytest.raises(UserError) as refused:
        load_base(str(own_base))
    (problem,) = refused.value.problems
    assert problem.startswith(f"{own_base / 'tokenizer'}: cannot be loaded (")
    with pytest.raises(UserError, match="tokenizer: cannot be loaded"):
        unseen_captions(own_base, ["a" * 100])


@pytest.mark.parametrize("part, changes", [
    ("unet", {"act_fn": "none such"}), ("vae", {"act_fn": "none such"}),
    ("text_encoder", {"num_attention_heads": 5}),
    ("scheduler", {"beta_schedule": "none such"}), ("scheduler", {"beta_end": "high"})])
def test_config_that_makes_no_network_is_one_line_of_its_folder(own_base, part, changes):
    change_config(own_base, part, **changes)
    with pytest.raises(UserError) as refused:
        load_base(str(own_base))
    (problem,) = refused.value.problems
    assert problem.startswith(f"{own_base / part}: cannot be loaded (")


@pytest.mark.parametrize("changes", [
    {"attention_head_dim": "eight"}, {"attention_head_dim": 0}, {"layers_per_block": [1]},
    {"layers_per_block": {}}, {"block_out_channels": [32, None]}, {"up_block_types": 1.5}])
def test_config_that_does_not_describe_layers_is_found_without_loading(own_base, changes):
    change_config(own_base, "unet", **changes)
    (problem,) = check_base_folder(own_base)
    assert problem.startswith(f"{own_base / 'unet' / 'config.json'}: does not describe the layers of a net")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_config_without_levels_is_damaged(own_base, part):
    change_config(own_base, part, block_out_channels=[])
    assert check_base_folder(own_base) == [
        f"{own_base / part / 'config.json'}: is damaged. Copy the whole base again."]


def test_tokenizer_without_a_length_takes_what_the_text_encoder_takes(own_base, tiny_base):
    """transformers gives it a length that is larger than any number of the tokenizers library."""
    change_config(own_base, "tokenizer", model_max_length=None)
    base, whole = load_base(str(own_base)), load_base(str(tiny_base))
    assert encode_prompt(base.pipeline, "a cat").equal(encode_prompt(whole.pipeline, "a cat"))
    assert unseen_captions(own_base, ["a" * 77]) == {"a" * 77: "aa"}


def test_too_little_memory_is_not_taken_for_damage(tmp_path):
    with pytest.raises(MemoryError), loading(tmp_path):
        raise MemoryError


def test_parts_that_the_unet_does_not_take_are_refused(own_base):
    """A UNet for inpainting, for example, takes nine channels. Both ended in the middle of rendering."""
    change_config(own_base, "text_encoder", hidden_size=16)
    change_config(own_base, "unet", in_channels=9)
    assert check_base_folder(own_base) == [
        f"{own_base}: its {made}, and its UNet takes {taken}. Name a base whose parts belong together."
        for made, taken in (("text encoder makes embeddings of 16 values", "32 (cross_attention_dim)"),
                            ("VAE makes latents of 4 channels", "9 (in_channels)"))]


@pytest.mark.parametrize("number", ["many", 0])
def test_scheduler_without_a_number_of_noise_levels_is_refused(own_base, number):
    change_config(own_base, "scheduler", num_train_timesteps=number)
    assert check_base_folder(own_base) == [
        f"{own_base / 'scheduler'}: has num_train_timesteps {number!r}, which is no number of noise levels. "
        f"Copy the whole base again."]


@pytest.mark.parametrize("sample_size, size", [(8, (64, 64)), ([6, 10], (80, 48))])
def test_size_that_a_base_was_made_for_is_a_side_or_height_and_width(own_base, sample_size, size):
    change_config(own_base, "unet", sample_size=sample_size)
    assert native_size(str(own_base), own_base) == size


@pytest.mark.parametrize("base, size", [
    ("zs", (576, 320)), ("cerspense/zeroscope_v2_XL", (1024, 576)), ("camenduru/potat1", (1024, 576)),
    ("cerspense/zeroscope_v2_dark_30x448x256", (448, 256)), ("models/zeroscope_v2_30x448x256", (448, 256))])
def test_known_bases_have_the_size_of_their_training(own_base, base, size):
    """Their folders say the size of the base that they were fine-tuned from."""
    assert native_size(base, own_base) == size


@pytest.mark.parametrize("sample_size", [None, "eight", [8], [8, None], 0])
def test_base_that_does_not_say_its_size_needs_one(own_base, run_main, tmp_path, sample_size):
    change_config(own_base, "unet", sample_size=sample_size)
    code, _, err = run_main("generate_pretrained", "-m", own_base, "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and err == (f"{own_base}: does not say the size it was made for (sample_size of its "
                                 f"UNet). Name a size with -r/--res, such as 384 or 576x320.\n")
    code, _, err = run_main("generate_pretrained", "-m", own_base, "-p", "a cat", "-o", tmp_path / "out",
                            "-r", "16", "--steps", "1", "-d", "2")
    assert code == 0, err
    code, _, err = run_main("generate_pretrained", "-m", own_base, "--export", tmp_path / "full")
    assert code == 0, err


# ---------------------------------------------------------------------------------------------------- the hub

def test_only_what_is_needed_is_downloaded():
    names = [".gitattributes", "README.md", "model_index.json", "zs2_XL/model.pth", "unet/config.json",
             "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
             "unet/diffusion_pytorch_model.fp16.safetensors", "unet/unet_3d.py",
             "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors",
             "text_encoder/config.json", "text_encoder/model.safetensors",
             "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
    assert files_to_download("a/b", names) == [
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/config.json", "text_encoder/model.safetensors",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
    pickled = [name.replace("fp16.safetensors", "bin") if name.startswith("vae/") else name for name in names]
    with pytest.raises(UserError, match="a/b: has the weights of its vae only as pickle.*convert"):
        files_to_download("a/b", pickled)


def test_of_an_image_model_and_an_adapter_only_what_is_needed_is_downloaded():
    names = ["model_index.json", "v1-5-pruned.safetensors", "safety_checker/model.safetensors",
             "safety_checker/config.json", "feature_extractor/preprocessor_config.json",
             "unet/config.json", *(f"unet/diffusion_pytorch_model{variant}.{suffix}" for suffix in (
                 "bin", "safetensors") for variant in ("", ".fp16", ".non_ema")),
             "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
             "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors",
             "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
    assert set(files_to_download("someone/images", names)) == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
        "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
        "scheduler/scheduler_config.json"}
    names = ["README.md", "config.json", "diffusion_pytorch_model.safetensors",
             "diffusion_pytorch_model.fp16.safetensors", "mm_sd15_v3.ckpt"]
    assert adapter_files("someone/adapter", names) == ["config.json", "diffusion_pytorch_model.safetensors"]
    with pytest.raises(UserError, match="has no diffusion_pytorch_model.safetensors on the hub"):
        adapter_files("someone/adapter", ["config.json", "diffusion_pytorch_model.bin"])


def test_network_that_fails_after_the_first_file_is_one_line(tmp_path, monkeypatch):
    def fail(self, name):
        raise HTTPError("connection refused")

    monkeypatch.setattr("models.hub.fetch", lambda *_: tmp_path / "model_index.json")
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", fail)
    with pytest.raises(UserError, match="a/b: the hub cannot be reached .connection refused."):
        hub_folder("a/b", "model_index.json", lambda index: [], files_to_download, download=True)


def test_mistyped_path_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "results" / "dance-2026").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("results/dance-TIME") and is_hub_id("someone/base")
    with pytest.raises(UserError, match="results/dance-TIME: does not exist. Name a diffusers folder"):
        find_base("results/dance-TIME")


def test_folder_that_is_no_base_is_told_what_to_name(tmp_path):
    with pytest.raises(UserError, match="so it is not a diffusers pipeline folder. Name one, or a hub id"):
        find_base(str(tmp_path))
