"""Single files where a folder or a motion is wanted: told by their tensors, with what to do with them."""

import shlex
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from models.single_files import CONVERTERS

# names of tensors as they are in files on the hub
CHECKPOINT = ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight",
              "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"]
MODULE = ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"]
LORAS = {
    "kohya": "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
    "diffusers": "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
    "animatediff": "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
                   "attention_blocks.0.processor.to_q_lora.down.weight"}
ROLES = {   # how a file is named -> the arguments
    "model": ["-m", "{file}"],
    "base": ["-m", "{run}", "--base", "{file}"],
    "adapter": ["-m", "{images}", "--adapter", "{file}"]}


@pytest.fixture(params=ROLES)
def refused(request, run_main, finished_run, animatediff, tmp_path):
    """Return a function that names a file in each role, and returns the one line that refuses it."""
    def run(file: Path) -> str:
        given = {"file": file, "run": finished_run, "images": animatediff[1]}
        arguments = [part.format(**given) for part in ROLES[request.param]]
        code, _, err = run_main("generate_pretrained", *arguments, "-p", "a cat", "-o", tmp_path / "out")
        assert code == 2 and err.count("\n") == 1 and err.startswith(f"{file}: "), err
        return err

    return run


def write(path: Path, names: list[str]) -> Path:
    save_file({name: torch.zeros(1) for name in names}, path)
    return path


@pytest.mark.parametrize("names, network, words", [
    (CHECKPOINT, "StableDiffusionPipeline", "is a Stable Diffusion checkpoint in one file."),
    (MODULE, "MotionAdapter", "is a motion module in one file.")])
def test_file_is_told_by_its_tensors_and_its_conversion_is_printed(
        refused, tmp_path, names, network, words):
    path = write(tmp_path / "it's \"one\".safetensors", names)
    problem = refused(path)
    assert words in problem and ". Convert it, which downloads" in problem
    code = shlex.split(problem.partition(" -c ")[2])[0]
    found = {}
    exec(code.partition(";")[0], found)   # the rest would download configs
    assert found["P"] is getattr(diffusers, network)
    assert eval(code.partition("from_single_file(")[2].partition(").save_pretrained")[0]) == str(path)


@pytest.mark.parametrize("name, kind", [
    ("dreamshaper_8.ckpt", "a Stable Diffusion checkpoint"), ("mm_sd_v15_v2.ckpt", "a motion module"),
    ("v3_sd15_mm.pth", "a motion module"), ("temporaldiff-v1.ckpt", "a motion module"),
    ("film_lora.pt", "a LoRA")])
def test_pickle_is_told_by_its_name_and_never_opened(refused, tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"no pickle at all")
    problem = refused(tmp_path / name)
    assert f"is a pickle, which can carry code and is not loaded; by its name it is {kind}. " in problem
    assert "If you trust it, convert it, which" in problem or kind == "a LoRA"


@pytest.mark.parametrize("program", LORAS)
def test_lora_of_another_program_is_to_be_added_to_its_base(refused, tmp_path, program):
    problem = refused(write(tmp_path / "lora.safetensors", [LORAS[program]]))
    assert "is a LoRA in one file. It is no motion of this program. To use it, add it to its base" in problem


def test_file_of_a_folder_is_told_to_be_named_as_the_folder(refused, animatediff):
    full, _, adapter = animatediff
    name = "diffusion_pytorch_model.safetensors"
    assert f"Name the folder, {full}." in refused(full / "vae" / name)
    assert f"Name the folder, {adapter}." in refused(adapter / name)


def test_unknown_file_is_one_line(refused, tmp_path):
    refused(write(tmp_path / "unknown.safetensors", ["weight"]))
    (tmp_path / "notes.txt").write_text("")
    refused(tmp_path / "notes.txt")


def test_classes_that_convert_can_read_single_files():
    assert all(hasattr(getattr(diffusers, name), "from_single_file") for name, _ in CONVERTERS.values())


def test_motion_named_as_a_base_is_told_where_it_belongs(run_main, finished_run, tmp_path):
    motion = finished_run / "motion.safetensors"
    code, _, err = run_main("generate_pretrained", "-m", finished_run, "--base", motion, "-p", "a cat",
                            "-o", tmp_path / "out")
    assert code == 2 and err.startswith(f"{motion}: holds motion weights, which are no base and no adapter. ")
