"""Recognizers that judge videos: a video classifier names the motion, CLIP compares frames with text.

Both are transformers folders or hub ids, loaded by the ordinary from_pretrained: VideoMAE and its like for
real footage, models/puppet-recognizers for the puppet theatre. Nothing is special about the bundled ones.

Shapes: n clips, frames or texts, f frames, h w c pixels and colours, k labels, t captions, d width of CLIP's
embeddings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
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
from utils.errors import UserError

CLASSIFIER = "ForVideoClassification"   # ends the class names of such models
NUM_FRAMES = ("num_frames", "frames_per_clip")   # what configs call it; the second is V-JEPA 2's
VIDEO_INPUT = "pixel_values_videos"     # what those take whose folder has a processor of videos, not images
MAX_LABELS = 20                         # said in full; of more the NEAREST few
NEAREST = 5


@dataclass(frozen=True)
class MotionRecognizer:
    """A video classifier, in float32 and eval mode."""

    name: str                  # as the user gave it
    model: PreTrainedModel
    processor: object          # the folder's own, of images or videos
    labels: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """How many frames of a clip it looks at."""
        return frames_looked_at(self.model.config)


@dataclass(frozen=True)
class ImageTextModel:
    """A CLIP, in float32 and eval mode."""

    name: str
    model: CLIPModel
    processor: object          # of images
    tokenizer: object


# ------------------------------------------------------------------------------------------------- motion

def load_motion_recognizer(name: str, device: torch.device | str = "cpu") -> MotionRecognizer:
    """Load a folder or hub id of a video classifier.

    Raises UserError if it is none, or lacks trained weights or its processor.
    """
    config = _load(name, AutoConfig)
    if not any(kind.endswith(CLASSIFIER) for kind in config.architectures or ()):
        raise UserError(f"{name}: is {_kind(config)}, not a video classifier. Name a folder or hub id of a "
                        f"VideoMAE{CLASSIFIER} or its like.")
    if frames_looked_at(config) is None:
        raise UserError(f"{name}: its config does not say {' or '.join(NUM_FRAMES)}. Name another video "
                        f"classifier, such as a VideoMAE{CLASSIFIER}.")
    model = _load_weights(name, AutoModelForVideoClassification, config, device)
    labels = tuple(config.id2label[index] for index in range(config.num_labels))
    processor = AutoVideoProcessor if model.main_input_name == VIDEO_INPUT else AutoImageProcessor
    return MotionRecognizer(name, model, _load(name, processor), labels)


def frames_looked_at(config: PreTrainedConfig) -> int | None:
    """How many frames of a clip a video classifier looks at; None where its config does not say."""
    said = [getattr(config, key, None) for key in NUM_FRAMES]
    return next((number for number in said if isinstance(number, int)), None)


def label_index(recognizer: MotionRecognizer, label: str) -> int:
    """The place of `label` among the recognizer's, letter case aside. Raises UserError if there is none."""
    known = [known.casefold() for known in recognizer.labels]
    if label.casefold() in known:
        return known.index(label.casefold())
    there = f"only {', '.join(recognizer.labels)}"
    if len(known) > MAX_LABELS:
        there = f"but {len(known)} others, the nearest {', '.join(nearest_labels(label, recognizer.labels))}"
    raise UserError(f"{recognizer.name}: knows no motion {label!r}, {there}. Name one of these, or another "
                    f"recognizer.")


def nearest_labels(label: str, labels: Sequence[str]) -> list[str]:
    """The few of `labels` spelt most like `label`, as a whole or in one of their words."""
    def likeness(known: str) -> float:
        words = (known, *known.split())
        return max(SequenceMatcher(None, word.casefold(), label.casefold()).ratio() for word in words)

    return sorted(labels, key=likeness, reverse=True)[:NEAREST]


@torch.no_grad()
def classify_motion(recognizer: MotionRecognizer, clips: Sequence[np.ndarray],
                    batch_size: int = 16) -> np.ndarray:
    """Probabilities (n k) of the labels, for uint8 clips (f h w c) each, which may differ in length and size.

    A clip is seen as `num_frames` of its frames, from the first to the last at even distances.
    """
    probabilities = [np.zeros((0, len(recognizer.labels)), np.float32)]
    for start in range(0, len(clips), batch_size):
        videos = [list(clip[even_indices(len(clip), recognizer.num_frames)])
                  for clip in clips[start : start + batch_size]]
        inputs = recognizer.processor(videos, return_tensors="pt")       # of one entry (n f c h w)
        logits = recognizer.model(**inputs.to(recognizer.model.device)).logits     # (n k)
        probabilities.append(logits.float().softmax(-1).cpu().numpy())
    return np.concatenate(probabilities)


def even_indices(num_there: int, num_wanted: int) -> np.ndarray:
    """`num_wanted` indices from the first frame to the last; short clips repeat some frames."""
    return np.linspace(0, num_there - 1, num_wanted).round().astype(int)


# --------------------------------------------------------------------------------------------------- CLIP

def load_clip(name: str, device: torch.device | str = "cpu") -> ImageTextModel:
    """Load a folder or hub id of a CLIP. Raises UserError if it is none, or lacks any part of it."""
    config = _load(name, AutoConfig)
    if not isinstance(config, CLIPConfig):
        raise UserError(f"{name}: is {_kind(config)}, not a CLIPModel. Name a folder or hub id of one.")
    model = _load_weights(name, CLIPModel, config, device)
    return ImageTextModel(name, model, _load(name, AutoImageProcessor), _load(name, AutoTokenizer))


@torch.no_grad()
def image_embeddings(clip: ImageTextModel, frames: Sequence[np.ndarray],
                     batch_size: int = 64) -> torch.Tensor:
    """Embeddings (n d) of length 1, float32 on the CPU, of uint8 frames (h w c) each."""
    parts = [clip.processor(list(frames[start : start + batch_size]), return_tensors="pt")
             for start in range(0, len(frames), batch_size)]
    return _embeddings(clip, clip.model.get_image_features, parts)


@torch.no_grad()
def text_embeddings(clip: ImageTextModel, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
    """Embeddings (n d) of length 1, float32 on the CPU; text beyond CLIP's limit is not seen."""
    limit = clip.model.config.text_config.max_position_embeddings
    parts = [clip.tokenizer(list(texts[start : start + batch_size]), padding="max_length", max_length=limit,
                            truncation=True, return_tensors="pt")
             for start in range(0, len(texts), batch_size)]
    return _embeddings(clip, clip.model.get_text_features, parts)


@torch.no_grad()
def match_captions(clip: ImageTextModel, clips: Sequence[np.ndarray], captions: Sequence[str],
                   num_frames: int = 4) -> np.ndarray:
    """Probabilities (n t) that one of `captions` and no other is that of a uint8 clip (f h w c): zero-shot.

    From the mean similarity of `num_frames` of its frames at even distances.
    """
    texts = text_embeddings(clip, captions)                                               # (t d)
    chosen = [frames[index] for frames in clips for index in even_indices(len(frames), num_frames)]
    images = rearrange(image_embeddings(clip, chosen), "(n f) d -> n f d", f=num_frames)
    similarity = (images @ texts.T).mean(1)                                               # (n t)
    return (similarity * clip.model.logit_scale.exp().cpu()).softmax(-1).numpy()


def _embeddings(clip: ImageTextModel, encode, parts: list[BatchEncoding]) -> torch.Tensor:
    rows = []
    for part in parts:
        output = encode(**part.to(clip.model.device))
        features = output if isinstance(output, torch.Tensor) else output.pooler_output   # transformers 5
        rows.append(F.normalize(features.float(), dim=-1).cpu())                          # (n d)
    return torch.cat(rows) if rows else torch.zeros(0, clip.model.config.projection_dim)


# ------------------------------------------------------------------------------------------------ loading

def _load(name: str, kind: type):
    """What `kind`.from_pretrained makes of `name`; HF_HUB_OFFLINE is honoured, no code is run."""
    folder_or_id = _check_name(name)
    what = {AutoConfig: "a transformers model", AutoImageProcessor: "an image processor",
            AutoVideoProcessor: "a video processor", AutoTokenizer: "a tokenizer"}[kind]
    try:
        with _quiet():
            return kind.from_pretrained(folder_or_id, trust_remote_code=False)
    except ImportError as error:   # such as torchvision, for a video processor
        raise UserError(f"{name}: {what} cannot be loaded from it ({_first_line(error).partition('. ')[0]}). "
                        f"Install what is missing with pip.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: {what} cannot be loaded from it ({_first_line(error)}). Name a "
                        f"transformers folder, or a hub id that can be reached.") from error


def _load_weights(name: str, kind: type, config: PreTrainedConfig,
                  device: torch.device | str) -> PreTrainedModel:
    """The model in float32, frozen. Raises UserError where weights are missing or do not fit."""
    try:
        with _quiet():
            model, report = kind.from_pretrained(_check_name(name), config=config, dtype=torch.float32,
                                                 use_safetensors=True, trust_remote_code=False,
                                                 output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{name}: its weights cannot be loaded ({_first_line(error)}). They must be "
                        f"safetensors; copy or convert the model again.") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{name}: lacks trained weights ({len(missing)}, such as {missing[0]}). Name a model "
                        f"that is whole.")
    return model.requires_grad_(False).eval().to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers silent: that it does with Pillow where torchvision is missing helps no user."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check_name(name: str) -> str:
    if not Path(name).is_dir() and not is_hub_id(str(name)):
        raise UserError(f"{name}: does not exist. Name a transformers folder or a hub id.")
    return str(name)


def _kind(config: PreTrainedConfig) -> str:
    return f"a {(config.architectures or [config.model_type])[0]}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
