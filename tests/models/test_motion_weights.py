"""The file of tuned weights: what is in it, and what it refuses to be applied to."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.base import load_base
from models.base_parts import unet_files
from models.motion_weights import (
    MotionInfo,
    apply_motion,
    read_motion_info,
    relative_change,
    save_motion,
)
from models.tunable import select_tunable, union
from tests.conftest import ROOT
from training.run_folder import find_motion
from utils.errors import UserError
from utils.tensor_files import read_metadata, write_tensors

GROUPS = ["cross", "temp_convs"]


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def tuned(base):
    names = union(select_tunable(dict(base.unet.named_parameters()), GROUPS))
    parameters = dict(base.unet.named_parameters())
    torch.manual_seed(0)
    return {name: parameters[name] + 0.1 * torch.randn_like(parameters[name]) for name in names}


@pytest.fixture
def motion(tmp_path, base, tuned):
    path = tmp_path / "motion.safetensors"
    save_motion(path, tuned, info(base), "fp32")
    return path


def info(base) -> MotionInfo:
    return MotionInfo(base.name, base.fingerprint, GROUPS, "sks", 7, 8.0, "subject: spin\n", {"torch": "2"})


def damage(path, change, metadata=None):
    tensors, stored = load_file(path), read_metadata(path)
    change(tensors)
    write_tensors(path, tensors, {**stored, **(metadata or {})})


def weights(unet):
    return {name: tensor.clone() for name, tensor in unet.state_dict().items()}


def test_description_survives_the_file(base, motion):
    assert read_motion_info(motion) == info(base)


def test_strength_one_is_the_tuned_tensors_and_nothing_else_changes(base, tuned, motion):
    before = weights(base.unet)
    apply_motion(base.unet, base.fingerprint, motion)
    after = base.unet.state_dict()
    assert all(torch.equal(after[name], tuned.get(name, before[name])) for name in after)


def test_strength_zero_is_the_base_bit_for_bit(base, motion):
    before = weights(base.unet)
    apply_motion(base.unet, base.fingerprint, motion, strength=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())


@pytest.mark.parametrize("strength", [0.5, 1.5, -1.0])
def test_strength_scales_the_difference(base, tuned, motion, strength):
    before = weights(base.unet)
    apply_motion(base.unet, base.fingerprint, motion, strength)
    for name, tensor in base.unet.state_dict().items():
        if name in tuned:
            torch.testing.assert_close(tensor, before[name] + strength * (tuned[name] - before[name]))


def test_fp16_is_half_the_size(tmp_path, base, tuned):
    sizes = {}
    for dtype in ("fp16", "fp32"):
        save_motion(tmp_path / dtype, tuned, info(base), dtype)
        sizes[dtype] = sum(t.numel() * t.element_size() for t in load_file(tmp_path / dtype).values())
    assert sizes["fp32"] == 2 * sizes["fp16"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of memory")
def test_saving_takes_no_second_copy_of_what_is_saved(tmp_path):
    """24 tensors of 4 MB, and twice that of optimizer state: not half of it is there a second time."""
    done = subprocess.run([sys.executable, "-c", MEASURED_SAVE, str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [growth for growth, written in measured if growth > written / 2 or written < 48e6] == [], measured
    assert len(measured) == 2


MEASURED_SAVE = """
import sys, torch
from pathlib import Path
from training.checkpoint import save_checkpoint
from models.motion_weights import MotionInfo, save_motion

def peak():
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

folder, info = Path(sys.argv[1]), MotionInfo("base", "print", ["all"], "sks", 3, 8.0, "", {})
def network(num_values):
    trained = {f"{index:02}": torch.nn.Parameter(torch.randn(num_values)) for index in range(24)}
    optimizer = torch.optim.AdamW(trained.values(), fused=True)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return trained, optimizer

def save_both(name, trained, optimizer):
    for what in ("motion", "checkpoint"):
        path = folder / f"{name} {what}"
        Path("/proc/self/clear_refs").write_text("5")   # forgets the peak
        before = peak()
        if what == "motion":
            save_motion(path, trained, info, "fp16")
        else:
            save_checkpoint(path, trained, optimizer, info, "fp16", {})
        yield peak() - before, sum(file.stat().st_size for file in [path, *path.glob("*")] if file.is_file())

list(save_both("small", *network(8)))   # what is imported on the way does not count
# as many values again as the gradients had, so that none of their memory is free
trained, optimizer = network(2 ** 20)
filling = [torch.zeros(2 ** 20).fill_(1) for _ in trained]
for measured in save_both("large", trained, optimizer):
    print(*measured)
"""


def test_value_too_large_for_fp16_is_kept_in_fp32(tmp_path, base, tuned):
    name = next(iter(tuned))
    tuned[name] = torch.full_like(tuned[name], 1e6)
    save_motion(tmp_path / "motion.safetensors", tuned, info(base), "fp16")
    assert torch.equal(load_file(tmp_path / "motion.safetensors")[name], tuned[name])


def test_value_that_is_not_finite_is_said_and_nothing_written(tmp_path, base, tuned):
    name = next(iter(tuned))
    tuned[name] = torch.full_like(tuned[name], torch.inf)
    with pytest.raises(UserError, match="not finite"):
        save_motion(tmp_path / "motion.safetensors", tuned, info(base), "fp16")
    assert not list(tmp_path.iterdir())


def test_another_base_is_refused_and_left_alone(motion, other_base, tiny_base):
    other = load_base(str(other_base))
    before = weights(other.unet)
    with pytest.raises(UserError, match=f"was trained on {tiny_base}, and this base has other weights"):
        apply_motion(other.unet, other.fingerprint, motion)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.unet.state_dict().items())


@pytest.mark.parametrize("change, words", [
    (lambda tensors: tensors.pop(sorted(tensors)[0]), "lacks 1 tensors"),
    (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 tensors that are not of"),
    (lambda tensors: tensors.update({sorted(tensors)[0]: torch.zeros(3)}), "has shape"),
    (lambda tensors: tensors[sorted(tensors)[0]].fill_(torch.nan), "not finite"),
    (lambda tensors: tensors.update({sorted(tensors)[0]: tensors[sorted(tensors)[0]].int()}), "not finite"),
])
def test_misfits_are_refused_before_anything_is_touched(base, motion, change, words):
    before = weights(base.unet)
    damage(motion, change)
    with pytest.raises(UserError, match=words):
        apply_motion(base.unet, base.fingerprint, motion)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_file_that_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "motion.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_motion_info(path)


def test_safetensors_of_something_else_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no motion weights"):
        read_motion_info(tmp_path / "other.safetensors")


@pytest.mark.parametrize("field, value", [
    ("step", "many"), ("step", "1.5"), ("fps", '"eight"'), ("fps", "0"), ("fps", "NaN"), ("fps", "null"),
    ("groups", "5"), ("groups", "[5]"), ("groups", '"all"'), ("versions", "[]"), ("noise_schedule", "[]")])
def test_damaged_description_is_refused(motion, field, value):
    damage(motion, lambda tensors: None, {field: value})
    with pytest.raises(UserError) as refused:
        read_motion_info(motion)
    assert str(refused.value).startswith(f"{motion}: its description is damaged (")


def test_motion_is_found_by_file_run_and_checkpoint(tmp_path):
    run = tmp_path / "spin-2026"
    for name in ("checkpoint-5", "checkpoint-10"):
        (run / name).mkdir(parents=True)
        (run / name / "motion.safetensors").touch()
    assert find_motion(run / "checkpoint-5") == run / "checkpoint-5" / "motion.safetensors"
    assert find_motion(run) == run / "checkpoint-10" / "motion.safetensors"   # not finished: its newest
    (run / "motion.safetensors").touch()
    assert find_motion(run) == run / "motion.safetensors"
    assert find_motion(run / "motion.safetensors") == run / "motion.safetensors"
    assert find_motion(tmp_path) is None and find_motion("someone/model") is None


def test_movement_is_the_relative_norm_of_the_change(base):
    names = union(select_tunable(dict(base.unet.named_parameters()), ["cross"]))
    doubled = {name: 2 * parameter for name, parameter in base.unet.named_parameters() if name in names}
    changes = relative_change(unet_files(base.folder), doubled, {"cross": names})
    assert changes == {"cross": pytest.approx(1.0)}
