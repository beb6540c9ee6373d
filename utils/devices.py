"""The device this machine computes on, and the precisions it has."""

import os

import psutil
import torch

# by accelerate's names; "no" mixed precision is plain float32
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def has_gpu() -> bool:
    """Say whether there is an NVIDIA, AMD or Apple GPU."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def device_name() -> str:
    """Return the name of the device, for a person to read."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(own_gpu())
    return "Apple's GPU" if has_gpu() else "the CPU"


def own_gpu() -> int | None:
    """Return the number of the GPU that this process of a launch computes on; None without a launch.

    A process that asks about another GPU keeps some of that GPU's memory until it ends.
    """
    if "LOCAL_RANK" not in os.environ:
        return None
    return int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()


def free_memory() -> int:
    """Return the bytes that are free on the device."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(own_gpu())[0]
    return psutil.virtual_memory().available


def cpu_has_bf16() -> bool:
    """Say whether this CPU has instructions for bf16 (AVX512-BF16, AMX). Without them float32 is faster."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def precision_name(precision: str) -> str:
    """Return the name of a precision, for a person to read."""
    return "float32" if precision == "no" else precision


def resolve_precision(wanted: str | None) -> tuple[str, list[str]]:
    """Return the precision to compute in on this device, and notes for the user.

    None asks for the fastest precision of the device. A precision that the device lacks is replaced, with a
    note.
    """
    if wanted == "no":
        return "no", []
    has_cuda = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_cuda else cpu_has_bf16()
    if wanted is None:
        return "bf16" if has_bf16 else "fp16" if has_cuda else "no", []
    if wanted == "fp16" and not has_gpu():
        return "no", ["fp16 needs a GPU, and there is none: computing in float32."]
    if wanted == "bf16" and has_cuda and not has_bf16:
        return "fp16", ["This GPU has no bf16: computing in fp16."]
    return wanted, []


def precision_of_training(trained_in: str | None) -> tuple[str, list[str]]:
    """Return the precision to render in by default, that of the training, and notes for the user.

    A CPU without instructions for bf16 would compute it slowly, so it computes in float32.
    """
    if trained_in == "bf16" and not has_gpu() and not cpu_has_bf16():
        return "no", ["This CPU has no bf16, in which the motion was trained: computing in float32."]
    return resolve_precision(trained_in)
