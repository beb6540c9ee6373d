"""Which parameters train, the precision they are held in, the optimizer and its learning rate."""

from collections.abc import Callable, Mapping

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from training.config import Config


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
    """Convert frozen weights to the compute precision. Trained weights stay float32 masters."""
    for parameter in unet.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def make_optimizer(config: Config, trained: Mapping[str, nn.Parameter], accelerator) -> torch.optim.Optimizer:
    """Return AdamW over the trained tensors alone, as one group."""
    arguments = {"betas": (config.adam_beta1, config.adam_beta2), "weight_decay": config.adam_weight_decay,
                 "eps": config.adam_epsilon,
                 "lr": learning_rate_schedule(config, accelerator.num_processes)(0)}
    if config.use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit  # optional; training/plan.py has checked it

        return AdamW8bit(list(trained.values()), **arguments)
    # fused: one kernel for all tensors, which unlike a GPU's default needs no second copy of them
    return torch.optim.AdamW(list(trained.values()), fused=True, **arguments)


def learning_rate_schedule(config: Config, num_processes: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer step. So resuming has no schedule to
    restore."""
    rate = config.learning_rate
    if config.scale_lr:
        rate *= config.train_batch_size * config.gradient_accumulation_steps * num_processes
    # get_scheduler needs an optimizer to attach to. Its learning rate does not matter, because only the
    # factors by step are used. But it must be above 1e-7, where get_scheduler's polynomial schedule ends.
    carrier = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(
        config.lr_scheduler, carrier, step_rules=config.lr_step_rules,
        num_warmup_steps=config.lr_warmup_steps, num_training_steps=config.max_train_steps,
        num_cycles=config.lr_num_cycles, power=config.lr_power)
    return lambda step: rate * schedule.lr_lambdas[0](step)
