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


@pytest.fixture(scope="session")
def idefics_folder(tmp_path_factory) -> Path:
    """An Idefics3 (the class of SmolVLM-Instruct) of random weights, which is asked by a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    folder = tmp_path_factory.mktemp("asked")
    special = ("[PAD]", "[EOS]", "[UNK]", "<image>", "<fake_token_around_image>", "<global-img>")
    words = {word: index for index, word in enumerate((*special, "Describe", "User:", "park.", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]",
        additional_special_tokens=list(special[3:]))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(Idefics3Config(
        text_config={"model_type": "llama", **size, "num_key_value_heads": 1, "vocab_size": len(words),
                     "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
        vision_config={**size, "image_size": 32, "patch_size": 8}, scale_factor=2, image_token_id=3,
        pad_token_id=0))
    model.save_pretrained(folder)
    Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 32},
                                  do_image_splitting=False),
        tokenizer, image_seq_len=4, chat_template=(
            "{% for message in messages %}User: {% for part in message.content %}"
            "{{ '<image> ' if part.type == 'image' else part.text + ' ' }}{% endfor %}{% endfor %}")
    ).save_pretrained(folder)
    return folder
