"""What a run will need of memory and disk, told before it starts.

Activations are counted by running the UNet's forward on tensors that have shapes and no values, and adding up
what autograd keeps. It is an estimate: allocators round, and kernels take workspace.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet3DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode

from models.base_folder import tensor_sizes
from models.recompute import RECOMPUTED
from utils.files import format_bytes

NUM_TOKENS = 77   # of CLIP; few against the pixels, so it need not be the base's own
BYTES = {"no": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Footprint:
    """Bytes on the training device, by purpose."""

    frozen_weights: int
    trained_weights: int
    gradients: int
    optimizer: int
    activations: int

    def total(self) -> int:
        return sum(vars(self).values())

    def report(self) -> str:
        parts = [f"{name.replace('_', ' ')} {format_bytes(size)}" for name, size in vars(self).items()]
        return f"memory, estimated: {format_bytes(self.total())} ({', '.join(parts)})"


def training_footprint(folder: Path, trained: list[str], batch_size: int, num_frames: int,
                       cells: tuple[int, int], precision: str, recompute: bool,
                       use_8bit_adam: bool) -> Footprint:
    """Estimate the memory of a training step on a batch of windows of `num_frames` of `cells` (h, w) latent
    cells."""
    sizes = tensor_sizes(folder, "unet")
    num_trained = sum(sizes[name] for name in trained)
    return Footprint(
        frozen_weights=(sum(sizes.values()) - num_trained) * BYTES[precision],
        trained_weights=num_trained * 4,
        gradients=num_trained * 4,
        optimizer=num_trained * (2 if use_8bit_adam else 8),
        activations=activation_bytes(folder, trained, (batch_size, num_frames, *cells), recompute)
        * BYTES[precision] // 4,
    )


def activation_bytes(folder: Path, trained: list[str], shape: tuple[int, int, int, int],
                     recompute: bool) -> int:
    """Count the bytes autograd keeps for the backward pass of latents of `shape` (b, f, h, w), in float32.

    With `recompute`, only the inputs of the recomputed blocks are kept, and what the largest of them needs
    inside.
    """
    config = UNet3DConditionModel.load_config(folder / "unet")
    kept, inside, current = {}, {}, []   # storage -> bytes kept; block -> its storages; the block being run

    with FakeTensorMode():
        unet = UNet3DConditionModel.from_config(config)
        wanted = set(trained)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in wanted)
        weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        alive = []   # storages must not be freed, or another could take a freed one's identity

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            alive.append(storage)
            if storage._cdata not in weights:
                (inside[current[-1]] if current else kept)[storage._cdata] = storage.nbytes()
            return tensor

        def enter(block, args, kwargs) -> None:
            current.append(block)
            inside[block] = {}
            for tensor in (*args, *kwargs.values()):
                if isinstance(tensor, torch.Tensor):
                    alive.append(tensor.untyped_storage())
                    kept[alive[-1]._cdata] = alive[-1].nbytes()

        if recompute:
            for block in (module for module in unet.modules() if isinstance(module, RECOMPUTED)):
                block.register_forward_pre_hook(enter, with_kwargs=True)
                block.register_forward_hook(lambda *_: current.pop() and None)
        batch_size, num_frames, height, width = shape
        latents = torch.empty(batch_size, config["in_channels"], num_frames, height, width)
        prompt_embeds = torch.empty(batch_size, NUM_TOKENS, config["cross_attention_dim"])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(latents, torch.zeros(batch_size, dtype=torch.int64), prompt_embeds)
    return sum(kept.values()) + max((sum(block.values()) for block in inside.values()), default=0)
