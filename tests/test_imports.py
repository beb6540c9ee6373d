"""Imports run one way, from utils up to the four commands, and every import is in requirements.txt."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# each imports those before it
ROOMS = ("utils", "models", "rendering", "training", "preparation", "evaluation")
WORKSHOPS = ("puppets", "studies")   # no product code: they import all rooms, and nothing imports them
ENTRY_POINTS = ("prepare_clips.py", "train_model.py", "generate_pretrained.py", "evaluate_motion.py")
COMMANDS = r"(train_model|generate_pretrained|evaluate_motion)\.py"
ONLY_IN = {   # module -> where it may be imported
    "decord": r"utils/decoding\.py",
    "omegaconf": r"training/config_(loading|text)\.py|tests/.*",
    "yaml": r"training/config_(loading|text)\.py|tests/.*",
    "accelerate": COMMANDS + r"|(puppets|studies|tests)/.*",
    "peft": r"models/lora\.py|tests/.*",
    "diffusers": r"(models|rendering|training|puppets|studies|tests)/.*",
    "matplotlib": r"(evaluation/score_report|studies/ablation_report)\.py",
    "cv2": r"preparation/analysis\.py|tests/preparation/.*",
    "scenedetect": r"preparation/analysis\.py",
    "transformers": r"(models|preparation|evaluation|puppets|studies|tests)/.*",
}
# package -> module, where the names differ
MODULE_OF = {"pillow": "PIL", "imageio-ffmpeg": "imageio_ffmpeg", "eva-decord": "decord", "pyyaml": "yaml",
             "scenedetect-headless": "scenedetect", "opencv-python-headless": "cv2",
             "pytest-xdist": "xdist"}
OPTIONAL = {"bitsandbytes", "compel"}   # asked for by a key or a prompt; a message says how to install it
INDIRECT = {"tensorboard", "wandb", "tokenizers"}   # through accelerate, and transformers
RUNNERS = {"xdist"}                  # by an option of pytest


def python_files() -> list[Path]:
    """Return every Python file of the repository, those not committed yet too."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
                            cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:   # a copy without git, as from an archive
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
        return [path for path in paths
                if not any(p.startswith((".", "venv")) or p == "site-packages" for p in path.parts)]
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def imports_of(path: Path) -> list[str]:
    """Return the full names a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
            assert "*" not in [alias.name for alias in node.names], f"{path}: star import of {node.module}"
    return names


def layer_of(path: Path) -> str:
    top, *below = path.parts
    return top if top in ALLOWED and below else "entry point"


@functools.cache
def edges() -> list[tuple[Path, str]]:
    return [(path, name) for path in python_files() for name in imports_of(path)]


def local_target(name: str) -> str | None:
    """Return the layer that an imported name lies in; None if it is not of this repository."""
    top = name.split(".")[0]
    if top in ALLOWED:
        return top
    return "entry point" if (ROOT / f"{top}.py").exists() else None


ALLOWED = {   # layer -> the layers it may import
    **{room: {*ROOMS[:index + 1]} for index, room in enumerate(ROOMS)},
    "entry point": {*ROOMS},
    "puppets": {*ROOMS, "puppets"},
    "studies": {*ROOMS, *WORKSHOPS},   # the ablation asks its questions of the puppet theatre
    "tests": {*ROOMS, *WORKSHOPS, "entry point", "tests"},
}


def test_walk_sees_every_layer():
    assert {layer_of(path) for path in python_files()} == set(ALLOWED)
    assert (Path("utils/decoding.py"), "decord") in edges()
    assert (Path("training/plan.py"), "training.clips.Clip") in edges()


def test_imports_run_one_way():
    wrong = [f"{path} imports {name}" for path, name in edges()
             if local_target(name) and local_target(name) not in ALLOWED[layer_of(path)]]
    assert wrong == []


def test_imported_names_of_this_repository_exist():
    missing = []
    for path, name in edges():
        if local_target(name) is None:
            continue
        stem = ROOT.joinpath(*name.split("."))
        module = stem if stem.with_suffix(".py").exists() or stem.is_dir() else stem.parent
        if not (module.is_dir() or module.with_suffix(".py").exists()):
            missing.append(f"{path} imports {name}")
    assert missing == []


def test_no_two_modules_of_ours_import_each_other():
    modules = {*ROOMS, *WORKSHOPS}
    graph = {}
    for path, name in edges():
        if layer_of(path) in modules and local_target(name) in modules:
            is_module = ROOT.joinpath(*name.split(".")).with_suffix(".py").exists()
            target = name if is_module else name.rpartition(".")[0]
            graph.setdefault(".".join(path.with_suffix("").parts), set()).add(target)

    def reach(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    assert [module for module in graph if module in reach(module)] == []


@pytest.mark.parametrize("module", ONLY_IN)
def test_module_is_imported_only_where_it_belongs(module):
    users = {path.as_posix() for path, name in edges() if name.split(".")[0] == module}
    assert users and [user for user in sorted(users) if not re.fullmatch(ONLY_IN[module], user)] == []


def third_party() -> dict[str, set[str]]:
    """Return {top module: the files that import it} for what is neither ours nor the standard library."""
    found = {}
    for path, name in edges():
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and local_target(name) is None:
            found.setdefault(top, set()).add(path.as_posix())
    return found


def required(file: str) -> dict[str, str]:
    """Return {module: line} of a requirements file."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    pattern = re.compile(r"[\w.-]+")
    return {MODULE_OF.get(name, name.replace("-", "_")): line
            for line in lines if line and not line.startswith("-r")
            for name in [pattern.match(line)[0]]}


def test_every_import_is_required():
    known = set(required("requirements.txt")) | OPTIONAL | INDIRECT
    for_tests = known | set(required("requirements-dev.txt"))
    missing = {module: users for module, users in third_party().items()
               if module not in for_tests
               or module not in known and any(layer_of(Path(user)) != "tests" for user in users)}
    assert missing == {}


def test_every_requirement_is_imported():
    assert set(required("requirements.txt")) - set(third_party()) == set()
    assert set(required("requirements-dev.txt")) - set(third_party()) - RUNNERS == set()


def test_every_requirement_is_pinned():
    lines = {**required("requirements.txt"), **required("requirements-dev.txt")}.values()
    assert [line for line in lines if not re.match(r"[\w.-]+==\d[\w.]*(;|$)", line)] == []


@pytest.mark.parametrize("script", ENTRY_POINTS)
def test_help_does_not_wait_for_torch(script):
    code = (f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
            f"try: runpy.run_path('{script}', run_name='__main__')\n"
            f"except SystemExit: pass\n"
            f"assert not {{'torch', 'diffusers', 'transformers', 'decord'}} & set(sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout
