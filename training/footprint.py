"""What a training step will need of memory, told before it starts and without loading what computes it.

The UNet's blocks are walked in the order in which they run, from the sizes in its config; for each, what
autograd keeps is added up by hand, layer by layer, for the forms of models/fast.py. The peak is the largest
sum along the way: activations pile up in the forward pass, and in the backward pass give way to gradients.
tests/training/test_footprint.py compares the count with what torch keeps, and studies/benchmark.py with
memory.

Letters: n latent cells of all frames of the batch at a level of the UNet, c channels, i channels inside a
transformer, s bytes per value in the compute precision, g bytes of what a norm keeps and returns.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.devices import DTYPES
from utils.files import format_bytes

NUM_TOKENS = 77    # of CLIP; few against the pixels, so it need not be the base's own
MOST_KEYS = 128    # as in models/fast.py, which needs diffusers, and that takes seconds to import
# gradients on their way through a transformer's feed-forward layer, its widest, in channels: of its gated
# product (4) and both factors (8), and of what passes by (2). Where the layer after it trains, what came into
# that (4) is no longer kept by then. Later both factors are there again as one (8), the product and gate not.
GRADIENTS_UNDER_WAY, LESS_WHERE_TRAINED = 14, 4
# of a layer, in bytes, in bf16 on a CPU; measured (docs/performance.md), in float32 there are next to none
KERNELS = 190_000


@dataclass(frozen=True)
class Footprint:
    """Bytes on the training device at the peak of a step, by purpose."""

    frozen_weights: int
    trained_weights: int
    optimizer: int
    gradients: int      # those that are there at the peak
    activations: int    # and what else comes and goes
    kernels: int        # that the libraries compile and keep

    def total(self) -> int:
        return sum(vars(self).values())

    def report(self) -> str:
        parts = [f"{name.replace('_', ' ')} {format_bytes(size)}"
                 for name, size in vars(self).items() if size]
        return f"memory, estimated: {format_bytes(self.total())} ({', '.join(parts)})"


@dataclass(frozen=True)
class Block:
    """A part of the UNet that is recomputed as a whole, or never."""

    name: str            # of its parameters, up to the last dot
    entering: int        # bytes that come in
    inside: int          # bytes that autograd keeps of it, what comes in included
    under_way: int       # bytes of gradients while the backward pass is in it
    is_recomputed: bool = True
    recomputed_alone: int = 0   # of `inside`, bytes that are then not there together with the rest
    keeps_casts: bool = True    # of its trained weights, in the compute precision


def training_footprint(folder: Path, sizes: Mapping[str, int], trained: list[str], batch_size: int,
                       num_frames: int, cells: tuple[int, int], precision: str, recompute: bool,
                       use_8bit_adam: bool, on_cpu: bool, gradients_stay: bool = False) -> Footprint:
    """Estimate the memory of a training step on a batch of windows of `num_frames` of `cells` (h, w) latent
    cells. `gradients_stay`: all of them are there from the start, as where those of several passes add up."""
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    num_trained = sum(sizes[name] for name in trained)
    value = DTYPES[precision].itemsize
    blocks = list(unet_blocks(config, set(trained), batch_size, num_frames, cells, value, on_cpu))
    activations, gradients = peak_of_step(blocks, {name: sizes[name] for name in trained}, value, recompute,
                                          are_there=gradients_stay)
    if gradients + activations < num_trained * 4:   # the optimizer's turn, when all gradients are there
        activations, gradients = 0, num_trained * 4
    return Footprint(
        frozen_weights=(sum(sizes.values()) - num_trained) * value,
        trained_weights=num_trained * 4,
        optimizer=num_trained * (2 if use_8bit_adam else 8),
        gradients=gradients, activations=activations,
        kernels=KERNELS * sum(name.endswith(".weight") for name in sizes) * (on_cpu and value == 2))


def peak_of_step(blocks: Sequence[Block], trained_sizes: dict[str, int], value: int,
                 recompute: bool, are_there: bool = False) -> tuple[int, int]:
    """Return the bytes of (activations, gradients) when both together are most. `value`: bytes of a computed
    value; trained weights are cast to it. `are_there`: the gradients of all weights, from before."""
    of_block = {block.name: sum(size for name, size in trained_sizes.items() if name.startswith(block.name))
                for block in blocks}
    first = _first_trained(blocks, trained_sizes)
    kept = kept_of_blocks(blocks, trained_sizes, value, recompute)
    peak = (0, 0)
    for index in range(len(blocks) - 1, first - 1, -1):   # the backward pass
        block = blocks[index]
        again = 0
        if recompute and block.is_recomputed:
            again = block.inside - block.recomputed_alone + _casts(block, of_block[block.name], value)
        gradients = 4 * sum(of_block[later.name] for later in (blocks if are_there else blocks[index:]))
        peak = max(peak, (sum(kept[: index + 1]) + again + block.under_way, gradients), key=sum)
    return peak


def kept_of_blocks(blocks: Sequence[Block], trained_sizes: dict[str, int], value: int,
                   recompute: bool) -> list[int]:
    """Return the bytes that autograd keeps of each block until the backward pass."""
    first, kept = _first_trained(blocks, trained_sizes), []
    for index, block in enumerate(blocks):
        weights = sum(size for name, size in trained_sizes.items() if name.startswith(block.name))
        if index < first:   # before the first block that trains nothing needs a gradient
            kept.append(0)
        elif recompute and block.is_recomputed:
            kept.append(block.entering)
        else:
            kept.append(block.inside + _casts(block, weights, value))
    return kept


def _casts(block: Block, num_weights: int, value: int) -> int:
    return num_weights * value if value < 4 and block.keeps_casts else 0


def _first_trained(blocks: Sequence[Block], names: Iterable[str]) -> int:
    return next((index for index, block in enumerate(blocks)
                 if any(name.startswith(block.name) for name in names)), len(blocks))


def unet_blocks(config: dict, trained: set[str], batch_size: int, num_frames: int, cells: tuple[int, int],
                value: int, on_cpu: bool) -> Iterator[Block]:
    """Yield the blocks of a UNet3DConditionModel in the order in which they run."""
    widths, per_level = config["block_out_channels"], config["layers_per_block"]
    head_width = config.get("num_attention_heads") or config["attention_head_dim"]
    layers = _Layers(trained, batch_size, num_frames, value, 4 if not on_cpu and value < 4 else value, on_cpu)
    height, width = cells

    def unit(name: str, index: int, entering: int, c: int, is_attending: bool) -> Iterator[Block]:
        n = batch_size * num_frames * height * width
        yield layers.resnet(f"{name}.resnets.{index}.", n, entering, c)
        yield layers.temporal_convolution(f"{name}.temp_convs.{index}.", n, c)
        if is_attending:
            yield layers.spatial(f"{name}.attentions.{index}.", n, c, c // head_width, height * width)
            yield layers.temporal(f"{name}.temp_attentions.{index}.", n, c, c, c // head_width)

    n = batch_size * num_frames * height * width
    i = 8 * config["attention_head_dim"]
    yield layers.temporal("transformer_in.", n, widths[0], i, 8, is_alone=True)
    skipped, c = [widths[0]], widths[0]
    for level, (kind, out) in enumerate(zip(config["down_block_types"], widths)):
        for index in range(per_level):
            yield from unit(f"down_blocks.{level}", index, c, out, "CrossAttn" in kind)
            c = out
            skipped.append(c)
        if level < len(widths) - 1:
            n = batch_size * num_frames * height * width
            yield layers.resampling(f"down_blocks.{level}.downsamplers.", n, c)
            height, width = -(-height // 2), -(-width // 2)
            skipped.append(c)
    n = batch_size * num_frames * height * width
    yield layers.resnet("mid_block.resnets.0.", n, c, c)
    yield layers.temporal_convolution("mid_block.temp_convs.0.", n, c)
    yield layers.spatial("mid_block.attentions.0.", n, c, c // head_width, height * width)
    yield layers.temporal("mid_block.temp_attentions.0.", n, c, c, c // head_width)
    yield layers.resnet("mid_block.resnets.1.", n, c, c)
    yield layers.temporal_convolution("mid_block.temp_convs.1.", n, c)
    for level, (kind, out) in enumerate(zip(config["up_block_types"], reversed(widths))):
        for index in range(per_level + 1):
            yield from unit(f"up_blocks.{level}", index, c + skipped.pop(), out, "CrossAttn" in kind)
            c = out
        if level < len(widths) - 1:
            height, width = (-(-side // 2 ** (len(widths) - 2 - level)) for side in cells)
            yield layers.resampling(f"up_blocks.{level}.upsamplers.",
                                    batch_size * num_frames * height * width, c)
    n = batch_size * num_frames * height * width
    yield Block("conv_norm_out.", n * c * value, 3 * n * c * value, 2 * n * c * value, False)


@dataclass(frozen=True)
class _Layers:
    """The kinds of blocks, on this batch."""

    trained: set[str]
    batch_size: int
    num_frames: int
    s: int
    g: int
    on_cpu: bool

    def resnet(self, name: str, n: int, c_in: int, c_out: int) -> Block:
        # what comes into norm, activation and convolution; on a CPU only what comes into the norm
        per_channel = self.s if self.on_cpu else self.s + 2 * self.g
        shortcut = c_in * self.s if c_in != c_out and self.g > self.s else 0
        return Block(name, n * c_in * self.s, n * ((c_in + c_out) * per_channel + shortcut),
                     5 * n * max(c_in, c_out) * self.s, keeps_casts=not self.on_cpu)

    def temporal_convolution(self, name: str, n: int, c: int) -> Block:
        per_channel = self.s if self.on_cpu else self.s + 2 * self.g
        return Block(name, n * c * self.s, 4 * n * c * per_channel, 5 * n * c * self.s,
                     keeps_casts=not self.on_cpu)

    def resampling(self, name: str, n: int, c: int) -> Block:
        return Block(name, n * c * self.s, n * c * self.s, n * c * self.s, is_recomputed=False)

    def spatial(self, name: str, n: int, c: int, heads: int, per_frame: int) -> Block:
        linear, block = self._linear(name), f"{name}transformer_blocks.0."
        text = 2 * self.batch_size * NUM_TOKENS * c * self.s
        inside = n * (
            c * self.g + linear("proj_in") * c * self.s
            + self._attention(f"{block}attn1.", c, heads, per_frame)
            + self._attention(f"{block}attn2.", c, heads, NUM_TOKENS, is_text=True)
            + self._feed_forward(block, c) + linear("proj_out") * c * self.s) + text
        return Block(name, n * c * self.s, inside, self._under_way(block, n, c))

    def temporal(self, name: str, n: int, c: int, i: int, heads: int, is_alone: bool = False) -> Block:
        """`is_alone`: its attention is recomputed apart from the rest."""
        linear, block = self._linear(name), f"{name}transformer_blocks.0."
        attention = sum(self._attention(f"{block}{each}.", i, heads, self.num_frames)
                        for each in ("attn1", "attn2"))
        inside = n * (c * self.g + linear("proj_in") * c * self.s + attention
                      + self._feed_forward(block, i) + linear("proj_out") * i * self.s)
        alone = n * (attention - 2 * i * self.g) if is_alone else 0   # but for what comes in
        return Block(name, n * c * self.s, inside, self._under_way(block, n, i), recomputed_alone=alone)

    def _under_way(self, block: str, n: int, i: int) -> int:
        less = LESS_WHERE_TRAINED * self._linear(f"{block}ff.net.")("2")
        if self.on_cpu:   # neither product nor factors were kept: factors and gate are there again
            less = -12
        return (GRADIENTS_UNDER_WAY - less) * n * i * self.s

    def _attention(self, name: str, i: int, heads: int, num_keys: int, is_text: bool = False) -> int:
        """Bytes kept per cell, its norm included."""
        linear = self._linear(name)
        projections = ("to_q",) if is_text else ("to_q", "to_k", "to_v")
        # in one precision all see the same tensor; else each makes its own copy
        needing = [linear(projection) for projection in projections]
        seen = sum(needing) if self.g > self.s else max(needing)
        states = 1 if is_text else 3   # keys and values of the text are few
        if self.on_cpu and num_keys <= MOST_KEYS:
            kept = states * i * self.s + heads * num_keys * self.s + linear("to_out.0") * i * self.s
        else:
            kept = (states + 1) * i * self.s + heads * 4
        return i * self.g + 8 + seen * i * self.s + kept

    def _feed_forward(self, block: str, i: int) -> int:
        linear = self._linear(f"{block}ff.net.")
        if self.on_cpu:
            return 2 * i * self.g + 8   # what comes into its norm, and out of it
        return i * self.g + 8 + (linear("0.proj") + 12 + 4 * linear("2")) * i * self.s

    def _linear(self, prefix: str) -> Callable[[str], bool]:
        """Say of a linear layer whether it keeps what comes in: where its weight trains."""
        return lambda name: f"{prefix}{name}.weight" in self.trained
