"""The loss of the clips that never train, at noise and timesteps that are the same all along the run.

The loss of one step can therefore be compared with the loss of another. Training losses can be compared only
on average. Measuring draws nothing from global random state and touches no weight. All processes compute it
together, because FSDP gathers weights in every pass.
Shapes: t timesteps, c latent channels, f frames, h w latent cells, n tokens, d text width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from models.objective import SKEW, clip_losses, even_timesteps, sample_noise
from training.clips import Clip
from training.setup import Training
from training.step import to_device
from training.windows import Window, generator_for

NUM_TIMESTEPS = 8   # per clip


def held_out_losses(training: Training) -> dict[str, float | None]:
    """Return the mean loss of each role's held-out clips, as the log names it: {held_out_exemplar: 0.12}.

    None stands for a loss that is not finite. It stops no training: the training loss will.
    """
    found = {}
    with without_dropout(training.unet), torch.no_grad():
        for role, clips in training.plan.held_out.items():
            if clips:
                loss = float(torch.stack([held_out_loss(training, role, clip) for clip in clips]).mean())
                found[f"held_out_{role}"] = loss if loss - loss == 0 else None
    return found


def held_out_loss(training: Training, role: str, clip: Clip) -> Tensor:
    """Return the mean loss of one window of `clip`, at timesteps spread as training draws them."""
    config = training.plan.config
    generator = generator_for("held out loss", role, config.seed, clip.path.name)
    start = int(torch.randint(clip.num_windows, (), generator=generator))
    window = Window(role, clip, start, clip.captions[0], generator)
    latents = training.inputs.latents(window)[None]                                        # (1 c f h w)
    prompt_embeds = training.inputs.prompt_embeds(window)[None]                            # (1 n d)
    timesteps = even_timesteps(NUM_TIMESTEPS, training.scheduler.config.num_train_timesteps,
                               SKEW[config.train_data.sampling])                           # (t)
    offset = config.offset_noise_strength if config.use_offset_noise else 0.0
    noise = sample_noise((NUM_TIMESTEPS, *latents.shape[1:]), generator, offset)           # (t c f h w)
    predict, losses = partial(training.base.kind.predict, training.unet), []
    # a batch no larger than that of a step, so that it fits into memory
    for some, of_some in zip(timesteps.split(config.train_batch_size), noise.split(config.train_batch_size)):
        batch = latents.expand(len(some), *latents.shape[1:]), of_some, some, \
            prompt_embeds.expand(len(some), *prompt_embeds.shape[1:])
        batch = [to_device(tensor.contiguous(), training.accelerator.device) for tensor in batch]
        losses.append(clip_losses(predict, training.scheduler, *batch))
    return torch.cat(losses).mean()


@contextmanager
def without_dropout(unet: nn.Module) -> Iterator[None]:
    """Turn off dropout alone. In eval mode, single frames would go through layers that training skips."""
    layers = [module for module in unet.modules() if isinstance(module, nn.Dropout) and module.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
