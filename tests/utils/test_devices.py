"""The precision to compute in is the one asked for, where the device has it, and else the next best, with a
note."""

import pytest
import torch

from utils import devices
from utils.devices import precision_of_training, resolve_precision


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes this machine one with an NVIDIA GPU or without, with bf16 or without."""
    def give(has_gpu: bool, has_bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
        monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_bf16)

    return give


@pytest.mark.parametrize(("has_gpu", "has_bf16", "best"), [
    (False, True, "bf16"), (False, False, "no"), (True, True, "bf16"), (True, False, "fp16")])
def test_without_a_wish_it_is_the_best_of_the_device(machine, has_gpu, has_bf16, best):
    machine(has_gpu, has_bf16)
    assert resolve_precision(None) == (best, [])


def test_fp16_without_a_gpu_becomes_float32_and_says_so(machine):
    machine(has_gpu=False, has_bf16=True)
    assert resolve_precision("fp16") == ("no", ["fp16 needs a GPU, and there is none: computing in float32."])
    machine(has_gpu=True, has_bf16=True)
    assert resolve_precision("fp16") == ("fp16", [])


def test_bf16_on_a_gpu_without_it_becomes_fp16_and_says_so(machine):
    machine(has_gpu=True, has_bf16=False)
    assert resolve_precision("bf16") == ("fp16", ["This GPU has no bf16: computing in fp16."])
    machine(has_gpu=False, has_bf16=False)   # a CPU emulates it
    assert resolve_precision("bf16") == ("bf16", [])


def test_what_was_trained_in_bf16_is_rendered_in_float32_on_a_cpu_without_it(machine):
    machine(has_gpu=False, has_bf16=False)
    precision, (note,) = precision_of_training("bf16")
    assert precision == "no" and "This CPU has no bf16" in note
    assert precision_of_training(None) == ("no", [])
    machine(has_gpu=False, has_bf16=True)
    assert precision_of_training("bf16") == ("bf16", []) and precision_of_training("no") == ("no", [])


def test_process_of_a_launch_asks_about_its_own_gpu(machine, monkeypatch):
    machine(has_gpu=True, has_bf16=True)
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: asked.append(gpu) or (70, 80))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: asked.append(gpu) or "a GPU")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.free_memory() == 70 and devices.device_name() == "a GPU"
    monkeypatch.delenv("LOCAL_RANK")
    assert devices.free_memory() == 70 and asked == [3, 3, None]
