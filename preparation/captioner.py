"""Captions by a model: any image-text-to-text model of transformers, such as BLIP or Qwen-VL.

It describes one frame. From one picture it cannot tell the motion, and often calls it standing, so
preparation/motion_words.py puts "doing the V* dance" in the place of its words for the motion.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from models.base_folder import is_hub_id
from utils.errors import UserError, first_line

QUESTION = "Describe in one short sentence who or what moves in this picture, what it does, and where."
MAX_NEW_TOKENS = 40


@dataclass(frozen=True)
class Captioner:
    model: torch.nn.Module
    processor: object


def load_captioner(name: str) -> Captioner:
    """Load a transformers folder or hub id; no code of it is run. Raises UserError if it cannot caption."""
    if not Path(name).is_dir() and not is_hub_id(name):
        raise UserError(f"--captioner: {name} does not exist. Name a transformers folder or a hub id.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True,
                                                            trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = first_line(error)[:200].rstrip(".")
        raise UserError(f"--captioner: {name} cannot be loaded ({reason}). Name an image-text-to-text model "
                        f"of transformers, a folder or a hub id that can be reached.") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Captioner(model.requires_grad_(False).eval().to(device), processor)


@torch.inference_mode()
def describe_frame(captioner: Captioner, frame: np.ndarray) -> str:
    """Return a sentence about a frame, uint8 (h w c) RGB; empty if the model has none."""
    from PIL import Image

    image, processor = Image.fromarray(frame), captioner.processor
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
            return_dict=True, return_tensors="pt")
    else:   # captions without being asked
        inputs = processor(images=image, return_tensors="pt")
    inputs = inputs.to(captioner.model.device)
    tokens = captioner.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[0]
    asked = inputs["input_ids"][0] if "input_ids" in inputs else tokens[:0]
    if len(asked) and torch.equal(tokens[:len(asked)], asked):
        tokens = tokens[len(asked):]
    text = processor.decode(tokens, skip_special_tokens=True)
    printable = " ".join("".join(filter(str.isprintable, " ".join(text.split()))).split())
    return re.split(r"(?<=[.!?])\s", printable)[0].rstrip(".!? ")   # the first sentence alone
