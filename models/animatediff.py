"""AnimateDiff: an image model, Stable Diffusion 1.5 or a fine-tune, with motion modules between its layers.

A base is the folder of a saved AnimateDiffPipeline, or an image model and a MotionAdapter. The adapters v2
and v3 were made for Stable Diffusion 1.5. The motion modules of v3 are 520 tensors and 417,137,600
parameters. v2 has one more, in the middle block: 546 tensors and 453,209,280 parameters. The keys and values
of the attention to the text are 32 tensors and 19,169,280 parameters. Source: Guo et al. 2023, arXiv
2307.04725.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.base_kind import BaseKind, Layer, at_level, outside, u_shaped
from models.base_parts import load_network

ALONG_TIME = r"(^|\.)motion_modules\."   # attn1 and attn2 in them are both attention along time
GROUPS = {
    # keys and values of spatial attention to the text, and to the picture itself
    "cross": outside(ALONG_TIME, r"\.attn2\.to_[kv]\."),
    "self": outside(ALONG_TIME, r"\.attn1\.to_[kv]\."),
    "temporal": ALONG_TIME,
    "all": r"",
}
# The adapters were trained with these noise levels. Stable Diffusion's own, scaled_linear, have less noise in
# the middle. The values are those of diffusers' documentation of AnimateDiff.
SCHEDULER = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
             "beta_schedule": "linear", "timestep_spacing": "linspace", "steps_offset": 1,
             "clip_sample": False}


def load_unet(folder: Path, adapter: Path | None) -> Any:
    """Return the UNet of a folder. With an adapter, diffusers assembles it from the image model's UNet and
    the adapter."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    if adapter is None:
        return load_network(UNetMotionModel, folder / "unet")
    return UNetMotionModel.from_unet2d(load_network(UNet2DConditionModel, folder / "unet"),
                                       load_network(MotionAdapter, adapter))


def predict(unet, noisy_latents, timesteps, prompt_embeds):
    """Return the UNet's output. It wants the embeddings once per frame, all frames of a clip in a row."""
    num_frames = noisy_latents.shape[2]
    return unet(noisy_latents, timesteps, prompt_embeds.repeat_interleave(num_frames, dim=0))   # (b*f n d)


def layers(config: Mapping[str, Any]) -> Iterator[Layer]:
    """Yield the leaf blocks of a UNetMotionModel in the order in which they run."""
    heads = config.get("num_attention_heads") or config["attention_head_dim"]

    def attending(name: str, index: int, level: int, c: int) -> Layer:
        return Layer("spatial", f"{name}.attentions.{index}.", level, c, heads=at_level(heads, level),
                     has_convolutions=not config.get("use_linear_projection"))

    def moving(name: str, index: int, level: int, c: int) -> Layer:
        return Layer("temporal", f"{name}.motion_modules.{index}.", level, c, inner=c,
                     heads=at_level(config["motion_num_attention_heads"], level))

    def unit(name: str, index: int, level: int, entering: int, c: int, is_attending: bool) -> Iterator[Layer]:
        yield Layer("resnet", f"{name}.resnets.{index}.", level, c, entering)
        if is_attending:
            yield attending(name, index, level, c)
        yield moving(name, index, level, c)

    def middle(level: int, c: int) -> Iterator[Layer]:
        yield Layer("resnet", "mid_block.resnets.0.", level, c, c)
        yield attending("mid_block", 0, level, c)
        if config["use_motion_mid_block"]:
            yield moving("mid_block", 0, level, c)
        yield Layer("resnet", "mid_block.resnets.1.", level, c, c)

    yield from u_shaped(config, unit, middle)


ANIMATEDIFF = BaseKind(
    title="AnimateDiff",
    pipeline="AnimateDiffPipeline", unet="UNetMotionModel",
    groups=GROUPS, along_time=ALONG_TIME,
    time_layers=("AnimateDiffTransformer3D",),
    recomputed=("ResnetBlock2D", "Transformer2DModel", "AnimateDiffTransformer3D"),
    head_keys=("num_attention_heads", "motion_num_attention_heads"),
    load_unet=load_unet, predict=predict, layers=layers,
    constants=r"\.pos_embed\.pe$",   # the sines that tell a frame's place
    frames_key="motion_max_seq_length",
    empty_parts=("feature_extractor", "image_encoder", "motion_adapter"),
    image_pipeline="StableDiffusionPipeline", image_unet="UNet2DConditionModel", adapter="MotionAdapter",
    adapter_keys={"motion_num_attention_heads": 8, "motion_max_seq_length": 32,
                  "use_motion_mid_block": True},
    scheduler=SCHEDULER)
