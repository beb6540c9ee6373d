"""Tensors that FSDP has spread over the processes: put together to be saved, spread again when loaded.

Elsewhere a trained tensor is a trained tensor; what is not spread passes through here as it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# torch.distributed's modules take a second to import, so they are imported where something is spread


def keep_precision(accelerator, unet: nn.Module) -> None:
    """Let FSDP hand out weights in the precision they are held in, and autocast cast them, as on one device.

    Its own casts, which accelerate uses instead, would round what norms compute and the sums of gradients.
    """
    if accelerator.is_fsdp2:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
        unet.forward = accelerator.autocast()(unet.forward)


def is_spread(tensor: Tensor) -> bool:
    """Say whether this process has but a part of `tensor`, a DTensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return `tensor` put together. All processes must call this together."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def all_whole(tensors: Mapping[str, Tensor], is_wanted: bool) -> dict[str, Tensor]:
    """Return `tensors` put together, on the CPU where they were spread; nothing where it is not wanted.

    All processes must call this together.
    """
    complete = {}
    for name, tensor in tensors.items():
        values = whole(tensor)
        if is_wanted:
            complete[name] = values.cpu() if values is not tensor else tensor
    return complete


def spread_like(parameter: Tensor, values: Tensor) -> Tensor:
    """Return `values`, which every process has whole, spread as `parameter` is."""
    if not is_spread(parameter):
        return values
    from torch.distributed.tensor import distribute_tensor

    with torch.no_grad():
        return distribute_tensor(values.to(parameter.device), parameter.device_mesh, parameter.placements,
                                 src_data_rank=None)
