"""What a training step costs in time and memory: the plain way, the fast way, and every change between them.

The step measured is the one of train_model.py (training/step.py, set up by training/setup.py). A variant is
set up without some of the things that make it fast.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)
from tqdm import tqdm

from models.base import Base, encode_frames, encode_prompt, load_base
from studies.benchmark_report import PHASES
from training.inputs import Inputs, latents_from
from training.loop import report
from training.plan import Plan, step_footprint, step_footprints
from training.setup import Training, set_up
from training.step import optimizer_step
from training.windows import Window
from utils.devices import DTYPES
from utils.video import read_frames

PEAK_IS_FORGOTTEN_BY = Path("/proc/self/clear_refs")   # Linux only, where psutil knows no peak
ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu   # FlopCounterMode does not count it
ON_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Variant:
    """One way to take a training step. By default everything is on, as in train_model.py with bf16."""

    title: str
    encoders_in_loop: bool = False
    all_to_optimizer: bool = False   # the optimizer gets the frozen tensors too, and skips them
    apart: bool | None = None        # one pass for exemplars, one for regularization; None: plan.py decides
    recompute: bool = False
    precision: str = "bf16"
    fast_forms: bool = True
    fused: bool = True
    channels_last: bool = False


PLAIN = Variant("plain", encoders_in_loop=True, all_to_optimizer=True, apart=False, recompute=True,
                precision="no", fast_forms=False, fused=False)
ALL_ON = Variant("all on")
LADDER = [PLAIN]   # each variant has one change more than the variant before it
for _title, _change in (("encoders out of the loop", {"encoders_in_loop": False}),
                        ("only tuned tensors to the optimizer", {"all_to_optimizer": False}),
                        ("activations kept", {"recompute": False}),
                        ("exemplars and regularization apart", {"apart": None}),
                        ("short attention, temporal convolutions", {"fast_forms": True}),
                        ("bf16, frozen weights too", {"precision": "bf16"})):
    LADDER.append(replace(LADDER[-1], title=_title, **_change))
LADDER.append(ALL_ON)   # the last change: fused AdamW
OTHERS = [replace(ALL_ON, title="all on, in channels last", channels_last=True),
          replace(ALL_ON, title="all on, in float32", precision="no"),
          replace(ALL_ON, title="all on, activations recomputed", recompute=True)]


def as_variant(plan: Plan, variant: Variant) -> Plan:
    """Return the plan with the settings that `variant` has in the config."""
    config = replace(plan.config, mixed_precision=variant.precision, gradient_checkpointing=variant.recompute)
    plan = replace(plan, config=config)
    return replace(plan, footprints=step_footprints(plan))


def set_up_variant(plan: Plan, variant: Variant, accelerator, run: Path) -> Training:
    """Return a training in the folder `run`, set up as train_model.py does but for what `variant` does
    without."""
    base = load_base(plan.config.pretrained_model_path, variant.fast_forms)
    training = set_up(as_variant(plan, variant), accelerator, run, base)
    if variant.apart is not None:
        training = replace(training, apart=variant.apart)
    if variant.channels_last:
        for name, module in base.unet.named_modules():
            # not the first one: torch 2.13 dies on a CPU where a norm trains on an input without a gradient
            if isinstance(module, torch.nn.Conv2d) and name != "conv_in":
                module.to(memory_format=torch.channels_last)
    if variant.encoders_in_loop:
        for encoder in (base.vae, base.pipeline.text_encoder):
            encoder.to(accelerator.device)
        training = replace(training, inputs=Inputs(partial(_encoded_window, base),
                                                   partial(_encoded_caption, base)))
    if variant.fused:
        return training
    tensors = base.unet.parameters() if variant.all_to_optimizer else training.trained.values()
    optimizer = torch.optim.AdamW(list(tensors), lr=plan.config.learning_rate)
    return replace(training, optimizer=accelerator.prepare(optimizer))


def _encoded_window(base: Base, window: Window) -> Tensor:
    rows = window.clip.frames[window.start : window.start + window.clip.window]
    frames = read_frames(window.clip.path, rows, window.clip.size)                          # (f h w c)
    return latents_from(encode_frames(base.vae, frames), window.generator)                  # (c f h w)


def _encoded_caption(base: Base, window: Window) -> Tensor:
    return encode_prompt(base.pipeline, window.caption)                                     # (n d)


def timed_step(training: Training, index: int) -> dict[str, float]:
    """Take step `index`. Return its seconds, and the processor's seconds in all threads."""
    device = training.accelerator.device
    began, of_processor = now(device), time.process_time()
    report(training, optimizer_step(training, index), tqdm(disable=True))
    return {"seconds": now(device) - began, "processor": time.process_time() - of_processor}


def step_phases(training: Training, index: int) -> dict[str, float]:
    """Return the share of each of PHASES in a step, from a profile of step `index`.

    On a CPU it is the time in the ranges that training/step.py names. On a GPU it is the time of the kernels
    that were launched in a range, because a range there ends before its kernels do.
    """
    on_gpu = training.accelerator.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as profiler:
        with record_function("step"):
            timed_step(training, index)
    events = [event for event in profiler.events() if event.device_type == DeviceType.CPU]
    ranges = {phase: [event.time_range for event in events if event.name == phase]
              for phase in ("step", *PHASES[:-1])}
    spent = {phase: sum(each.elapsed_us() for each in found) for phase, found in ranges.items()}
    if on_gpu:
        kernels = [(event.time_range.start, sum(kernel.duration for kernel in event.kernels))
                   for event in events if event.kernels]
        spent = {phase: sum(took for start, took in kernels
                            if any(each.start <= start <= each.end for each in found))
                 for phase, found in ranges.items()}
    shares = {phase: spent[phase] / spent["step"] for phase in PHASES[:-1]}
    return {**shares, "rest": 1 - sum(shares.values())}


def now(device: torch.device) -> float:
    """Return the time in seconds, once everything asked of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def step_flop(training: Training) -> int:
    """Return the floating point operations of a step, forward and backward."""
    return count_flop(partial(timed_step, training, 0))


def count_flop(function: Callable[[], object]) -> int:
    """Return the floating point operations of matrix products and convolutions in a call of `function`."""
    def attention(query, key, value, *_others, **_more) -> int:   # shapes
        return sdpa_flop_count(query, key, value)

    def attention_backward(gradient, query, key, value, *_others, **_more) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    counted = {ON_CPU: attention, ON_CPU_BACKWARD: attention_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        function()
    return counter.get_total_flops()


def matmul_rate(precision: str, side: int | None = None) -> float:
    """Return the operations per second of a product of large square matrices, with which a step is
    compared."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = side or (8192 if device.type == "cuda" else 2048)
    dtype = DTYPES[precision]
    factors, rates = torch.ones(2, side, side, dtype=dtype, device=device), []
    for _ in range(6):
        began = now(device)
        torch.mm(factors[0], factors[1])
        rates.append(2 * side**3 / (now(device) - began))
    return max(rates)


def step_memory(plan: Plan, variant: Variant, accelerator, run: Path,
                num_steps: int = 2) -> dict[str, int | None]:
    """Return the bytes at the peak of a step by purpose, their sum, and the prediction of a dry run.

    On a GPU the allocator knows the peak. On a CPU under Linux the peak is the growth of this process, which
    must not have computed anything before.
    """
    device, before = accelerator.device, resident_bytes()
    training = set_up_variant(plan, variant, accelerator, run)
    encoders = 0
    if device.type == "cpu" and not variant.encoders_in_loop:   # the encoders stay on the CPU
        encoders = sum(_num_bytes(part.parameters())
                       for part in (training.base.vae, training.base.pipeline.text_encoder))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif device.type == "cpu":
        PEAK_IS_FORGOTTEN_BY.write_text("5")
    for index in range(num_steps):
        timed_step(training, index)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else \
        peak_bytes() - before - encoders
    parts = {"weights": _num_bytes(training.base.unet.parameters()),
             "gradients": _num_bytes(training.trained.values()),
             "optimizer": sum(_num_bytes(value for value in state.values() if isinstance(value, Tensor))
                              for state in training.optimizer.state.values())}
    found = {**parts, "activations": peak - sum(parts.values()), "peak": peak, "predicted": None}
    if variant.fast_forms:   # a dry run estimates only the fast forms
        found["predicted"] = step_footprint(as_variant(plan, variant), training.apart,
                                            variant.recompute).total()
    return found


def _num_bytes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def resident_bytes() -> int:
    """Return the bytes of memory that this process holds."""
    return psutil.Process().memory_info().rss


def peak_bytes() -> int:
    """Return the most bytes that this process has held since its peak was last reset. Linux only.

    The peak of getrusage is no use: it includes the process that started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
