"""One step of the optimizer: batch -> noise -> loss -> backward -> clip -> step.

Shapes: b examples, c latent channels, f frames, h w latent cells, n tokens, d text width.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function  # names a part of the step in a profile; 5 us without a profiler

from models.objective import SKEW, clip_losses, sample_noise, sample_timesteps, total_loss
from training.setup import Training
from training.sharding import whole
from training.windows import Window, draw_window, seed_for, turns
from utils.errors import UserError


def optimizer_step(training: Training, step: int) -> dict[str, Any]:
    """Take optimizer step `step`, counted from 0, and return its log entry.

    Raises UserError, before the optimizer touches a weight, if a loss or the gradient is not finite.
    """
    config, accelerator, unet = training.plan.config, training.accelerator, training.unet
    learning_rate = training.learning_rate_at(step)
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate
    num_micro_steps, seen, means = config.gradient_accumulation_steps, [], []
    for micro_step in range(num_micro_steps):
        with record_function("data"):
            passes = draw_passes(training, step, micro_step)
        # dropout is the only part of a step that draws from global random state
        torch.manual_seed(seed_for("dropout", config.seed, step, micro_step, accelerator.process_index))
        losses = {}
        for windows in passes:
            seen += windows
            is_last = micro_step == num_micro_steps - 1 and windows is passes[-1]
            # DDP sends gradients in the last pass only. FSDP sends in every pass, because otherwise each
            # process would keep whole gradients until the last one.
            with nullcontext() if is_last or accelerator.is_fsdp2 else accelerator.no_sync(unet):
                with record_function("data"):
                    batches = gather_batches(training, windows)
                with record_function("forward"):
                    of_pass = losses_by_role(training, windows, batches)
                    loss = total_loss(of_pass, config.prior_lambda)
                stop_unless(is_finite_everywhere(loss.detach(), accelerator), "loss", step, windows)
                with record_function("backward"):
                    accelerator.backward(loss / num_micro_steps)
            losses |= {role: of_role.detach() for role, of_role in of_pass.items()}
        # without regularization, its mean is the mean of nothing: nan
        regularization = losses.get("regularization", losses["exemplar"][:0])
        means.append(torch.stack([total_loss(losses, config.prior_lambda), losses["exemplar"].mean(),
                                  regularization.mean()]))
    with record_function("optimizer"):
        grad_norm = clip_and_step(training, step, seen)
    loss, exemplar, regularization = accelerator.reduce(torch.stack(means).mean(dim=0), "mean").tolist()
    return {"step": step + 1, "loss": loss, "exemplar": exemplar,
            "regularization": regularization if training.plan.regularization else None,
            "grad_norm": grad_norm, "lr": learning_rate}


def clip_and_step(training: Training, step: int, seen: Iterable[Window]) -> float | None:
    """Clip the gradient, let the optimizer take its step, and return the gradient's norm before clipping.

    The norm is None in fp16 where the gradient overflowed: the scaler then leaves out the step and lowers its
    scale.
    """
    accelerator, scaler = training.accelerator, training.accelerator.scaler
    accelerator.unscale_gradients()
    parameters = list(training.trained.values())
    grad_norm = whole(nn.utils.clip_grad_norm_(parameters, training.plan.config.max_grad_norm))
    is_finite = bool(torch.isfinite(grad_norm))
    stop_unless(is_finite or scaler is not None, "gradient", step, seen)
    training.optimizer.step()
    stop_unless(scaler is None or scaler.get_scale() >= 1, "gradient", step, seen)
    # DDP's gradients stay where they are, as views of its communication buckets (training/setup.py)
    is_ddp = isinstance(training.unet, nn.parallel.DistributedDataParallel)
    training.optimizer.zero_grad(set_to_none=not is_ddp)
    return float(grad_norm) if is_finite else None


def draw_passes(training: Training, step: int, micro_step: int) -> list[list[Window]]:
    """Return the examples of this process in one micro-step: a list for each pass through the network."""
    plan, config, accelerator = training.plan, training.plan.config, training.accelerator
    turn_range = turns(step, micro_step, config.gradient_accumulation_steps, accelerator.process_index,
                       accelerator.num_processes, config.train_batch_size)
    by_role = [[draw_window(clips, role, config.seed, turn, config.caption_dropout_rate)
                for turn in turn_range]
               for role, clips in (("exemplar", plan.exemplars), ("regularization", plan.regularization))
               if clips]
    return by_role if training.apart else [sum(by_role, [])]


def gather_batches(training: Training, windows: Sequence[Window]) -> list[tuple[list[int], list[Tensor]]]:
    """Return the tensors of the examples on the device: a batch for each shape that clips have.

    A batch is the indices of its windows, and latents (b c f h w), noise (b c f h w), timesteps (b) and
    prompt embeddings (b n d).

    FSDP gathers weights for every batch, so all processes must have equally many. Where clips differ in
    shape, each example is then a batch of its own.
    """
    examples = [draw_example(training, window) for window in windows]
    apart = training.accelerator.is_fsdp2 and training.plan.has_many_shapes
    batches: dict[int | torch.Size, list[int]] = {}
    for index, (latents, *_) in enumerate(examples):
        batches.setdefault(index if apart else latents.shape, []).append(index)
    device = training.accelerator.device
    return [(indices, [to_device(torch.cat(parts), device) for parts in zip(*(examples[i] for i in indices))])
            for indices in batches.values()]


def draw_example(training: Training, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw an example's latents (1 c f h w), noise (1 c f h w), timestep (1) and prompt embedding (1 n d)."""
    config = training.plan.config
    offset = config.offset_noise_strength if config.use_offset_noise else 0.0
    latents = training.inputs.latents(window)[None]
    timesteps = sample_timesteps(1, training.scheduler.config.num_train_timesteps,
                                 SKEW[config.train_data.sampling], window.generator)
    noise = sample_noise(latents.shape, window.generator, offset)
    return latents, noise, timesteps, training.inputs.prompt_embeds(window)[None]


def losses_by_role(training: Training, windows: Sequence[Window],
                   batches: Iterable[tuple[list[int], list[Tensor]]]) -> dict[str, Tensor]:
    """Return the loss of each example (b), by role; `windows` has the examples of a role in a row."""
    losses = {}
    for indices, batch in batches:
        predict = partial(training.base.kind.predict, training.unet)
        losses |= zip(indices, clip_losses(predict, training.scheduler, *batch))
    in_order = torch.stack([losses[index] for index in range(len(windows))])                # (b)
    num_by_role = Counter(window.role for window in windows)
    return dict(zip(num_by_role, in_order.split(list(num_by_role.values()))))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a CPU tensor to `device`. A GPU copies it in the background, from memory that is pinned for
    that."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_finite_everywhere(loss: Tensor, accelerator) -> bool:
    """Say whether the loss is finite on every process, so that all processes stop together."""
    if accelerator.num_processes > 1:
        loss = accelerator.reduce(loss, "sum")
    return bool(torch.isfinite(loss))


def stop_unless(is_finite: bool, what: str, step: int, windows: Iterable[Window]) -> None:
    """Raise UserError, naming the clips of `windows`, unless `what` is finite."""
    if not is_finite:
        clips = ", ".join(dict.fromkeys(window.clip.path.name for window in windows))
        raise UserError(f"step {step + 1}: the {what} is not finite, so training stopped before the weights "
                        f"were touched (clips: {clips}). Try a lower learning_rate, or mixed_precision: bf16 "
                        f"or no, and look at these clips.")
