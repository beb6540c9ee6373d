"""The networks of the bundled recognizers: VideoMAE and CLIP, only smaller.

puppets/train_recognizers.py trains them. Evaluation needs no code from here: trained recognizers are
transformers folders like any other.

Shapes: n clips or patches, f frames, c colours, h w pixels, d width of a token.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
)

from puppets.tokenizer import MAX_TOKENS
from puppets.world import CLIP_FRAMES, FRAME_SIZE

MEAN, STD = 0.5, 0.5     # map pixels from [0, 1] to [-1, 1]
IMAGE_SETTINGS = {
    "size": {"shortest_edge": FRAME_SIZE}, "crop_size": {"height": FRAME_SIZE, "width": FRAME_SIZE},
    "image_mean": [MEAN] * 3, "image_std": [STD] * 3, "resample": 2,   # bilinear
}


def build_classifier(labels: tuple[str, ...]) -> VideoMAEForVideoClassification:
    """Return an untrained VideoMAE for these motions."""
    return VideoMAEForVideoClassification(VideoMAEConfig(
        image_size=FRAME_SIZE, patch_size=16, num_frames=CLIP_FRAMES, tubelet_size=2, hidden_size=192,
        num_hidden_layers=4, num_attention_heads=6, intermediate_size=768, use_mean_pooling=True,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)},
        attn_implementation="eager",   # at this size, a third faster than fused attention on a CPU
    ))


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP for single frames and captions."""
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
             "pad_token_id": tokenizer.pad_token_id}
    text = {"vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3,
            "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS, "hidden_act": "gelu"}
    vision = {"image_size": FRAME_SIZE, "patch_size": 8, "hidden_size": 128, "intermediate_size": 512,
              "num_hidden_layers": 4, "num_attention_heads": 4, "hidden_act": "gelu"}
    return CLIPModel(CLIPConfig(text_config=text | marks, vision_config=vision, projection_dim=96,
                                attn_implementation="eager"))


def video_processor() -> VideoMAEImageProcessorPil:
    return VideoMAEImageProcessorPil(**IMAGE_SETTINGS)


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(**IMAGE_SETTINGS)


@torch.no_grad()
def whiten_tubelets(model: VideoMAEForVideoClassification, frames: Tensor) -> None:
    """Set the first layer to whitened principal components of tubelets (a patch in two frames).

    A third of the outputs describe the mean of the two frames, the rest their difference; all have about the
    same spread. A random layer passes on little but the colour of the backdrop: after 300 steps 12 % of
    motions were right with it, and 41 % with whitening. `frames` (n f c h w) are clips from -1 to 1.
    """
    layer = model.videomae.embeddings.patch_embeddings.projection                # (d c 2 16 16)
    size, width = layer.kernel_size[1], layer.out_channels
    pairs = rearrange(frames, "n (f t) c (i a) (j b) -> (n f i j) t (c a b)", t=2, a=size, b=size)
    first, second = pairs.unbind(1)
    mean, offset = whitening((first + second) / 2, width // 3)
    change, _ = whitening((second - first) / 2, width - width // 3)              # centred at no change
    both = torch.cat([torch.stack([mean, mean], 1), torch.stack([-change, change], 1)]) / 2    # (d t p)
    layer.weight.copy_(rearrange(both, "d t (c a b) -> d c t a b", a=size, b=size))
    layer.bias.zero_()[: len(mean)] = offset


@torch.no_grad()
def whiten_patches(model: CLIPModel, frames: Tensor) -> None:
    """Set CLIP's first layer, which has no bias, to whitened components; `frames` (n c h w) from -1 to 1."""
    layer: nn.Conv2d = model.vision_model.embeddings.patch_embedding             # (d c 8 8)
    size = layer.kernel_size[0]
    patches = rearrange(frames, "n c (i a) (j b) -> (n i j) (c a b)", a=size, b=size)
    components, _ = whitening(patches, layer.out_channels)
    layer.weight.copy_(rearrange(components, "d (c a b) -> d c a b", a=size, b=size))


def whitening(rows: Tensor, num: int, least_variance: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Return the `num` largest principal components of `rows` (n p), scaled to a spread of about 1, and
    the offsets that center them."""
    mean = rows.mean(0)
    variances, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))            # ascending
    components = axes.T.flip(0)[:num] / (variances.flip(0)[:num, None] + least_variance).sqrt()
    return components, -components @ mean
