"""Setting up a run: load the base, choose what trains, encode clips and captions, prepare for the devices."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import distributed, nn
from torch.optim import Optimizer
from tqdm import tqdm

from models.base import Base, load_base, training_scheduler
from models.recompute import recompute_activations
from training.inputs import Inputs, encode_inputs
from training.optimization import (
    hold_frozen_weights_in,
    learning_rate_schedule,
    make_optimizer,
    select_parameters,
    set_temporal_dropout,
)
from training.plan import Plan, fastest_way
from training.sharding import keep_precision
from utils.devices import DTYPES

KEPT_TO_THE_END = []   # the process group of a run of several processes


@dataclass(frozen=True)
class Training:
    """Everything a run needs for its steps."""

    plan: Plan
    run: Path
    base: Base
    accelerator: Any                   # accelerate's; only the commands import accelerate
    trained: dict[str, nn.Parameter]   # float32 master weights by name, in the optimizer's order
    unet: nn.Module                    # prepared by accelerate: autocast; with several processes DDP or FSDP
    plain_forward: Callable            # the UNet's forward before preparation, which renders samples
    optimizer: Optimizer
    learning_rate_at: Callable[[int], float]   # optimizer step -> learning rate
    scheduler: SchedulerMixin          # adds noise
    inputs: Inputs
    apart: bool                        # exemplars and regularization: one pass through the network for each


def set_up(plan: Plan, accelerator, run: Path, base: Base | None = None) -> Training:
    """Return the training of `plan` in the folder `run`. `base` is loaded where it is not given."""
    config = plan.config
    base = base or load_base(config.pretrained_model_path)
    unet = base.unet

    # prepare() wraps in DDP only if something requires grad, so the trained weights are chosen before it
    trained = select_parameters(unet, plan.trained_names)
    set_temporal_dropout(unet, config.temporal_dropout)
    inputs = cache_inputs(plan, base, accelerator)
    hold_frozen_weights_in(unet, DTYPES[config.mixed_precision])
    apart, recompute = agreed_way(plan, accelerator)
    if recompute:
        recompute_activations(unet)
    plain_forward = unet.forward   # prepare() wraps it in autocast
    optimizer = make_optimizer(config, trained, accelerator)
    if accelerator.num_processes > 1 and not accelerator.is_fsdp2:
        # DDP turns only gradients that already exist into views of its communication buckets. Gradients
        # created in an unsynchronised first pass would exist twice, so zeros are allocated up front.
        for tensor in trained.values():
            tensor.grad = torch.zeros_like(tensor)
    keep_precision(accelerator, unet)
    prepared, optimizer = accelerator.prepare(unet, optimizer)
    parameters = dict(unet.named_parameters())   # FSDP has replaced the parameters that it spreads
    trained = {name: parameters[name] for name in trained}
    if distributed.is_initialized():
        # DDP's reducer must not be the last owner of the process group. Its destructor would wait for threads
        # that wait for the interpreter, and now and then a finished run would never end.
        KEPT_TO_THE_END.append(distributed.group.WORLD)
    prepared.train()
    return Training(plan, run, base, accelerator, trained, prepared, plain_forward, optimizer,
                    learning_rate_schedule(config, accelerator.num_processes), training_scheduler(base),
                    inputs, apart)


def agreed_way(plan: Plan, accelerator) -> tuple[bool, bool]:
    """Return the way to take a step (apart, recompute) that fits into the memory that is free now.

    All processes take the way of the one with the least memory, because they wait for each other in every
    pass.
    """
    ways = torch.tensor(fastest_way(plan.footprints), dtype=torch.float32, device=accelerator.device)
    apart, recompute = (accelerator.reduce(ways, "sum") > 0).tolist()
    return apart, recompute


def cache_inputs(plan: Plan, base: Base, accelerator) -> Inputs:
    """Encode clips and captions on the accelerator. Afterwards both encoders leave it."""
    cache_dir = Path(plan.config.cached_latent_dir or Path(plan.config.output_dir) / "cache")
    encoders = base.vae, base.pipeline.text_encoder
    for encoder in encoders:
        encoder.to(accelerator.device)
    with accelerator.main_process_first():   # the other processes then find every file in the cache
        inputs = encode_inputs(base, plan.exemplars + plan.regularization, cache_dir,
                               lambda jobs: tqdm(jobs, desc="encoding clips and captions", dynamic_ncols=True,
                                                 disable=not jobs or not accelerator.is_main_process))
    for encoder in encoders:
        encoder.to("cpu")
    torch.cuda.empty_cache()   # the encoders' memory now counts as free; without a GPU this does nothing
    return inputs
