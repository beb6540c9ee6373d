"""Tensors that FSDP has spread over the processes: gathered to be saved, spread again when loaded.

These functions return a tensor that is not spread as it is, so the rest of the program need not know of FSDP.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.kinds import kind_of

# torch.distributed's modules take a second to import, so only runs that spread tensors import them


def keep_precision(accelerator, unet: nn.Module) -> None:
    """Make FSDP gather weights in the precision they are held in, so that autocast casts them as on one
    device.

    accelerate would use FSDP's own casts, which round the results of norms and the sums of gradients.
    """
    if accelerator.is_fsdp2:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
        unet.forward = accelerator.autocast()(unet.forward)


def spread_by_blocks(accelerator, unet: nn.Module) -> None:
    """Make FSDP put the leaf blocks of `unet` together one at a time as they run.

    The classes of these blocks depend on the kind of base.
    """
    if accelerator.is_fsdp2:
        blocks = kind_of(name for name, _ in unet.named_parameters()).recomputed
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = list(blocks)


def is_spread(tensor: Tensor) -> bool:
    """Say whether `tensor` is a DTensor, of which this process holds only a part."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return `tensor` gathered from all processes. All processes must call this together."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def all_whole(tensors: Mapping[str, Tensor], is_wanted: bool) -> dict[str, Tensor]:
    """Return `tensors` gathered from all processes; an empty dictionary on a process that does not want them.

    Gathered tensors are on the CPU. All processes must call this together.
    """
    complete = {}
    for name, tensor in tensors.items():
        values = whole(tensor)
        if is_wanted:
            complete[name] = values.cpu() if values is not tensor else tensor
    return complete


def spread_like(parameter: Tensor, values: Tensor) -> Tensor:
    """Return `values`, which every process holds whole, spread as `parameter` is."""
    if not is_spread(parameter):
        return values
    from torch.distributed.tensor import distribute_tensor

    with torch.no_grad():
        return distribute_tensor(values.to(parameter.device), parameter.device_mesh, parameter.placements,
                                 src_data_rank=None)
