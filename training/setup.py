"""Setting up a run: load the base, choose what trains, encode clips and captions, prepare for the devices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import distributed, nn
from torch.optim import Optimizer
from tqdm import tqdm

from models.base import Base, load_base, training_scheduler
from models.lora import add_trainable_lora
from models.recompute import recompute_activations
from models.single_frames import skip_temporal_layers
from training.config import Config
from training.inputs import Inputs, encode_inputs
from training.learning_rate import learning_rate_schedule
from training.plan import Plan, cache_dir, fastest_way
from training.sharding import keep_precision, spread_by_blocks
from training.windows import generator_for
from utils.decoder import end_free_decoders
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
    base = base or load_base(config.pretrained_model_path, adapter=config.motion_adapter_path)
    unet = base.unet

    # prepare() wraps in DDP only if something requires grad, so the trained weights are chosen before it
    set_temporal_dropout(unet, config.temporal_dropout)
    trained = select_trained(unet, plan)
    inputs = cache_inputs(plan, base, accelerator)
    hold_frozen_weights_in(unet, DTYPES[config.mixed_precision])
    apart, recompute = agreed_way(plan, accelerator)
    if recompute:
        recompute_activations(unet)
    if plan.skips_temporal_layers:
        skip_temporal_layers(unet)
    plain_forward = unet.forward   # prepare() wraps it in autocast
    optimizer = make_optimizer(config, trained, accelerator)
    if accelerator.num_processes > 1 and not accelerator.is_fsdp2:
        # DDP turns only gradients that already exist into views of its communication buckets. Gradients
        # created in an unsynchronised first pass would exist twice, so zeros are allocated up front.
        for tensor in trained.values():
            tensor.grad = torch.zeros_like(tensor)
    keep_precision(accelerator, unet)
    spread_by_blocks(accelerator, unet)
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


def select_trained(unet: nn.Module, plan: Plan) -> dict[str, nn.Parameter]:
    """Freeze the network except the weights, or the low-rank updates, that `plan` trains.

    Returns the trained parameters by name.
    """
    if not plan.lora:
        return select_parameters(unet, plan.trained_names)
    # the same matrices in every process and in every run of this seed
    return add_trainable_lora(unet, plan.trained_names, plan.lora,
                              lambda layer: generator_for("lora", plan.config.seed, layer))


def select_parameters(unet: nn.Module, names: list[str]) -> dict[str, nn.Parameter]:
    """Freeze the network except the parameters `names`. Return these parameters by name."""
    parameters = dict(unet.named_parameters())
    unet.requires_grad_(False)
    return {name: parameters[name].requires_grad_(True) for name in names}


def set_temporal_dropout(unet: nn.Module, probability: float) -> None:
    """Set the dropout inside the temporal convolutions. diffusers sets it to 0.1, whatever the base's config
    says."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.Dropout) and ".temp_convs." in f".{name}":
            module.p = probability


def hold_frozen_weights_in(unet: nn.Module, dtype: torch.dtype) -> None:
    """Convert frozen weights and constants to the compute precision, as generation does. Trained weights stay
    float32 masters."""
    for tensor in (*unet.parameters(), *unet.buffers()):
        if not tensor.requires_grad:
            tensor.data = tensor.data.to(dtype)


def cache_inputs(plan: Plan, base: Base, accelerator) -> Inputs:
    """Encode clips and captions on the accelerator. Afterwards both encoders leave it, and the decoders
    end."""
    encoders = base.vae, base.pipeline.text_encoder
    for encoder in encoders:
        encoder.to(accelerator.device)
    with accelerator.main_process_first():   # the other processes then find every file in the cache
        inputs = encode_inputs(base, plan.clips, cache_dir(plan.config),
                               lambda jobs: tqdm(jobs, desc="encoding clips and captions", dynamic_ncols=True,
                                                 disable=not jobs or not accelerator.is_main_process),
                               without_caption=plan.config.caption_dropout_rate > 0)
    end_free_decoders()
    for encoder in encoders:
        encoder.to("cpu")
    torch.cuda.empty_cache()   # the encoders' memory now counts as free; without a GPU this does nothing
    return inputs


def agreed_way(plan: Plan, accelerator) -> tuple[bool, bool]:
    """Return the way to take a step (apart, recompute) that fits into the memory that is free now.

    All processes take the way of the one with the least memory, because they wait for each other in every
    pass.
    """
    ways = torch.tensor(fastest_way(plan.footprints), dtype=torch.float32, device=accelerator.device)
    apart, recompute = (accelerator.reduce(ways, "sum") > 0).tolist()
    return apart, recompute


def make_optimizer(config: Config, trained: Mapping[str, nn.Parameter], accelerator) -> torch.optim.Optimizer:
    """Return AdamW over the trained tensors alone, as one group."""
    arguments = {"betas": (config.adam_beta1, config.adam_beta2), "weight_decay": config.adam_weight_decay,
                 "eps": config.adam_epsilon,
                 "lr": learning_rate_schedule(config, accelerator.num_processes)(0)}
    if config.use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit  # optional; training/launch.py has checked it

        return AdamW8bit(list(trained.values()), **arguments)
    # fused: one kernel for all tensors, which unlike a GPU's default needs no second copy of them
    return torch.optim.AdamW(list(trained.values()), fused=True, **arguments)
