"""What a training step costs in time and memory: the plain way, the fast way, and every change between them.

The step measured is the one that trains (training/step.py, set up by training/loop.py). A variant takes away
what makes it fast, by putting the plain way in its place for as long as it is measured.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)
from tqdm import tqdm

from models.base import Base, encode_frames, encode_prompt
from studies.benchmark_report import PHASES
from training import step as product
from training.inputs import Inputs, latents_from
from training.loop import Training, report, set_up
from training.plan import Plan, footprint_of
from training.windows import Window
from utils.devices import DTYPES
from utils.video import read_frames

PEAK_IS_FORGOTTEN_BY = Path("/proc/self/clear_refs")   # Linux only; psutil tells no peak there
ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu   # which the library forgot to count
ON_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Variant:
    """One way to take a training step. The defaults are all on, as train_model.py does it with bf16."""

    title: str
    encoders_in_loop: bool = False
    all_to_optimizer: bool = False   # frozen tensors too, which it passes over
    apart: bool | None = None        # exemplars and regularization, one pass each; None: as plan.py decides
    recompute: bool = False
    precision: str = "bf16"
    fast_forms: bool = True
    fused: bool = True
    channels_last: bool = False


PLAIN = Variant("plain", encoders_in_loop=True, all_to_optimizer=True, apart=False, recompute=True,
                precision="no", fast_forms=False, fused=False)
ALL_ON = Variant("all on")
LADDER = [PLAIN]   # each has one change more than the one before it
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
    """Return the plan with what the config says of `variant`."""
    return replace(plan, config=replace(plan.config, mixed_precision=variant.precision,
                                        gradient_checkpointing=variant.recompute))


def set_up_variant(plan: Plan, variant: Variant, accelerator, run: Path) -> Training:
    """Return a training in the folder `run`, as `set_up` makes it but for what `variant` does without."""
    with nullcontext() if variant.fast_forms else patch("models.base.use_fast_forms"):
        training = set_up(as_variant(plan, variant), accelerator, run)
    if variant.apart is not None:
        training = replace(training, apart=variant.apart)
    unet = training.base.unet
    if variant.channels_last:
        for name, module in unet.named_modules():
            # not the first: on a CPU torch 2.13 dies where a norm trains on an input without a gradient
            if isinstance(module, torch.nn.Conv2d) and name != "conv_in":
                module.to(memory_format=torch.channels_last)
    if variant.encoders_in_loop:
        for encoder in (training.base.vae, training.base.pipeline.text_encoder):
            encoder.to(accelerator.device)
    if variant.fused:
        return training
    tensors = unet.parameters() if variant.all_to_optimizer else training.trained.values()
    optimizer = torch.optim.AdamW(list(tensors), lr=plan.config.learning_rate)
    return replace(training, optimizer=accelerator.prepare(optimizer))


def timed_step(training: Training, variant: Variant, index: int) -> dict[str, float]:
    """Take step `index`; return its seconds, those of PHASES, and those of the processor, of all threads."""
    device, encoders = training.accelerator.device, nullcontext()
    if variant.encoders_in_loop:
        encoders = patch.multiple(product, sample_latents=partial(_encoded_window, training.base),
                                  prompt_embeds=partial(_encoded_caption, training.base))
    with encoders, _stopwatch(training) as spent:
        began, of_processor = now(device), time.process_time()
        entry = product.optimizer_step(training.plan, training.unet, training.scheduler, training.inputs,
                                       training.optimizer, training.trained, training.accelerator, index,
                                       training.apart)
        report(training, entry, tqdm(disable=True))
        seconds, of_processor = now(device) - began, time.process_time() - of_processor
    spent["data"] -= spent["forward"]   # which is called while the examples are gathered
    return {**spent, "rest": seconds - sum(spent.values()), "seconds": seconds,
            "processor": of_processor}


@contextmanager
def _stopwatch(training: Training) -> Iterator[dict[str, float]]:
    """Give seconds by phase, and let the parts of the step add theirs."""
    device, spent = training.accelerator.device, dict.fromkeys(PHASES[:-1], 0.0)

    def timed(phase: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            began = now(device)
            result = function(*args, **kwargs)
            spent[phase] += now(device) - began
            return result
        return call

    with ExitStack() as stack:
        for phase, owner, name in (
                ("data", product, "draw_window"), ("data", product, "window_losses"),
                ("forward", product, "clip_losses"), ("backward", training.accelerator, "backward"),
                ("optimizer", product.nn.utils, "clip_grad_norm_"),
                ("optimizer", training.optimizer, "step"), ("optimizer", training.optimizer, "zero_grad")):
            stack.enter_context(patch.object(owner, name, timed(phase, getattr(owner, name))))
        yield spent


def now(device: torch.device) -> float:
    """Return the time in seconds, once everything asked of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _encoded_window(base: Base, _inputs: Inputs, window: Window) -> Tensor:
    rows = window.clip.frames[window.start : window.start + window.clip.window]
    frames = read_frames(window.clip.path, rows, window.clip.size)                          # (f h w c)
    return latents_from(encode_frames(base.vae, frames), window.generator)                  # (c f h w)


def _encoded_caption(base: Base, _inputs: Inputs, window: Window) -> Tensor:
    return encode_prompt(base.pipeline, window.caption)                                     # (n d)


def step_flop(training: Training, variant: Variant) -> int:
    """Return the floating point operations of a step, forward and backward, as the variant takes it."""
    return count_flop(partial(timed_step, training, variant, 0))


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
    """Return the operations per second of a product of large square matrices: the peak to measure a step
    by."""
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
    """Return bytes at the peak of a step by purpose, their sum, and what a dry run says of it.

    On a GPU it is the allocator that is asked; on a CPU, under Linux, the peak is the growth of this process,
    which must not have computed anything before.
    """
    device, before = accelerator.device, resident_bytes()
    training = set_up_variant(plan, variant, accelerator, run)
    encoders = 0
    if device.type == "cpu" and not variant.encoders_in_loop:   # there they have nowhere to go
        encoders = sum(_num_bytes(part.parameters())
                       for part in (training.base.vae, training.base.pipeline.text_encoder))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif device.type == "cpu":
        PEAK_IS_FORGOTTEN_BY.write_text("5")
    for index in range(num_steps):
        timed_step(training, variant, index)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else \
        peak_bytes() - before - encoders
    parts = {"weights": _num_bytes(training.base.unet.parameters()),
             "gradients": _num_bytes(training.trained.values()),
             "optimizer": sum(_num_bytes(value for value in state.values() if isinstance(value, Tensor))
                              for state in training.optimizer.state.values())}
    found = {**parts, "activations": peak - sum(parts.values()), "peak": peak, "predicted": None}
    if variant.fast_forms:   # the only ones of which a dry run speaks
        found["predicted"] = footprint_of(as_variant(plan, variant), training.apart,
                                          variant.recompute).total()
    return found


def _num_bytes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    return psutil.Process().memory_info().rss


def peak_bytes() -> int:
    """Return the most memory that this process has held since its peak was last forgotten. Linux only.

    The peak that getrusage tells is also that of the process which started this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
