"""The models that judge videos: a video classifier names the motion, CLIP compares frames with text.

Both are transformers folders or hub ids, loaded by the ordinary from_pretrained: a VideoMAE or its like for
real footage, models/puppet-recognizers for the puppet theatre. The bundled models get no special treatment.

Shapes: n clips, frames or texts, f frames, h w c pixels and colours, k labels, d width of CLIP's embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForVideoClassification,
    AutoTokenizer,
    AutoVideoProcessor,
    BatchEncoding,
    CLIPConfig,
    CLIPModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from models.base_folder import is_hub_id
from utils.errors import UserError, first_line

CLASSIFIER = "ForVideoClassification"   # ends the class names of video classifiers
FRAME_COUNT_KEYS = ("num_frames", "frames_per_clip")   # of configs; the second is V-JEPA 2's
VIDEO_INPUT = "pixel_values_videos"     # main input of models that come with a processor of videos
CLIP_BATCH = 64                         # frames or texts that CLIP sees together
MAX_LABELS, NEAREST = 20, 5             # an error lists so many labels, or else the nearest few


@dataclass(frozen=True)
class MotionRecognizer:
    """A video classifier, in float32 and eval mode."""

    name: str                  # as the user gave it
    model: PreTrainedModel
    processor: object          # the folder's own, of images or videos
    num_frames: int            # of a clip, that it looks at
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ImageTextModel:
    """A CLIP, in float32 and eval mode."""

    model: CLIPModel
    processor: object          # of images
    tokenizer: object


# ------------------------------------------------------------------------------------------------- motion

def load_motion_recognizer(name: str, device: torch.device | str = "cpu") -> MotionRecognizer:
    """Load the video classifier of a folder or hub id.

    Raises UserError if it is no video classifier, or lacks trained weights or its processor.
    """
    config = _load(name, AutoConfig)
    if not any(kind.endswith(CLASSIFIER) for kind in config.architectures or ()):
        raise UserError(f"{name}: is {_kind(config)}, not a video classifier. Name a folder or hub id of a "
                        f"VideoMAE{CLASSIFIER} or its like.")
    said = [getattr(config, key, None) for key in FRAME_COUNT_KEYS]
    num_frames = next((number for number in said if isinstance(number, int)), None)
    if num_frames is None:
        raise UserError(f"{name}: its config does not say {' or '.join(FRAME_COUNT_KEYS)}. Name another "
                        f"video classifier, such as a VideoMAE{CLASSIFIER}.")
    model = _load_weights(name, AutoModelForVideoClassification, config, device)
    labels = tuple(config.id2label[index] for index in range(config.num_labels))
    processor = AutoVideoProcessor if model.main_input_name == VIDEO_INPUT else AutoImageProcessor
    return MotionRecognizer(name, model, _load(name, processor), num_frames, labels)


def label_index(recognizer: MotionRecognizer, label: str) -> int:
    """Return the index of `label`, in whatever letter case. Raises UserError if there is no such label."""
    known = [name.casefold() for name in recognizer.labels]
    if label.casefold() in known:
        return known.index(label.casefold())
    there = f"only {', '.join(recognizer.labels)}"
    if len(known) > MAX_LABELS:
        near = get_close_matches(label.casefold(), known, NEAREST, cutoff=0)
        near = ", ".join(recognizer.labels[known.index(name)] for name in near)
        there = f"but {len(known)} others, the nearest {near}"
    raise UserError(f"{recognizer.name}: knows no motion {label!r}, {there}. Name one of these, or another "
                    f"recognizer. With --recognizer none everything but the motion is measured.")


@torch.no_grad()
def classify_motion(recognizer: MotionRecognizer, clips: Sequence[np.ndarray],
                    batch_size: int = 16) -> np.ndarray:
    """Return the probabilities (n k) of the labels for uint8 clips (f h w c) of any length and size.

    The recognizer sees `num_frames` of a clip's frames, from the first to the last at even distances.
    """
    probabilities = [np.zeros((0, len(recognizer.labels)), np.float32)]
    for start in range(0, len(clips), batch_size):
        videos = [list(clip[even_indices(len(clip), recognizer.num_frames)])
                  for clip in clips[start : start + batch_size]]
        inputs = recognizer.processor(videos, return_tensors="pt")               # one tensor (n f c h w)
        logits = recognizer.model(**inputs.to(recognizer.model.device)).logits   # (n k)
        probabilities.append(logits.float().softmax(-1).cpu().numpy())
    return np.concatenate(probabilities)


def even_indices(num_frames: int, num_wanted: int) -> np.ndarray:
    """Return `num_wanted` indices from the first frame to the last. Frames of short clips are repeated."""
    return np.linspace(0, num_frames - 1, num_wanted).round().astype(int)


# --------------------------------------------------------------------------------------------------- CLIP

def load_clip(name: str, device: torch.device | str = "cpu") -> ImageTextModel:
    """Load the CLIP of a folder or hub id. Raises UserError if it is no CLIP, or lacks any part of it."""
    config = _load(name, AutoConfig)
    if not isinstance(config, CLIPConfig):
        raise UserError(f"{name}: is {_kind(config)}, not a CLIPModel. Name a folder or hub id of one.")
    model = _load_weights(name, CLIPModel, config, device)
    return ImageTextModel(model, _load(name, AutoImageProcessor), _load(name, AutoTokenizer))


def image_embeddings(clip: ImageTextModel, frames: Sequence[np.ndarray],
                     batch_size: int = CLIP_BATCH) -> torch.Tensor:
    """Return embeddings (n d) of length 1, float32 on the CPU, of uint8 frames (h w c) each."""
    prepare = lambda part: clip.processor(list(part), return_tensors="pt")
    return _embeddings(clip, clip.model.get_image_features, prepare, frames, batch_size)


def text_embeddings(clip: ImageTextModel, texts: Sequence[str]) -> torch.Tensor:
    """Return embeddings (n d) of length 1, float32 on the CPU. Words beyond CLIP's limit are not seen.

    What is not UTF-8, such as in the name of a file, is seen as the replacement character.
    """
    texts = [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for text in texts]
    limit = clip.model.config.text_config.max_position_embeddings
    prepare = lambda part: clip.tokenizer(list(part), padding="max_length", max_length=limit, truncation=True,
                                          return_tensors="pt")
    return _embeddings(clip, clip.model.get_text_features, prepare, texts, CLIP_BATCH)


@torch.no_grad()
def _embeddings(clip: ImageTextModel, encode: Callable, prepare: Callable[[Sequence], BatchEncoding],
                things: Sequence, batch_size: int) -> torch.Tensor:
    rows = [torch.zeros(0, clip.model.config.projection_dim)]
    for start in range(0, len(things), batch_size):
        output = encode(**prepare(things[start : start + batch_size]).to(clip.model.device))
        features = output if isinstance(output, torch.Tensor) else output.pooler_output   # transformers 5
        rows.append(F.normalize(features.float(), dim=-1).cpu())                          # (n d)
    return torch.cat(rows)


# ------------------------------------------------------------------------------------------------ loading

def _load(name: str, kind: type):
    """Return what `kind`.from_pretrained makes of `name`. HF_HUB_OFFLINE is honoured, no code is run."""
    if not Path(name).is_dir() and not is_hub_id(name):
        raise UserError(f"{name}: does not exist. Name a transformers folder or a hub id.")
    logging.set_verbosity_error()   # transformers would warn that it resizes images with Pillow
    logging.disable_progress_bar()
    what = {AutoConfig: "a transformers model", AutoImageProcessor: "an image processor",
            AutoVideoProcessor: "a video processor", AutoTokenizer: "a tokenizer"}[kind]
    try:
        return kind.from_pretrained(name, trust_remote_code=False)
    except ImportError as error:   # such as torchvision, which a video processor needs
        raise UserError(f"{name}: {what} cannot be loaded from it ({first_line(error).partition('. ')[0]}). "
                        f"Install what is missing with pip.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: {what} cannot be loaded from it ({first_line(error)}). Name a "
                        f"transformers folder, or a hub id that can be reached.") from error


def _load_weights(name: str, kind: type, config: PreTrainedConfig,
                  device: torch.device | str) -> PreTrainedModel:
    """Return the model in float32, frozen. Raises UserError if weights are missing or do not fit."""
    try:
        model, report = kind.from_pretrained(name, config=config, dtype=torch.float32, use_safetensors=True,
                                             trust_remote_code=False, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{name}: its weights cannot be loaded ({first_line(error)}). They must be "
                        f"safetensors; copy or convert the model again.") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{name}: lacks trained weights ({len(missing)}, such as {missing[0]}). Name a model "
                        f"that is whole.")
    return model.requires_grad_(False).eval().to(device)


def _kind(config: PreTrainedConfig) -> str:
    return f"a {(config.architectures or [config.model_type])[0]}"
