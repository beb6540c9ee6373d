"""Small random recognizers for tests: VideoMAE and CLIP in transformers format, with every file of theirs."""

import functools
from pathlib import Path

import torch

from tests.conftest import ROOT

LABELS = ("dance", "walking", "waving", "jumping jacks", "jumping")


@functools.cache
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "models" / "puppet-theatre" / "tokenizer")


def make_recognizer(folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Path:
    """Write a video classifier that guesses."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessorPil

    torch.manual_seed(seed)
    VideoMAEForVideoClassification(VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)})).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


def make_clip(folder: Path, seed: int = 0) -> Path:
    """Write a CLIP that has learned nothing, whose random features all the same tell pictures apart."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(seed)
    words = tokenizer()
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 40, "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    vision = {"image_size": 32, "patch_size": 4, "hidden_size": 64, "intermediate_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    for parameter in model.vision_model.parameters():   # of trained size: the usual start is near zero
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
