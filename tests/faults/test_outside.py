"""Nothing is let in: no pickle, no shell, no code from a base, nothing from the network but a hub id."""

import ast
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.test_imports import layer_of, python_files
from utils.errors import UserError

# what runs what it is given, or loads what can carry code
FORBIDDEN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
             "pickle.load", "pickle.loads", "marshal.loads", "joblib.load", "yaml.load", "yaml.unsafe_load",
             "np.load", "numpy.load"}


def product_files() -> list[Path]:
    return [path for path in python_files() if layer_of(path) != "tests"]


def calls(path: Path):
    """Yield (full name, keywords) of every call in a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_nothing_that_runs_or_unpickles_what_it_is_given_is_called():
    found = [f"{path}: {name}" for path in product_files() for name, words in calls(path)
             if name in FORBIDDEN and (name, words.get("allow_pickle")) != ("np.load", "False")]
    assert found == []


def test_torch_loads_weights_only():
    loads = [(path, words) for path in product_files() for name, words in calls(path) if name == "torch.load"]
    assert [path for path, words in loads if words.get("weights_only") != "True"] == []
    # in what a user runs there is no torch.load at all
    assert {path.as_posix() for path, _ in loads} == {"puppets/training_run.py"}


def test_no_shell_and_no_remote_code():
    for path in product_files():
        for name, words in calls(path):
            assert words.get("shell", "False") == "False", f"{path}: {name}"
            assert words.get("trust_remote_code", "False") == "False", f"{path}: {name}"


def test_every_model_is_loaded_from_safetensors():
    """Except configs, processors and tokenizers, which have no weights."""
    loads = [(f"{path}: {name}", words) for path in product_files()
             for name, words in calls(path) if name.endswith("from_pretrained")]
    weightless = [where for where, words in loads if "Tokenizer" in where
                  or list(words) == ["trust_remote_code"]]
    assert len(loads) > len(weightless)
    assert [where for where, words in loads
            if where not in weightless and words.get("use_safetensors") != "True"] == []


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model",
                                  "text_encoder/model"])
def test_pickle_in_a_base_is_never_opened(tiny_base, tmp_path, name):
    """Beside the safetensors it is passed over; in their place it is refused."""
    from models.base import load_base

    base = shutil.copytree(tiny_base, tmp_path / "base")
    pickled = base / f"{name.replace('/model', '/pytorch_model')}.bin"
    pickled.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    load_base(str(base))
    (base / f"{name}.safetensors").unlink()
    with pytest.raises(UserError, match="only as pickle .* is not loaded. If you trust it, convert it"):
        load_base(str(base))
    # and under the right name it is no safetensors
    pickled.rename(base / f"{name}.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_base(str(base))
    assert not (tmp_path / "exploded").exists()


def test_pickle_as_motion_weights_or_checkpoint_is_refused(tmp_path, run_main, tiny_base):
    bomb = tmp_path / "motion.safetensors"
    torch.save({"a": Bomb(tmp_path / "exploded")}, bomb)
    code, _, err = run_main("generate_pretrained", "-m", bomb, "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and "motion.safetensors: cannot be read" in err
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_code_in_a_base_is_never_run(tiny_base, tmp_path, part):
    """A model_index.json may name a module of the base's own; diffusers offers to run it."""
    from models.base import load_base

    base = shutil.copytree(tiny_base, tmp_path / "base")
    for folder in (base, base / part):
        (folder / "mine.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\nclass Mine: pass\n")
    index = json.loads((base / "model_index.json").read_text())
    index[part] = ["mine", "Mine"]
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError):
        load_base(str(base))
    assert not (tmp_path / "exploded").exists()


@pytest.fixture
def connections(monkeypatch):
    """Collect what this process asks of the network, and answer none of it."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0])
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return asked


def test_training_and_rendering_ask_nothing_of_the_network(run_main, write_config, tmp_path, connections,
                                                           monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    config = write_config("max_train_steps=1", "validation_steps=1", "validation_data.num_inference_steps=1")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 0, err
    run = next((tmp_path / "results").glob("spin-*"))
    code, _, err = run_main("generate_pretrained", "-m", run, "-p", "a cat", "-o", tmp_path / "out",
                            "--steps", "1")
    assert code == 0, err
    assert connections == []


ASK = """
import os, socket
def answer(*_, **__):
    print("asks the network", flush=True)
    os._exit(0)
socket.getaddrinfo = socket.socket.connect = answer
from models.base_folder import find_base
find_base("nobody/a-base-that-is-not-here")
"""


@pytest.mark.parametrize("offline, said", [
    ("0", "asks the network"),
    ("1", "is not on this machine, and the hub cannot be reached. Check the network and HF_HUB_OFFLINE, or "
          "name a local folder.")])
def test_hub_is_asked_for_a_hub_id_unless_told_to_be_offline(tmp_path, offline, said):
    """In a process of its own: the library reads HF_HUB_OFFLINE once."""
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, env=os.environ | {"HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path)})
    assert (done.stdout + done.stderr).strip().endswith(said)
