"""Every key of the training configuration, with its unit, its meaning and the values it can have.

The defaults are those of the paper's published recipe. YAML files hold what differs from the defaults.
training/config_loading.py reads and checks them by the constraints that stand here with each key.
`train_model.py --help-config` prints the comments above and behind each key as its meaning.
"""

import dataclasses
import difflib
import math
import operator
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.hub import REPO_NAME
from utils.prompts import MAX_SEED

DATASET_TYPES = ("folder", "single_video", "image", "json")
LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
                 "piecewise_constant")

COMPARISONS = (("above", "above", operator.gt), ("least", "at least", operator.ge),
               ("below", "below", operator.lt), ("most", "at most", operator.le))


def setting(default: Any, **constraints: Any) -> Any:
    """Return a dataclass field with this default; every config gets its own copy of a default that is a list.

    The constraints become the metadata of the field, for training/config_loading.py:
    choices: the values of the key, or, for a list, of its entries.
    above, least, below, most: the number must be above, at least, below, at most this.
    pattern: a regular expression that the whole text must match, and the sentence to say if it does not.
    holds: what a key of type Any or list holds: "names", "texts", "paths", "steps" or "data" (of a
        JSON file).
    is_words: the value is one word or several; a list of them becomes one text with commas.
    needed: the sentence to say if the key is empty.
    is_path: ~ and environment variables are expanded.
    as_trained: the key of train_data whose value replaces null.
    datasets: entries of dataset_types; without any of them the key has no effect.
    """
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=constraints)
    return dataclasses.field(default=default, metadata=constraints)


@dataclass
class TrainData:
    """The clips, and how training windows are cut from them."""

    # folder of exemplar clips, or one file. Several motions are learned from a list of folders, whose
    # captions say V* for the first motion, V2* for the second
    path: Any = setting(None, is_path=True, holds="paths")
    class_path: str | None = setting(None, is_path=True)  # folder of regularization clips; null: none
    width: int = setting(384, above=0)                    # pixels; with use_bucketing only the area counts
    height: int = setting(384, above=0)                   # pixels, as width
    n_sample_frames: int = setting(16, above=0)           # frames per training window
    fps: float = setting(24, above=0)  # frames per second; clips that were recorded faster are subsampled
    use_bucketing: bool = True         # keep each clip's aspect ratio; false: centre-crop to width x height
    # number of copies of every clip that are trained on too, each moved sideways by a random distance. A step
    # draws the clip or one of its copies, all equally often. From few exemplars without copies, the model
    # learns by heart where in the frame the motion happens
    num_shifts: int = setting(0, least=0)
    # how far a copy is moved at most, to the left or to the right, in widths of the frame. Beyond the edge of
    # the recorded frame, the pixels at its edge are repeated
    max_shift: float = setting(0.1, least=0, below=0.5)
    # the caption, or a list of captions, of exemplars that have none
    fallback_prompt: Any = setting([], holds="texts")
    # the caption, or a list of captions, of regularization clips that have none
    class_prompt: Any = setting([], holds="texts")
    # how timesteps are drawn; high-level favours noisy ones, low-level clean ones
    sampling: str = setting("high-level", choices=("uniform", "high-level", "low-level"))
    # all: windows (temporal means the same); spatial: single frames, for appearance
    train_weights: str = setting("all", choices=("all", "spatial", "temporal"))
    # the layers that a window of one frame goes through: all, or spatial, which skips the temporal layers.
    # Skipped layers must not train
    single_frame_layers: str = setting("all", choices=("all", "spatial"))
    allow_short_clips: bool = False  # repeat the last frame of a clip that is shorter than a window
    # number of exemplars of each motion that never train, and as many regularization clips: their loss is
    # measured every held_out_steps. The seed and the clips' names choose them
    held_out: int = setting(0, least=0)

    # of single_video: the clip; null: path
    single_video_path: str | None = setting(None, is_path=True, datasets=["single_video"])
    # of single_video: the caption; goes before a caption file
    single_video_prompt: str | None = setting(None, datasets=["single_video"])
    # of image: folder of pictures; null: path
    image_dir: str | None = setting(None, is_path=True, datasets=["image"])
    single_img_prompt: str | None = setting(None, datasets=["image"])  # of image: caption of every picture
    # of json: file that lists clips and captions; data_folders.py has the format
    json_path: str | None = setting(None, is_path=True, datasets=["json"])
    json_data: Any = setting(None, holds="data", datasets=["json"])  # of json: the content of such a file
    video_dir: str | None = setting(None, is_path=True, datasets=["json"])  # of json: folder of its clips
    vid_data_key: str = setting("video_path", datasets=["json"])  # of json: its key for the path of a clip

    # of single_video and image: read caption files; false: only the prompts of this config
    use_caption: bool = setting(True, datasets=["single_video", "image"])
    # of single_video and json: train on every n-th recorded frame; null: at the rate fps
    frame_step: int | None = setting(None, above=0, datasets=["single_video", "json"])


@dataclass
class ValidationData:
    """The videos rendered while training, through the same code as generate_pretrained.py."""

    # a file of "seed,prompt" lines, a prompt, or a list of prompts; none: no samples
    prompt: Any = setting([], holds="texts")
    negative_prompt: str = ""  # what not to show
    # frames of a video; null: as trained
    num_frames: int | None = setting(None, above=0, as_trained="n_sample_frames")
    width: int | None = setting(None, above=0, as_trained="width")    # pixels; null: as trained
    height: int | None = setting(None, above=0, as_trained="height")  # pixels; null: as trained
    num_inference_steps: int = setting(25, above=0)  # denoising steps
    # solver: dpm (DPM-Solver++, as published), ddim, euler, unipc, or base: the base's own scheduler
    sampler: str = setting("dpm", choices=("dpm", "ddim", "euler", "unipc", "base"))
    guidance_scale: float = setting(9.0, least=0)    # how strictly to follow the prompt
    batch_size: int = setting(1, above=0)  # videos rendered at once; more is faster and equal within rounding
    max_prompts: int = setting(16, above=0)  # of a longer list, only the first so many are rendered
    before_training: bool = True  # render the untuned base too, as the samples of step 0


@dataclass
class Config:
    """One training run."""

    # the base: a diffusers folder or a hub id
    pretrained_model_path: str = setting("cerspense/zeroscope_v2_576w", is_path=True,
                                         needed="Name a diffusers folder or a hub id.")
    # where the base is an image model such as Stable Diffusion 1.5: the motion adapter that makes it move, a
    # diffusers folder or a hub id
    motion_adapter_path: str | None = setting(None, is_path=True)
    output_dir: str = setting("results", is_path=True)  # parent of the run folders
    # name of the run: output_dir/{subject}-{time}
    subject: str = setting("best", pattern=(r"[^/.\0-][^/\0]*",
                                            "It names a folder: no slashes, no leading dot or dash."))
    # what V* in captions and prompts becomes; its embedding is not trained. Of several motions, a word each
    # for V*, V2*, ...: [sks, zwx]. Where train_data.path lists more folders, spare words are added.
    placeholder_token: str = setting(
        "sks", is_words=True,
        pattern=(r"[^\s,]+(,[^\s,]+)*", "It must be one word, or one for each motion: [sks, zwx]."))
    # where exemplars come from; several types are trained on together
    dataset_types: list[str] = setting(["folder"], holds="names", choices=DATASET_TYPES,
                                       needed=f"Name at least one of {', '.join(DATASET_TYPES)}.")
    extend_dataset: bool = False  # repeat the exemplars of the smaller dataset types until all have as many
    train_data: TrainData = dataclasses.field(default_factory=TrainData)  # the clips
    validation_data: ValidationData = dataclasses.field(default_factory=ValidationData)  # the samples

    # what trains: the union of named groups (cross, self, temporal, temp_attentions, temp_convs, all). GROUPS
    # in models/zeroscope.py and models/animatediff.py says which of them a base of that kind has. Any
    # other string names the modules whose name contains it.
    trainable_modules: list[str] = setting(
        ["cross", "temporal", "temp_convs"], holds="names",
        needed="Nothing would train. The paper's set: [cross, temporal, temp_convs].")
    # train low-rank updates (LoRA) of this rank, of the Linear and convolution layers in these groups; 0:
    # train the weights themselves. Low-rank updates take larger steps: about 1e-4 where weights take 5e-6.
    lora_rank: int = setting(0, least=0)
    lora_alpha: float | None = setting(None, above=0)  # update: lora_alpha / lora_rank * B A; null: lora_rank
    lora_dropout: float = setting(0.0, least=0, below=1)  # of the input of A
    prior_preservation: bool = True  # train on the regularization clips too
    prior_lambda: float = setting(0.5, least=0)  # loss = exemplar + prior_lambda * regularization
    # probability, in the temporal convolutions: diffusers has 0.1, the paper's code none
    temporal_dropout: float = setting(0.0, least=0, below=1)
    # share of the examples that train without their caption, for classifier-free guidance: guidance compares
    # with the empty prompt, which would otherwise never train. The paper has none. Source: Ho and Salimans
    # 2022, arXiv 2207.12598
    caption_dropout_rate: float = setting(0.0, least=0, below=1)
    use_offset_noise: bool = False  # noise + offset_noise_strength * randn(b, c, f, 1, 1)
    offset_noise_strength: float = setting(0.1, least=0)  # of use_offset_noise, relative to the noise

    max_train_steps: int = setting(3000, above=0)  # optimizer steps
    # exemplar windows a step, and as many regularization windows
    train_batch_size: int = setting(1, above=0)
    gradient_accumulation_steps: int = setting(1, above=0)  # batches averaged for one optimizer step
    # of everything random: the same seed gives the same run
    seed: int = setting(64, least=0, most=MAX_SEED)

    learning_rate: float = setting(5e-6, above=0)  # of AdamW, for everything that trains
    scale_lr: bool = False  # multiply learning_rate by batch, accumulation and processes
    lr_scheduler: str = setting("constant", choices=LR_SCHEDULERS)  # how the learning rate changes
    lr_warmup_steps: int = setting(0, least=0)     # optimizer steps over which it rises from zero
    lr_num_cycles: int = setting(1, above=0)       # of cosine_with_restarts: how often it starts anew
    lr_step_rules: str | None = None  # of piecewise_constant: 1:100,0.1:200,0.01 is factor:up to step
    lr_power: float = setting(1.0, above=0)        # of polynomial: its exponent
    adam_beta1: float = setting(0.9, least=0, below=1)    # decay of the running mean of gradients
    adam_beta2: float = setting(0.999, least=0, below=1)  # decay of the running mean of squared gradients
    adam_weight_decay: float = setting(1e-2, least=0)     # decoupled, times the learning rate
    adam_epsilon: float = setting(1e-8, above=0)   # keeps the division by small gradients finite
    # norm to which the gradient of all trained tensors is clipped
    max_grad_norm: float = setting(1.0, above=0)
    use_8bit_adam: bool = False  # needs the package bitsandbytes and an NVIDIA GPU

    # what the network computes in; null: the best that the device has
    mixed_precision: str | None = setting(None, choices=("no", "fp16", "bf16"))
    # recompute activations in the backward pass: slower by a third, far less memory. null: only where the
    # activations would not fit into memory
    gradient_checkpointing: bool | None = None

    # optimizer steps after which to write a checkpoint to resume from: a list, or one number for every so
    # many steps
    checkpointing_steps: Any = setting([1000, 2000, 3000], holds="steps")
    # optimizer steps after which to render validation_data.prompt, as checkpointing_steps.
    # validation_data.before_training is about step 0
    validation_steps: Any = setting([1000, 2000, 3000], holds="steps")
    held_out_steps: int = setting(50, above=0)  # measure the loss of train_data.held_out every so many steps
    keep_checkpoints: int | None = setting(None, above=0)  # number of newest checkpoints to keep; null: all
    motion_dtype: str = setting("fp16", choices=("fp16", "fp32"))  # of motion.safetensors; fp32 doubles it
    # the same as --resume: latest, or the folder of a run; null: a new run
    resume_from_checkpoint: str | None = setting(None, is_path=True)
    # what the frozen encoders return is kept here; null: output_dir/cache
    cached_latent_dir: str | None = setting(None, is_path=True)
    # USER/NAME on the Hugging Face hub, to which motion.safetensors goes at the end, with a model card
    push_to_hub: str | None = setting(None, pattern=(REPO_NAME, "It has the form USER/NAME."))
    # a tracker, through accelerate; log.jsonl is always written
    report_to: str | None = setting(None, choices=("tensorboard", "wandb"))


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str   # with its section: train_data.fps
    kind: Any   # its type
    default: Any
    constraints: typing.Mapping[str, Any]

    @property
    def is_optional(self) -> bool:
        """Say whether the key can be null."""
        return types.NoneType in typing.get_args(self.kind)

    @property
    def is_text(self) -> bool:
        return self.kind in (str, str | None)

    @property
    def is_text_list(self) -> bool:
        """Say whether the key holds a list of texts, which can also be given as one text."""
        return self.constraints.get("holds") in ("names", "texts", "paths")

    def fault(self, value: Any) -> str:
        """Return what is wrong with a value of the right type by the constraints of the key, or nothing."""
        limits = self.constraints
        if value is None and self.is_optional:
            return ""
        if not value and "needed" in limits:
            return f" is {'empty' if limits.get('holds') else 'not set'}. {limits['needed']}"
        for name in (value if limits.get("holds") else [value]) if "choices" in limits else ():
            if name not in limits["choices"]:
                nearest = difflib.get_close_matches(str(name), limits["choices"], n=1)
                verb, can = ("has", "can have") if limits.get("holds") else ("is", "can be")
                return (f" {verb} {name!r}. It {can} {', '.join(limits['choices'])}."
                        + "".join(f" Did you mean {choice}?" for choice in nearest))
        if "pattern" in limits and not re.fullmatch(limits["pattern"][0], value):
            return f" is {value!r}. {limits['pattern'][1]}"
        bounds = [(word, limits[name], holds) for name, word, holds in COMPARISONS if name in limits]
        is_finite = not bounds or -math.inf < value < math.inf
        if not is_finite or not all(holds(value, limit) for _, limit, holds in bounds):
            wanted = " and ".join(f"{word} {limit or 'zero'}" for word, limit, _ in bounds)
            return f" is {value}. It must be {wanted}."
        return ""


def is_due(step: int, steps: int | list[int] | None) -> bool:
    """Say whether `step` is one of `steps`, a list of steps or one number for every so many."""
    if not steps:
        return False
    return step % steps == 0 if isinstance(steps, int) else step in steps


def num_due(steps: int | list[int] | None, max_train_steps: int) -> int:
    """Return how many of the steps 1..max_train_steps are due."""
    if not steps:
        return 0
    if isinstance(steps, int):
        return max_train_steps // steps
    return sum(0 < step <= max_train_steps for step in set(steps))


def _all_keys(section: type = Config, prefix: str = "") -> Iterator[Key]:
    defaults = section()
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.type):
            yield from _all_keys(field.type, f"{field.name}.")
        else:
            yield Key(prefix + field.name, field.type, getattr(defaults, field.name), field.metadata)


KEYS = {key.name: key for key in _all_keys()}   # every key, sections entered, in the order of its definition
