"""Gradient checkpointing: the backward pass computes activations again instead of keeping them.

The forward of each leaf block of the UNet is wrapped, because diffusers' own switch is not enough.
UNet3DConditionModel does not support the switch. In UNetMotionModel it leaves out the transformers, which
keep most of the activations (docs/performance.md).
"""

import re

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.kinds import kind_of


def recompute_activations(unet: nn.Module) -> int:
    """Wrap the leaf blocks of `unet` and return how many were wrapped. Loss and gradients stay bit-equal."""
    kind = kind_of(name for name, _ in unet.named_parameters())
    blocks = [module for module in unet.modules() if type(module).__name__ in kind.recomputed]
    alone = [module for name, module in unet.named_modules() if re.search(kind.recomputed_alone, name)]
    for module in blocks + alone:
        module.forward = _recomputed(module.forward)
    return len(blocks)


def _recomputed(forward):
    def wrapped(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapped
