"""What the tests of this folder share: a small captioner."""

from pathlib import Path

import pytest

WORDS = ("a", "man", "dog", "dancing", "walking", "in", "park")


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory) -> Path:
    """A BLIP of random weights with its processor: the class of real captioners, 0.1 M parameters."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("captioner")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS)))
    tokenizer = BertTokenizerFast(str(vocabulary), bos_token="[DEC]")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(BlipConfig(
        text_config={**size, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "bos_token_id": 5,
                     "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0},
        vision_config={**size, "image_size": 32, "patch_size": 16}, projection_dim=16))
    model.save_pretrained(folder)
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    processor.save_pretrained(folder)
    return folder
