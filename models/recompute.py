"""Gradient checkpointing: the backward pass computes activations again instead of keeping them.

UNet3DConditionModel does not support diffusers' own switch, so the forward of each of its leaf blocks is
wrapped.
"""

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint

RECOMPUTED = (ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel)


def recompute_activations(unet: nn.Module) -> int:
    """Wrap the leaf blocks of `unet` and return how many were wrapped. Loss and gradients stay bit-equal."""
    blocks = [module for module in unet.modules() if isinstance(module, RECOMPUTED)]
    # transformer_in is the widest block and the last of the backward pass, when all gradients exist. Its
    # attention is wrapped once more, so that the activations of its attention and its feed-forward layer
    # never exist together.
    attention = [module for module in unet.transformer_in.modules() if isinstance(module, Attention)]
    for module in blocks + attention:
        module.forward = _recomputed(module.forward)
    return len(blocks)


def _recomputed(forward):
    def wrapped(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapped
