"""Single frames that skip the layers along time, for learning an appearance.

A layer along time sees nothing but padding around a single frame. The published implementation leaves such
layers out there.
"""

import inspect

from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn

from models.kinds import kind_of


def skip_temporal_layers(unet: nn.Module) -> int:
    """Let single frames pass the temporal layers of `unet` unchanged while it trains; return their number.

    Videos, and everything in eval mode, go through all layers as before. The skipped layers get no gradient
    from single frames, so their weights must be frozen: DDP waits for the gradient of every trained weight.
    Call it after `recompute_activations`, whose wrapper would otherwise keep the input of each skipped layer.
    """
    kind = kind_of(name for name, _ in unet.named_parameters())
    layers = [module for module in unet.modules() if type(module).__name__ in kind.time_layers]
    for layer in layers:
        layer.forward = _skipping_single_frames(layer)
    return len(layers)


def _skipping_single_frames(layer: nn.Module):
    forward, returns_tuple = layer.forward, isinstance(layer, TransformerTemporalModel)
    signature = inspect.signature(type(layer).forward)

    def skipping(hidden_states: Tensor, *args, **kwargs) -> Tensor | tuple[Tensor]:
        # diffusers passes num_frames by name or by place
        num_frames = signature.bind(layer, hidden_states, *args, **kwargs).arguments.get("num_frames", 1)
        if num_frames > 1 or not layer.training:
            return forward(hidden_states, *args, **kwargs)
        return (hidden_states,) if returns_tuple else hidden_states                         # (b*f c h w)

    return skipping
