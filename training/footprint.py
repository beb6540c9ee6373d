"""The memory that a training step will take, estimated before it starts and without importing diffusers.

The UNet's blocks are walked in the order in which they run, by the sizes in the UNet's config. For each
block, the tensors that autograd keeps are added up layer by layer, for the forms of models/fast.py. The peak
of a step is the largest sum along the way: activations pile up in the forward pass, and in the backward pass
gradients replace them. tests/training/test_footprint.py compares the sums with the tensors that torch keeps,
and studies/benchmark.py compares the peak with the memory of a process.

Letters: n latent cells of all frames of the batch at a level of the UNet, c channels, i channels inside a
transformer, s bytes per value in the compute precision, g bytes per value that a norm keeps and returns.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.base_kind import MOST_KEYS, Layer
from utils.devices import DTYPES
from utils.files import format_bytes

NUM_TOKENS = 77    # CLIP's; so few against the number of pixels that the base's own number is not needed
# The widest gradients in the backward pass of a transformer are those of its gated feed-forward layer,
# counted in channels: the gated product has 4, the product's two factors have 8, and the skip connection has
# 2.
GRADIENT_CHANNELS = 4 + 8 + 2
# Where the feed-forward layer's second projection trains, its input of 4 channels is freed before that peak.
FREED_CHANNELS = 4
# On a CPU the product and the factors are computed again: both factors and the gate (12) exist once more.
RECOMPUTED_CHANNELS = 12
# Bytes per layer that oneDNN and PyTorch keep for compiled bf16 kernels on a CPU, measured
# (docs/performance.md). In float32 there are next to none.
KERNEL_BYTES = 190_000


@dataclass(frozen=True)
class Footprint:
    """Bytes on the training device at the peak of a step, by purpose."""

    frozen_weights: int
    trained_weights: int
    optimizer: int
    gradients: int      # of weights
    activations: int    # and their gradients
    kernels: int        # compiled by the libraries and kept

    def total(self) -> int:
        return sum(vars(self).values())

    def report(self) -> str:
        parts = [f"{name.replace('_', ' ')} {format_bytes(size)}"
                 for name, size in vars(self).items() if size]
        return f"memory, estimated: {format_bytes(self.total())} ({', '.join(parts)})"


@dataclass(frozen=True)
class Block:
    """A part of the UNet that is recomputed as a whole or never. Sizes are in bytes."""

    name: str                   # the beginning of its parameters' names, with the last dot
    entering: int               # its input
    inside: int                 # tensors that autograd keeps, with the input
    under_way: int              # gradients of activations during the block's backward pass
    is_recomputed: bool = True
    recomputed_alone: int = 0   # the part of `inside` that is recomputed, and freed, before the rest
    keeps_casts: bool = True    # whether autograd keeps trained weights in the compute precision


def training_footprint(layers: Iterable[Layer], sizes: Mapping[str, int], trained: Mapping[str, int],
                       batch_size: int, num_frames: int, cells: tuple[int, int], precision: str,
                       recompute: bool, use_8bit_adam: bool, on_cpu: bool, gradients_stay: bool = False,
                       rank: int = 0) -> Footprint:
    """Estimate the memory of a training step on windows of `num_frames` of `cells` (h, w) latent cells.

    `layers`: the leaf blocks of the UNet. `sizes`: the number of elements of its weights. `trained`: the
    number of values that train for each weight that changes: its own, or with a `rank` those of its low-rank
    update, whose dropout is not counted. `gradients_stay`: the gradients of all trained weights exist from
    the start of the step, because several passes add to them.
    """
    num_trained, value = sum(trained.values()), DTYPES[precision].itemsize
    blocks = list(unet_blocks(layers, set(trained), batch_size, num_frames, cells, value, on_cpu, rank))
    activations, gradients = peak_of_step(blocks, trained, value, recompute, gradients_stay)
    if gradients + activations < num_trained * 4:   # then the peak is the optimizer's step
        activations, gradients = 0, num_trained * 4
    # A and B of a low-rank update are layers of their own
    num_layers = sum(name.endswith(".weight") for name in sizes) + (2 * len(trained) if rank else 0)
    return Footprint(
        frozen_weights=(sum(sizes.values()) - (0 if rank else num_trained)) * value,
        trained_weights=num_trained * 4,
        optimizer=num_trained * (2 if use_8bit_adam else 8),
        gradients=gradients, activations=activations,
        kernels=KERNEL_BYTES * num_layers * (on_cpu and value == 2))


def peak_of_step(blocks: Sequence[Block], trained_sizes: Mapping[str, int], value: int, recompute: bool,
                 gradients_stay: bool = False) -> tuple[int, int]:
    """Return the bytes of (activations, gradients of weights) when their sum is largest.

    `value`: bytes per value of the compute precision, to which trained weights are cast.
    """
    num_weights = _weights_by_block(blocks, trained_sizes)
    kept, peak = kept_of_blocks(blocks, trained_sizes, value, recompute), (0, 0)
    for index in range(len(blocks) - 1, _first_trained(num_weights) - 1, -1):   # the backward pass
        block, again = blocks[index], 0
        if recompute and block.is_recomputed:
            again = block.inside - block.recomputed_alone + _casts(block, num_weights[index], value)
        gradients = 4 * sum(num_weights if gradients_stay else num_weights[index:])
        peak = max(peak, (sum(kept[: index + 1]) + again + block.under_way, gradients), key=sum)
    return peak


def kept_of_blocks(blocks: Sequence[Block], trained_sizes: Mapping[str, int], value: int,
                   recompute: bool) -> list[int]:
    """Return the bytes that autograd keeps of each block until the backward pass."""
    num_weights = _weights_by_block(blocks, trained_sizes)
    kept = [block.entering if recompute and block.is_recomputed else block.inside + _casts(block, num, value)
            for block, num in zip(blocks, num_weights)]
    first = _first_trained(num_weights)
    return [0] * first + kept[first:]   # nothing before the first trained block needs a gradient


def _weights_by_block(blocks: Sequence[Block], trained_sizes: Mapping[str, int]) -> list[int]:
    return [sum(size for name, size in trained_sizes.items() if name.startswith(block.name))
            for block in blocks]


def _first_trained(num_weights: Sequence[int]) -> int:
    return next((index for index, num in enumerate(num_weights) if num), len(num_weights))


def _casts(block: Block, num_weights: int, value: int) -> int:
    return num_weights * value if value < 4 and block.keeps_casts else 0


def unet_blocks(layers: Iterable[Layer], trained: set[str], batch_size: int, num_frames: int,
                cells: tuple[int, int], value: int, on_cpu: bool, rank: int = 0) -> Iterator[Block]:
    """Yield the blocks of a UNet, of which a kind of base lists the `layers`, in the order in which they
    run. `rank`: of low-rank updates of the weights `trained`; 0: these weights train themselves."""
    kept = 4 if not on_cpu and value < 4 else value
    sizes = _Layers(trained, batch_size, num_frames, value, kept, on_cpu, rank)
    forms = {"resnet": sizes.resnet, "temporal_convolution": sizes.temporal_convolution,
             "spatial": sizes.spatial, "temporal": sizes.temporal, "resampling": sizes.resampling,
             "output": sizes.output}
    for layer in layers:
        height, width = (-(-side // 2 ** layer.level) for side in cells)
        yield forms[layer.form](layer, batch_size * num_frames * height * width)


@dataclass(frozen=True)
class _Layers:
    """The blocks that layers make, for one batch: a method for each form of models/base_kind.py's Layer."""

    trained: set[str]
    batch_size: int
    num_frames: int
    s: int
    g: int
    on_cpu: bool
    rank: int

    def resnet(self, layer: Layer, n: int) -> Block:
        name, c_in, c_out = layer.name, layer.entering, layer.channels
        shortcut = c_in * self.s if c_in != c_out and self.g > self.s else 0
        return Block(name, n * c_in * self.s,
                     n * ((c_in + c_out) * self._per_norm() + shortcut + self._low_rank(name)),
                     5 * n * max(c_in, c_out) * self.s, keeps_casts=not self.on_cpu)

    def temporal_convolution(self, layer: Layer, n: int) -> Block:
        name, c = layer.name, layer.channels
        return Block(name, n * c * self.s, n * (4 * c * self._per_norm() + self._low_rank(name)),
                     5 * n * c * self.s, keeps_casts=not self.on_cpu)

    def resampling(self, layer: Layer, n: int) -> Block:
        activation = n * layer.channels * self.s
        return Block(layer.name, activation, activation, activation, is_recomputed=False)

    def output(self, layer: Layer, n: int) -> Block:
        activation = n * layer.channels * self.s
        return Block(layer.name, activation, 3 * activation, 2 * activation, is_recomputed=False)

    def spatial(self, layer: Layer, n: int) -> Block:
        name, c, per_frame = layer.name, layer.channels, n // (self.batch_size * self.num_frames)
        block = f"{name}transformer_blocks.0."
        attention = (self._attention(f"{block}attn1.", c, layer.heads, per_frame)
                     + self._attention(f"{block}attn2.", c, layer.heads, NUM_TOKENS, is_text=True))
        text = 2 * self.batch_size * NUM_TOKENS * c * self.s
        between = self._low_rank(name, unless=r"attn2\.to_[kv]")
        inside = n * (self._transformer(name, c, c, attention, layer.has_convolutions) + between) + text
        return Block(name, n * c * self.s, inside, self._under_way(block, n, c))

    def temporal(self, layer: Layer, n: int) -> Block:
        name, c, i = layer.name, layer.channels, layer.inner
        block = f"{name}transformer_blocks.0."
        attention = sum(self._attention(f"{block}{each}.", i, layer.heads, self.num_frames)
                        for each in ("attn1", "attn2"))
        alone = n * (attention - 2 * i * self.g) if layer.is_alone else 0   # without the two inputs
        inside = n * (self._transformer(name, c, i, attention) + self._low_rank(name))
        return Block(name, n * c * self.s, inside, self._under_way(block, n, i), recomputed_alone=alone)

    def _per_norm(self) -> int:
        """Bytes per channel of a norm, an activation and a convolution: each keeps its input, on a CPU only
        the norm does."""
        return self.s if self.on_cpu else self.s + 2 * self.g

    def _low_rank(self, name: str, unless: str = "$^") -> int:
        """Bytes per cell that lie between the two matrices of low-rank updates, which are computed again on a
        CPU behind a norm or a gate. `unless`: layers that see a text, whose tokens are few."""
        left_out = rf"\.(ff|resnets|temp_convs)\.|{unless}" if self.on_cpu else unless
        return self.rank * self.s * sum(
            weight.startswith(name) and not re.search(left_out, weight) for weight in self.trained)

    def _transformer(self, name: str, c: int, i: int, attention: int, has_convolutions: bool = False) -> int:
        """Bytes per cell: its norm, both projections, its attention and its feed-forward layer."""
        keeps_input, block = self._linear(name), f"{name}transformer_blocks.0."
        # a convolution keeps its input also where its weight is frozen
        keeps = {projection: has_convolutions or keeps_input(projection)
                 for projection in ("proj_in", "proj_out")}
        return (c * self.g + keeps["proj_in"] * c * self.s + attention + self._feed_forward(block, i)
                + keeps["proj_out"] * i * self.s)

    def _under_way(self, block: str, n: int, i: int) -> int:
        channels = GRADIENT_CHANNELS - FREED_CHANNELS * self._linear(f"{block}ff.net.")("2")
        if self.on_cpu:
            channels = GRADIENT_CHANNELS + RECOMPUTED_CHANNELS
        return channels * n * i * self.s

    def _attention(self, name: str, i: int, heads: int, num_keys: int, is_text: bool = False) -> int:
        """Bytes per cell, with its norm."""
        keeps_input = self._linear(name)
        needing = [keeps_input(projection) for projection in ("to_q", "to_k", "to_v")[: 1 if is_text else 3]]
        # in one precision all projections keep the same input; under autocast each keeps its own copy
        inputs = sum(needing) if self.g > self.s else max(needing)
        states = len(needing)   # a text's keys and values are few
        if self.on_cpu and num_keys <= MOST_KEYS:
            kept = states * i * self.s + heads * num_keys * self.s + keeps_input("to_out.0") * i * self.s
        else:
            kept = (states + 1) * i * self.s + heads * 4
        return i * self.g + 8 + inputs * i * self.s + kept

    def _feed_forward(self, block: str, i: int) -> int:
        """Bytes per cell, with its norm."""
        if self.on_cpu:
            return 2 * i * self.g + 8   # the input of the norm, and the norm's output
        keeps_input = self._linear(f"{block}ff.net.")
        return i * self.g + 8 + (keeps_input("0.proj") + 12 + 4 * keeps_input("2")) * i * self.s

    def _linear(self, prefix: str) -> Callable[[str], bool]:
        """Return a function that says whether a linear layer keeps its input, which it does if its weight
        trains."""
        return lambda name: f"{prefix}{name}.weight" in self.trained
