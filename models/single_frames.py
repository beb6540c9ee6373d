"""Single frames that skip the layers along time, for learning an appearance.

A layer along time sees nothing but padding around a single frame. The published implementation leaves such
layers out there.
"""

from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn


def skip_temporal_layers(unet: nn.Module) -> int:
    """Let single frames pass the temporal layers of `unet` unchanged while it trains; return their number.

    Videos, and everything in eval mode, go through all layers as before. The skipped layers get no gradient
    from single frames, so their weights must be frozen: DDP waits for the gradient of every trained weight.
    Call it after `recompute_activations`, whose wrapper would otherwise keep the input of each skipped layer.
    """
    layers = [module for module in unet.modules()
              if isinstance(module, (TemporalConvLayer, TransformerTemporalModel))]
    for layer in layers:
        layer.forward = _skipping_single_frames(layer)
    return len(layers)


def _skipping_single_frames(layer: nn.Module):
    forward, returns_tuple = layer.forward, isinstance(layer, TransformerTemporalModel)

    def skipping(hidden_states: Tensor, *args, num_frames: int = 1, **kwargs) -> Tensor | tuple[Tensor]:
        if num_frames > 1 or not layer.training:
            return forward(hidden_states, *args, num_frames=num_frames, **kwargs)
        return (hidden_states,) if returns_tuple else hidden_states                         # (b*f c h w)

    return skipping
