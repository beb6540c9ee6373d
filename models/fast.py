"""Faster forms of the network's layers. They compute the same numbers, up to rounding.

Three layers of a text-to-video UNet are slow in diffusers' forms:

- Attention over frames has one short sequence per pixel. On a CPU two plain matrix products are faster than
  the fused kernel for such sequences. On a GPU the fused kernel stays.
- Attention to the prompt computes the same keys and values once per frame. Once per clip is enough.
- A convolution over time, (3 1 1), takes a slow generic path. The same convolution in two dimensions, over
  (frames, pixels), has fast kernels.

And a norm or an activation before a convolution or projection keeps its input and its output for the backward
pass. On a CPU only the input is kept here, which is a third to a half of the memory. The output is cheap to
compute again.

docs/performance.md measures each form. Shapes: b clips, f frames, c channels, h w latent cells, p = h * w,
n queries, m keys, d channels of all heads.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.base_kind import MOST_KEYS

MOST_SEQUENCES = 65_535   # the grid of a GPU's fused kernel has no more rows


def use_fast_forms(unet: nn.Module) -> int:
    """Make `unet` compute in the fast forms, and return the number of layers that changed.

    The names of its parameters, their values and their gradients do not change.
    """
    layers = [module for module in unet.modules() if _has_plain_form(module)]
    for layer in layers:
        if isinstance(layer, Attention):
            layer.set_processor(ShortAttention())
        else:
            layer.forward = FORMS[type(layer)](layer)
    unet.register_forward_pre_hook(_tell_num_frames, with_kwargs=True)
    return len(layers)


class ShortAttention:
    """Attention that computes the keys of each clip once, and uses plain products where they are faster.

    It is a class because diffusers inspects the signature of `__call__` to see which arguments to pass on.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None,
                 num_frames: int = 1) -> Tensor:
        """Return the same (b n d) as diffusers' own processor; here b counts sequences.

        hidden_states (b n d) attend to themselves, or to encoder_hidden_states (b m d), which are equal for
        `num_frames` sequences in a row.
        """
        assert attention_mask is None, "the UNets of models/kinds.py attend to everything"
        attended = hidden_states if encoder_hidden_states is None else encoder_hidden_states[::num_frames]
        merged = hidden_states.reshape(len(attended), -1, hidden_states.shape[-1])          # (b/f f*n d)
        query, key, value = (rearrange(project(states), "b n (heads d) -> b heads n d", heads=attn.heads)
                             for project, states in ((attn.to_q, merged), (attn.to_k, attended),
                                                     (attn.to_v, attended)))
        if key.device.type == "cpu" and key.shape[2] <= MOST_KEYS:
            mixed = _plain_attention(query, key, value, attn.scale)
        else:
            mixed = _fused_attention(query, key, value, attn.scale)
        mixed = rearrange(mixed, "b heads n d -> b n (heads d)").reshape(hidden_states.shape[0], -1,
                                                                        attn.inner_dim)
        for layer in attn.to_out:   # a projection, and dropout
            mixed = layer(mixed)
        return mixed                                                                        # (b n d)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    attend = partial(functional.scaled_dot_product_attention, scale=scale)
    if len(query) <= MOST_SEQUENCES:
        return attend(query, key, value)                                                    # (b heads n d)
    return torch.cat([attend(*part) for part in zip(*(tensor.split(MOST_SEQUENCES)
                                                      for tensor in (query, key, value)))])


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    batch, heads = query.shape[:2]
    query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))            # (b*heads n d)
    scores = torch.baddbmm(query.new_empty(()), query, key.mT, beta=0, alpha=scale)         # (b*heads n m)
    # softmax adds up in float32 and rounds its result, whatever the precision
    return (scores.softmax(dim=-1) @ value).unflatten(0, (batch, heads))


def _temporal_convolution(layer: TemporalConvLayer):
    def forward(hidden_states: Tensor, num_frames: int = 1) -> Tensor:
        frames = rearrange(hidden_states, "(b f) c h w -> b c f (h w)", f=num_frames)
        changed = frames
        for part in (layer.conv1, layer.conv2, layer.conv3, layer.conv4):
            changed = _keeping_input(partial(_normed_and_convolved, part), changed)         # (b c f p)
        return rearrange(frames + changed, "b c f (h w) -> (b f) c h w", h=hidden_states.shape[2])

    return forward


def _normed_and_convolved(part: Sequence[nn.Module], frames: Tensor) -> Tensor:
    *before, convolution = part
    for module in before:   # norm, activation, dropout
        frames = module(frames)
    return _convolved(convolution, frames)


def _convolved(convolution: nn.Module, frames: Tensor) -> Tensor:
    """Apply a convolution over time to frames (b c f p), with its low-rank updates if peft has wrapped it."""
    if isinstance(convolution, nn.Conv3d):
        return functional.conv2d(frames, convolution.weight.squeeze(-1), convolution.bias,
                                 padding=convolution.padding[:2])
    adapters = [name for name in convolution.active_adapters if name in convolution.lora_A]
    changes = [_convolved(convolution.lora_B[name],
                          _convolved(convolution.lora_A[name], convolution.lora_dropout[name](frames)))
               * convolution.scaling[name] for name in adapters]
    # after the updates, so that the backward pass does not compute it again: it keeps no activation
    result = _convolved(convolution.base_layer, frames)
    for change in changes:
        result = result + change
    return result


def _resnet(layer: ResnetBlock2D):
    def forward(input_tensor: Tensor, temb: Tensor) -> Tensor:   # diffusers passes input_tensor by name too
        shift = layer.time_emb_proj(layer.nonlinearity(temb))[:, :, None, None]             # (b*f c 1 1)
        changed = _keeping_input(first_half, input_tensor) + shift                          # (b*f c h w)
        changed = _keeping_input(second_half, changed)
        if layer.conv_shortcut is not None:
            input_tensor = layer.conv_shortcut(input_tensor)
        return input_tensor + changed

    def first_half(hidden_states: Tensor) -> Tensor:
        return layer.conv1(layer.nonlinearity(layer.norm1(hidden_states)))

    def second_half(hidden_states: Tensor) -> Tensor:
        return layer.conv2(layer.dropout(layer.nonlinearity(layer.norm2(hidden_states))))

    return forward


def _feed_forward(layer: FeedForward):
    def forward(hidden_states: Tensor) -> Tensor:
        return _keeping_input(widen_and_project, hidden_states)                             # (b n d)

    def widen_and_project(hidden_states: Tensor) -> Tensor:
        # a projection to twice the width, gated; dropout, and a projection. Read at each call, because
        # low-rank updates replace the projections.
        gated, *after = layer.net
        hidden_states, gate = gated.proj(hidden_states).chunk(2, dim=-1)
        hidden_states = hidden_states * functional.gelu(gate)
        for module in after:
            hidden_states = module(hidden_states)
        return hidden_states

    return forward


def _keeping_input(function: Callable[[Tensor], Tensor], hidden_states: Tensor) -> Tensor:
    """Return `function(hidden_states)`, keeping only `hidden_states` for the backward pass.

    The function ends in a matrix product, which is not computed again: its backward pass needs its input but
    not its output, and recomputing stops when the last needed tensor exists.
    """
    if hidden_states.device.type != "cpu" or not torch.is_grad_enabled():
        return function(hidden_states)
    return checkpoint(function, hidden_states, use_reentrant=False)


FORMS = {TemporalConvLayer: _temporal_convolution, ResnetBlock2D: _resnet, FeedForward: _feed_forward}


def _has_plain_form(module: nn.Module) -> bool:
    if type(module) is TemporalConvLayer:
        return True
    if type(module) is ResnetBlock2D:
        return module.time_embedding_norm == "default" and module.time_emb_proj is not None and not (
            module.skip_time_act or module.upsample or module.downsample or module.output_scale_factor != 1)
    if type(module) is FeedForward:
        return type(module.net[0]) is GEGLU
    return isinstance(module, Attention) and not (
        module.spatial_norm or module.group_norm or module.norm_q or module.norm_k or module.norm_cross
        or module.residual_connection or module.upcast_attention or module.upcast_softmax
        or module.rescale_output_factor != 1)


def _tell_num_frames(unet: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    sample = args[0] if args else kwargs["sample"]                                          # (b c f h w)
    given = kwargs.get("cross_attention_kwargs") or {}
    return args, {**kwargs, "cross_attention_kwargs": {**given, "num_frames": sample.shape[2]}}
