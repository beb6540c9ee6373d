"""Values of the training configuration that have the right type and cannot be."""

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rendering.samplers import SAMPLERS
from utils.prompts import MAX_SEED

LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
                 "piecewise_constant")
CHOICES = {
    "mixed_precision": (None, "no", "fp16", "bf16"),
    "motion_dtype": ("fp16", "fp32"),
    "report_to": (None, "tensorboard", "wandb"),
    "lr_scheduler": LR_SCHEDULERS,
    "train_data.sampling": ("uniform", "high-level", "low-level"),
    "train_data.train_weights": ("all", "spatial"),
    "validation_data.sampler": SAMPLERS,
}
DATASET_TYPES = ("folder", "single_video", "image")
POSITIVE = (
    "max_train_steps", "learning_rate", "train_batch_size", "gradient_accumulation_steps", "adam_epsilon",
    "max_grad_norm", "lr_num_cycles", "lr_power", "train_data.width", "train_data.height",
    "train_data.n_sample_frames", "train_data.fps", "validation_data.num_frames", "validation_data.width",
    "validation_data.height", "validation_data.num_inference_steps", "validation_data.batch_size",
    "validation_data.max_prompts",
    "keep_checkpoints",
)
AS_TRAINED = {   # null means that samples are as the training windows
    "validation_data.num_frames": "train_data.n_sample_frames",
    "validation_data.width": "train_data.width",
    "validation_data.height": "train_data.height",
}
OPTIONAL = (*AS_TRAINED, "keep_checkpoints")
NOT_NEGATIVE = ("prior_lambda", "lr_warmup_steps", "adam_weight_decay", "seed", "offset_noise_strength",
                "validation_data.guidance_scale")


def impossible_values(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for values, by dotted key, that have the right type and cannot be."""
    for key, choices in CHOICES.items():
        value = values[key]
        if value not in choices:
            names = ", ".join(choice for choice in choices if choice)
            nearest = difflib.get_close_matches(str(value), [choice for choice in choices if choice], n=1)
            yield key, f" is {value!r}. It can be {names}.{f' Did you mean {nearest[0]}?' if nearest else ''}"
    for key in POSITIVE + NOT_NEGATIVE:
        value = values[key]
        if value is None and key in OPTIONAL:
            continue
        if value is None or not math.isfinite(value) or (value <= 0 if key in POSITIVE else value < 0):
            yield key, f" is {value}. It must be {'above zero' if key in POSITIVE else 'zero or above'}."
    if values["seed"] > MAX_SEED:
        yield "seed", f" is {values['seed']}. It must be at most {MAX_SEED}."
    for key, low, high in (("temporal_dropout", 0, 1), ("adam_beta1", 0, 1), ("adam_beta2", 0, 1)):
        if not low <= values[key] < high:
            yield key, f" is {values[key]}. It must be at least {low} and below {high}."
    rules = values["lr_step_rules"] or ""
    is_piecewise = values["lr_scheduler"] == "piecewise_constant"
    if is_piecewise and not re.fullmatch(r"([\d.e-]+:\d+,)+[\d.e-]+", rules):
        yield "lr_step_rules", (f" is {rules!r}. "
                                f"piecewise_constant needs factors and steps, such as 1:100,0.1:200,0.01.")
    for name in values["dataset_types"]:
        if name not in DATASET_TYPES:
            yield "dataset_types", f" has {name!r}. It can have {', '.join(DATASET_TYPES)}."
    if not values["dataset_types"]:
        yield "dataset_types", f" is empty. Name at least one of {', '.join(DATASET_TYPES)}."
    if not values["trainable_modules"]:
        yield "trainable_modules", (" is empty, so nothing would train. "
                                    "The paper's set: [cross, temporal, temp_convs].")
    if not values["train_data.path"]:
        yield "train_data.path", " is not set. Name the folder of your exemplar clips."
    if not values["pretrained_model_path"]:
        yield "pretrained_model_path", " is not set. Name a diffusers folder or a hub id."
    token, subject = values["placeholder_token"], values["subject"]
    if not token or any(letter.isspace() for letter in token):
        yield "placeholder_token", f" is {token!r}. It must be one word."
    if not subject or subject != Path(subject).name or subject.startswith((".", "-")):
        yield "subject", f" is {subject!r}. It names a folder: no slashes, no leading dot or dash."
