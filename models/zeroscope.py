"""ModelScope text-to-video, ZeroScope and their fine-tunes: diffusers' TextToVideoSDPipeline.

On the ZeroScope-size UNet (1,480 tensors, 1,411 M parameters) the paper's set [cross, temporal, temp_convs]
is 826 tensors and 570,882,176 parameters. Source: Materzynska et al. 2023, arXiv 2312.04966.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.base_kind import BaseKind, Layer, outside, u_shaped
from models.base_parts import load_network

ALONG_TIME = r"(^|\.)(temp_attentions|transformer_in|temp_convs)\."
GROUPS = {
    # keys and values of spatial attention to the text, and to the picture itself
    "cross": outside(ALONG_TIME, r"\.attn2\.to_[kv]\."),
    "self": outside(ALONG_TIME, r"\.attn1\.to_[kv]\."),
    "temporal": r"(^|\.)(temp_attentions|transformer_in)\.",   # attention along time, whole modules
    "temp_attentions": r"(^|\.)temp_attentions\.",
    "temp_convs": r"(^|\.)temp_convs\.",                       # convolutions along time
    "all": r"",
}


def load_unet(folder: Path, adapter: Path | None) -> Any:
    """Return the UNet of a folder. This kind takes no adapter, so `adapter` is None."""
    from diffusers import UNet3DConditionModel

    return load_network(UNet3DConditionModel, folder / "unet")


def predict(unet, noisy_latents, timesteps, prompt_embeds):
    """Return the UNet's output. It repeats the embeddings (b n d) for every frame itself."""
    return unet(noisy_latents, timesteps, prompt_embeds)


def layers(config: Mapping[str, Any]) -> Iterator[Layer]:
    """Yield the leaf blocks of a UNet3DConditionModel in the order in which they run."""
    head_width = config.get("num_attention_heads") or config["attention_head_dim"]

    def unit(name: str, index: int, level: int, entering: int, c: int, is_attending: bool) -> Iterator[Layer]:
        yield Layer("resnet", f"{name}.resnets.{index}.", level, c, entering)
        yield Layer("temporal_convolution", f"{name}.temp_convs.{index}.", level, c)
        if is_attending:
            heads = c // head_width
            yield Layer("spatial", f"{name}.attentions.{index}.", level, c, heads=heads)
            yield Layer("temporal", f"{name}.temp_attentions.{index}.", level, c, inner=c, heads=heads)

    def middle(level: int, c: int) -> Iterator[Layer]:
        yield from unit("mid_block", 0, level, c, c, is_attending=True)
        yield from unit("mid_block", 1, level, c, c, is_attending=False)

    yield Layer("temporal", "transformer_in.", 0, config["block_out_channels"][0],
                inner=8 * config["attention_head_dim"], heads=8, is_alone=True)
    yield from u_shaped(config, unit, middle)


ZEROSCOPE = BaseKind(
    title="ModelScope, ZeroScope and their fine-tunes",
    pipeline="TextToVideoSDPipeline", unet="UNet3DConditionModel",
    groups=GROUPS, along_time=ALONG_TIME,
    time_layers=("TemporalConvLayer", "TransformerTemporalModel"),
    recomputed=("ResnetBlock2D", "TemporalConvLayer", "Transformer2DModel", "TransformerTemporalModel"),
    # transformer_in is the widest block and the last of the backward pass, when all gradients exist. Its
    # attention is recomputed by itself, so that the activations of its attention and its feed-forward layer
    # never exist together.
    recomputed_alone=r"^transformer_in\..*\.attn\d$",
    head_keys=("attention_head_dim",),
    load_unet=load_unet, predict=predict, layers=layers)
