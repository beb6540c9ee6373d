"""Low-rank updates that change something, and what small networks predict with them."""

import zlib

import torch
from diffusers import UNetMotionModel

from models.lora import add_trainable_lora, base_shapes
from models.lora_files import Lora
from models.motion_weights import MotionInfo
from models.tunable import select_tunable, union

GROUPS = ["cross", "temporal", "temp_convs"]
ALPHA_TWICE = Lora(4, 8.0)
ALPHA_OF_FILE = Lora(4, 4)   # what its file says: alpha is multiplied into the matrices
INPUT = torch.randn(2, 4, 6, 8, 8, generator=torch.Generator().manual_seed(3))   # (b c f h w)
EMBEDS = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(4))      # (b n d)


def drawn(layer: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(layer.encode()))


def with_lora(unet, lora=ALPHA_TWICE, groups=GROUPS):
    """Return the matrices of low-rank updates that change something: B is not zero, as it is at the start."""
    names = union(select_tunable(base_shapes(unet), groups))
    matrices = add_trainable_lora(unet, names, lora, drawn)
    for name, matrix in matrices.items():
        if ".lora_B." in name:
            matrix.data.normal_(std=0.05, generator=drawn(name))
    return matrices


def predicted(unet) -> torch.Tensor:
    with torch.no_grad():
        return unet(INPUT, torch.tensor([100, 800]), EMBEDS).sample


def info(base, lora=ALPHA_TWICE) -> MotionInfo:
    return MotionInfo(base.name, base.fingerprint, GROUPS, "sks", 7, 8.0, "", {"torch": "2"}, lora)


def tiny_motion_unet() -> UNetMotionModel:
    torch.manual_seed(0)
    unet = UNetMotionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), num_attention_heads=4,
        motion_num_attention_heads=4, motion_max_seq_length=8, use_motion_mid_block=False)
    return unet.eval()
