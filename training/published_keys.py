"""Keys of the published program's config, and of its ancestor's, that are no keys of this program.

A config written for those programs loads unchanged: a key that does nothing here is named as such, and a key
that switches on what this program does not do is an error that says what to do instead. Source: the lists of
keys in tests/training/published_keys.txt.
"""


WITHOUT_EFFECT = (
    "cache_latents", "class_name", "enable_torch_2_attn", "enable_xformers_memory_efficient_attention",
    "eval_script", "extra_text_encoder_params", "extra_unet_params", "ignore_tokenizer_warnings",
    "initializer_token", "kwargs", "test_seed", "text_encoder_gradient_checkpointing",
    "text_encoder_lora_modules", "trainable_text_modules", "txt_learning_rate", "unet_lora_modules",
    "train_data.add_token", "train_data.base_height", "train_data.base_width", "train_data.preprocessed",
    "train_data.sample_start_idx", "validation_data.sample_preview",
)
UNSUPPORTED = {   # key -> what to do instead of switching it on
    "train_text_encoder": "The text encoder stays frozen here. Set it to false: the motion is learned by the "
                          "modules that trainable_modules names.",
    "train_text_token": "The embedding of the token is not trained here. Set it to false: the captions name "
                        "the motion with V*, and cross-attention learns what it means.",
    "use_text_lora": "The text encoder stays frozen here. Set it to false.",
    "use_unet_lora": "Another key switches LoRA on here. Set it to false, and lora_rank: 16. The modules "
                     "of trainable_modules then get low-rank updates.",
}
ALIASES = {"sampling": "train_data.sampling"}   # where the published program takes a key outside its section


def section_without_effect(key: str) -> str | None:
    """Return the entry of WITHOUT_EFFECT that `key` is, or lies in; None if it has an effect."""
    return next((name for name in WITHOUT_EFFECT if key == name or key.startswith(f"{name}.")), None)
