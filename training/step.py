"""One step of the optimizer: draw the examples, sum the gradients of the micro-steps, stop if a number is not
finite.

Shapes: b clips, c latent channels, f frames, h w latent cells, n tokens, d text width.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

from models.objective import (
    SKEW,
    clip_losses,
    sample_noise,
    sample_timesteps,
    total_loss,
)
from training.config import Config
from training.inputs import Inputs, prompt_embeds, sample_latents
from training.plan import Plan
from training.seeds import seed_for
from training.sharding import whole
from training.windows import Window, draw_window, turns
from utils.errors import UserError


def optimizer_step(plan: Plan, unet: nn.Module, scheduler, inputs: Inputs, optimizer,
                   trained: Mapping[str, Tensor], accelerator, step: int, apart: bool = False) -> dict:
    """Take optimizer step `step`, counted from 0; return its log entry.

    `apart`: exemplars and regularization go through the network one after the other. Their gradients add up
    to the same, and only the activations of one role are there at a time.
    Raises UserError before the optimizer touches a weight if a loss or the gradient is not finite.
    """
    config, means, seen = plan.config, [], []
    num_micro_steps = config.gradient_accumulation_steps
    for micro_step in range(num_micro_steps):
        windows = draw_windows(plan, accelerator, step, micro_step)
        seen += chain.from_iterable(windows.values())
        # dropout draws from global state, the only thing here that does
        torch.manual_seed(seed_for("dropout", config.seed, step, micro_step, accelerator.process_index))
        passes = [{role: of_role} for role, of_role in windows.items()] if apart else [windows]
        losses = {}
        for index, roles in enumerate(passes):
            is_last = micro_step == num_micro_steps - 1 and index == len(passes) - 1
            # FSDP sends in every pass: else each process would keep the gradients whole until the last one
            is_sent = is_last or accelerator.is_fsdp2
            with nullcontext() if is_sent else accelerator.no_sync(unet):
                of_roles = role_losses(unet, scheduler, inputs, roles, config, accelerator.device)
                loss = total_loss(of_roles, config.prior_lambda)
                if not all_finite(loss.detach(), accelerator):
                    raise UserError(not_finite("loss", step, chain.from_iterable(roles.values())))
                accelerator.backward(loss / num_micro_steps)
            losses |= {role: of_role.detach() for role, of_role in of_roles.items()}
        # without regularization its mean, of nothing, is nan
        regularization = losses.get("regularization", losses["exemplar"][:0])
        means.append(torch.stack([losses["exemplar"].mean(), regularization.mean(),
                                  total_loss(losses, config.prior_lambda)]))

    accelerator.unscale_gradients()
    grad_norm = whole(nn.utils.clip_grad_norm_(list(trained.values()), config.max_grad_norm))
    if accelerator.scaler is None and not torch.isfinite(grad_norm):
        raise UserError(not_finite("gradient", step, seen))
    optimizer.step()   # in fp16 the scaler leaves out steps whose gradient overflowed, and lowers its scale
    if accelerator.scaler is not None and accelerator.scaler.get_scale() < 1:
        raise UserError(not_finite("gradient", step, seen))
    # those of DDP stay where they are sent from (training/loop.py)
    optimizer.zero_grad(set_to_none=not isinstance(unet, nn.parallel.DistributedDataParallel))
    exemplar, regularization, loss = accelerator.reduce(torch.stack(means).mean(dim=0), "mean").tolist()
    return {"step": step + 1, "loss": loss, "exemplar": exemplar,
            "regularization": regularization if plan.regularization else None,
            "grad_norm": float(grad_norm) if torch.isfinite(grad_norm) else None}


def draw_windows(plan: Plan, accelerator, step: int, micro_step: int) -> dict[str, list[Window]]:
    """Return the training examples of this process, by role."""
    config = plan.config
    turn_range = turns(step, micro_step, config.gradient_accumulation_steps, accelerator.process_index,
                       accelerator.num_processes, config.train_batch_size)
    return {role: [draw_window(clips, role, config.seed, turn) for turn in turn_range]
            for role, clips in (("exemplar", plan.exemplars), ("regularization", plan.regularization))
            if clips}


def all_finite(loss: Tensor, accelerator) -> bool:
    """Say whether the loss is finite on every process, so that all of them stop together."""
    if accelerator.num_processes > 1:
        loss = accelerator.reduce(loss, "sum")
    return bool(torch.isfinite(loss))


def role_losses(unet: Callable, scheduler, inputs: Inputs, windows: Mapping[str, list[Window]],
                config: Config, device: torch.device) -> dict[str, Tensor]:
    """Return the losses of the examples of each role (b), all of which go through the network together."""
    losses = window_losses(unet, scheduler, inputs, list(chain.from_iterable(windows.values())), config,
                           device)
    return dict(zip(windows, losses.split([len(of_role) for of_role in windows.values()])))


def window_losses(unet: Callable, scheduler, inputs: Inputs, windows: list[Window], config: Config,
                  device: torch.device) -> Tensor:
    """Return the loss of each training example (b). Examples of one shape go through the network together."""
    data = config.train_data
    offset = config.offset_noise_strength if config.use_offset_noise else 0.0
    batches: dict[tuple[int, ...], list[int]] = {}
    latents, timesteps, noise = [], [], []
    for index, window in enumerate(windows):
        latents.append(sample_latents(inputs, window)[None])                              # (1 c f h w)
        timesteps.append(sample_timesteps(1, scheduler.config.num_train_timesteps, SKEW[data.sampling],
                                          window.generator))                              # (1)
        noise.append(sample_noise(latents[-1].shape, window.generator, offset))           # (1 c f h w)
        batches.setdefault(tuple(latents[-1].shape), []).append(index)

    def gathered(parts: list[Tensor], indices: list[int]) -> Tensor:
        return to_device(torch.cat([parts[index] for index in indices]), device)

    embeds = [prompt_embeds(inputs, window)[None] for window in windows]                  # (1 n d)
    losses = {}
    for indices in batches.values():
        batch = [gathered(parts, indices) for parts in (latents, noise, timesteps, embeds)]
        losses |= zip(indices, clip_losses(unet, scheduler, *batch))
    return torch.stack([losses[index] for index in range(len(windows))])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor`, which is on the CPU, on `device`; a GPU copies it while this process goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def not_finite(what: str, step: int, windows: Iterable[Window]) -> str:
    clips = ", ".join(dict.fromkeys(window.clip.path.name for window in windows))
    return (f"step {step + 1}: the {what} is not finite, so training stopped before the weights were touched "
            f"(clips: {clips}). Try a lower learning_rate, or mixed_precision: bf16 or no, and look at these "
            f"clips.")
