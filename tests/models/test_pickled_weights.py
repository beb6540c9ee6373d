"""Weights that are only there as pickles: refused, and converted by the command of the message."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.base import load_base
from models.base_check import check_adapter_folder, check_base_folder
from models.base_folder import find_base
from models.base_parts import WEIGHTS
from models.hub import files_to_download
from models.pickled_weights import pickled_parts
from tests.hub_server import Hub
from utils.errors import UserError

PUBLISHED = '"unet": [\n    "models.unet_3d_condition",'   # of a folder that the published program saved


def pickled(base: Path, parts, num_files: int = 1) -> None:
    """Leave the weights of parts as pickles alone, of which the text encoder's has what old ones have:
    a buffer, tensors that share memory, and one that is not contiguous."""
    for part in parts:
        plain = base / part / f"{WEIGHTS[part]}.safetensors"
        tensors, stem = load_file(plain), WEIGHTS[part]
        if part == "text_encoder":
            stem = "pytorch_model"
            tensors["embeddings.position_ids"] = torch.arange(77)[None]
            tensors["encoder.shared"] = tensors["embeddings.token_embedding.weight"][:4]
            tensors["encoder.turned"] = torch.arange(6).reshape(2, 3).T
        names = sorted(tensors)
        for number in range(num_files):
            shard = f"-{number + 1:05d}-of-{num_files:05d}" * (num_files > 1)
            torch.save({name: tensors[name] for name in names[number::num_files]},
                       plain.with_name(f"{stem}{shard}.bin"))
        plain.unlink()


def run_command(problem: str) -> None:
    # a process of its own would import everything again
    exec(shlex.split(problem.partition(" -c ")[2])[0], {})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("parts, num_files", [(["unet"], 1), (list(WEIGHTS), 1), (list(WEIGHTS), 2)])
def test_command_writes_safetensors_beside_the_pickles_and_nothing_else(
        tiny_base, tmp_path, parts, num_files):
    base = shutil.copytree(tiny_base, tmp_path / "it's a \"base\" $(no)")
    pickled(base, parts, num_files)
    index = base / "model_index.json"
    index.write_text(index.read_text().replace('"unet": [\n    "diffusers",', PUBLISHED))
    assert PUBLISHED in index.read_text()
    before = contents(base)
    (problem,) = check_base_folder(base)
    assert f"has the weights of its {', '.join(parts)} only as pickle (.bin)" in problem
    run_command(problem)
    after = contents(base)
    assert after.keys() - before.keys() == {f"{part}/{WEIGHTS[part]}.safetensors" for part in parts}
    assert {name: after[name] for name in before} == before and find_base(str(base)) == base
    converted, original = load_base(str(base)), load_base(str(tiny_base))
    assert converted.fingerprint == original.fingerprint
    for part in ("vae", "text_encoder"):
        theirs = getattr(original.pipeline, part).state_dict()
        assert all(torch.equal(tensor, theirs[name])
                   for name, tensor in getattr(converted.pipeline, part).state_dict().items())


def test_adapter_is_converted_in_place(animatediff, tmp_path):
    _, images, adapter = animatediff
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    stem = adapter / "diffusion_pytorch_model"
    tensors = load_file(f"{stem}.safetensors")
    torch.save(tensors, f"{stem}.bin")
    Path(f"{stem}.safetensors").unlink()
    (problem,) = check_adapter_folder(adapter, images)
    assert problem.startswith(f"{adapter}: has its weights only as pickle (.bin)")
    run_command(problem)
    assert check_adapter_folder(adapter, images) == []
    assert all(torch.equal(tensor, tensors[name])
               for name, tensor in load_file(f"{stem}.safetensors").items())


def test_base_on_the_hub_is_downloaded_into_a_folder_and_converted_there(tiny_base, tmp_path, monkeypatch):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    pickled(base, ["unet", "text_encoder"])
    (base / "unet" / "unet_3d.py").write_text("")
    hub = Hub()
    hub.connect(monkeypatch, tmp_path / "home")
    hub.repositories["jo/base"] = contents(base)
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(UserError) as refused:
            find_base("jo/base")
        (problem,) = refused.value.problems
        assert problem.startswith("jo/base: has the weights of its unet, text_encoder only as pickle (.bin)")
        assert "convert it once, and name the new folder, converted, as the base: " in problem
        run_command(problem)
    finally:
        hub.server.shutdown()
    files = contents(Path("converted"))
    assert {name for name in files if not name.startswith(".cache")} - contents(base).keys() == {
        "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"}
    assert "unet/unet_3d.py" not in files
    assert load_base("converted").fingerprint == load_base(str(tiny_base)).fingerprint


def test_variants_other_than_the_plain_one_and_half_precision_are_never_converted():
    names = [f"unet/diffusion_pytorch_model{variant}.bin" for variant in (".non_ema", ".fp16", "")]
    assert pickled_parts(names) == {"unet": ["diffusion_pytorch_model.bin"]}
    assert pickled_parts(names[:2]) == {"unet": ["diffusion_pytorch_model.fp16.bin"]}
    assert pickled_parts(names[:1]) == pickled_parts([*names, names[2].replace("bin", "safetensors")]) == {}


def test_part_without_weights_on_the_hub_is_named():
    names = ["model_index.json", "unet/diffusion_pytorch_model.safetensors",
             "vae/diffusion_flax_model.msgpack", "text_encoder/model.safetensors"]
    with pytest.raises(UserError, match="a/b: has no weights of its vae on the hub that this program knows"):
        files_to_download("a/b", names)
