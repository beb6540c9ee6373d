"""What the program asks of a kind of base; a module of this folder answers for each kind.

zeroscope.py and animatediff.py are the kinds, and kinds.py lists them. A new kind is a module like these and
its name in that list. Nothing here imports torch or diffusers, because configs are checked without them.

All kinds have in common: an AutoencoderKL that encodes and decodes frame by frame (encode_frames and
decode_latents in base.py), a CLIP text encoder, and latents (b c f h w). Shapes: b clips, c latent channels,
f frames, h w latent cells, n tokens, d text width.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# on a CPU, attention with more keys takes the fused kernel (models/fast.py), as the estimate of memory knows
MOST_KEYS = 128


@dataclass(frozen=True)
class Layer:
    """A leaf block of a UNet, as the estimate of memory needs it."""

    form: str                   # resnet, temporal_convolution, spatial, temporal, resampling or output
    name: str                   # prefix of its parameters' names, with the dot at its end
    level: int                  # how often the sides of the latents are halved, rounded up
    channels: int               # that leave it
    entering: int = 0           # channels, of a resnet
    inner: int = 0              # channels inside a transformer along time
    heads: int = 0              # of a transformer
    has_convolutions: bool = False   # a transformer whose projections are convolutions, not linear
    is_alone: bool = False      # a transformer whose attention is recomputed by itself


@dataclass(frozen=True)
class BaseKind:
    """A kind of text-to-video model that diffusers has."""

    title: str                  # bases of this kind, for people
    pipeline: str               # class in diffusers
    unet: str                   # class in diffusers
    # group of weights that can train -> regular expression that finds the names of its parameters
    groups: Mapping[str, str]
    along_time: str             # regular expression that finds the parameters of layers along time
    time_layers: tuple[str, ...]   # classes of the blocks along time, which take num_frames
    recomputed: tuple[str, ...]    # classes of the leaf blocks whose activations can be computed again
    head_keys: tuple[str, ...]  # of the UNet's config: what the shapes of its weights do not show
    # (folder, adapter) -> UNet, in float32 on the CPU
    load_unet: Callable[[Path, Path | None], Any]
    # (UNet, noisy latents (b c f h w), timesteps (b), embeddings (b n d)) -> output with .sample (b c f h w)
    predict: Callable[..., Any]
    # config of a UNet -> its leaf blocks, in the order in which they run
    layers: Callable[[Mapping[str, Any]], Iterator[Layer]]
    recomputed_alone: str = r"(?!)"   # finds attention that is recomputed once more by itself
    constants: str = r"(?!)"          # finds tensors in the UNet's files that are no weights
    frames_key: str | None = None     # of the UNet's config: the most frames of a window
    empty_parts: tuple[str, ...] = () # of the pipeline, which model_index.json names and no file describes
    # A base of this kind can also be an image model and a motion adapter, each in a folder of its own:
    image_pipeline: str | None = None         # class in diffusers of the image model
    image_unet: str | None = None
    adapter: str | None = None                # class in diffusers
    # keys of the adapter's config, for the UNet's, with diffusers' defaults
    adapter_keys: Mapping[str, Any] = field(default_factory=dict)
    # the scheduler that the adapter was trained with; the image model's own has other noise levels
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    def is_along_time(self, name: str) -> bool:
        """Say whether a parameter belongs to a layer along time."""
        return re.search(self.along_time, name) is not None


def u_shaped(config: Mapping[str, Any], unit: Callable[..., Iterator[Layer]],
             middle: Callable[..., Iterator[Layer]]) -> Iterator[Layer]:
    """Yield the leaf blocks of a UNet from its first residual block on, in the order in which they run.

    `unit`: yields the blocks around one residual block, by the name that they begin with, their index, level,
    channels entering, channels leaving, and whether it has attention. `middle`: yields the blocks of the
    middle, by level and channels.
    """
    widths, per_level = config["block_out_channels"], config["layers_per_block"]
    skipped, c, coarsest = [widths[0]], widths[0], len(widths) - 1
    for level, (form, out) in enumerate(zip(config["down_block_types"], widths)):
        for index in range(at_level(per_level, level)):
            yield from unit(f"down_blocks.{level}", index, level, c, out, "CrossAttn" in form)
            c = out
            skipped.append(c)
        if level < coarsest:
            yield Layer("resampling", f"down_blocks.{level}.downsamplers.", level, c)
            skipped.append(c)
    yield from middle(coarsest, c)
    for up, (form, out) in enumerate(zip(config["up_block_types"], reversed(widths))):
        level = coarsest - up
        for index in range(at_level(per_level, level) + 1):
            yield from unit(f"up_blocks.{up}", index, level, c + skipped.pop(), out, "CrossAttn" in form)
            c = out
        if level:
            yield Layer("resampling", f"up_blocks.{up}.upsamplers.", level - 1, c)
    yield Layer("output", "conv_norm_out.", 0, c)


def at_level(value: int | Sequence[int], level: int) -> int:
    """Return a number of a UNet's config at a level, where it may be one for all levels or a list."""
    return value if isinstance(value, int) else value[level]


def outside(along_time: str, pattern: str) -> str:
    """Return a regular expression that finds `pattern` in names in which `along_time` is not found."""
    return rf"^(?!.*{along_time}).*{pattern}"
