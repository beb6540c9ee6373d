"""Every key of the training configuration, with its unit and meaning.

Defaults are those of the paper's published recipe; YAML files hold differences, which training/config_loading.py
reads and checks.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainData:
    """The clips, and how training windows are cut from them."""

    path: str | None = None        # exemplar clips: a folder; a file for dataset_types: [single_video]
    class_path: str | None = None  # regularization clips; null trains without them and says so
    width: int = 384               # pixels; with use_bucketing only the area width * height counts
    height: int = 384              # pixels
    n_sample_frames: int = 16      # frames per training window
    fps: float = 24                # frames per second; clips recorded faster are subsampled
    use_bucketing: bool = True     # keep each clip's aspect ratio; false: centre-crop to width x height
    fallback_prompt: Any = field(default_factory=list)  # caption, or list of them, of exemplars without one
    class_prompt: Any = field(default_factory=list)  # the same for regularization clips
    sampling: str = "high-level"   # timesteps: uniform, high-level (favours noisy), low-level (favours clean)
    train_weights: str = "all"     # all; spatial: train on single frames, for appearance
    allow_short_clips: bool = False  # repeat the last frame of clips that are shorter than a window


@dataclass
class ValidationData:
    """The videos rendered while training, through the same code as generate_pretrained.py."""

    # a file of "seed,prompt" lines, a prompt, or a list of prompts; none: no samples
    prompt: Any = field(default_factory=list)
    negative_prompt: str = ""      # what not to show
    num_frames: int | None = None  # frames per video; null: train_data.n_sample_frames
    width: int | None = None       # pixels; null: train_data.width
    height: int | None = None      # pixels; null: train_data.height
    num_inference_steps: int = 25  # denoising steps
    sampler: str = "dpm"           # solver: dpm (as published), ddim, euler, unipc, base (the base's own)
    guidance_scale: float = 9.0    # how strictly to follow the prompt
    batch_size: int = 1            # videos rendered at once; more is faster and equal within rounding
    max_prompts: int = 16          # of a longer list, only the first so many are rendered while training
    before_training: bool = True   # render the untuned base too, as the samples of step 0


@dataclass
class Config:
    """One training run."""

    pretrained_model_path: str = "cerspense/zeroscope_v2_576w"  # base: diffusers folder or hub id
    output_dir: str = "results"    # parent of the run folders
    subject: str = "best"          # name of the run: output_dir/{subject}-{time}
    placeholder_token: str = "sks"  # what V* in captions and prompts becomes; its embedding is not trained
    dataset_types: list[str] = field(default_factory=lambda: ["folder"])  # folder, single_video, image
    train_data: TrainData = field(default_factory=TrainData)  # the clips
    validation_data: ValidationData = field(default_factory=ValidationData)  # the samples

    # what trains: the union of named groups (cross, self, temporal, temp_attentions, temp_convs, all); any
    # other string names the modules whose name contains it
    trainable_modules: list[str] = field(default_factory=lambda: ["cross", "temporal", "temp_convs"])
    prior_preservation: bool = True  # train on the regularization clips too
    prior_lambda: float = 0.5      # loss = exemplar + prior_lambda * regularization
    temporal_dropout: float = 0.0  # in the temporal convolutions; diffusers has 0.1, the paper's code none
    use_offset_noise: bool = False  # noise + strength * randn(b, c, f, 1, 1)
    offset_noise_strength: float = 0.1  # that strength

    max_train_steps: int = 3000    # optimizer steps
    train_batch_size: int = 1      # exemplar windows a step, and as many regularization windows
    gradient_accumulation_steps: int = 1  # batches whose gradients are averaged for one optimizer step
    seed: int = 64                 # of everything random; the same seed gives the same run

    learning_rate: float = 5e-6    # of AdamW, for all that trains
    scale_lr: bool = False         # multiply learning_rate by batch, accumulation and processes
    # constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0       # optimizer steps
    lr_num_cycles: int = 1         # of cosine_with_restarts
    lr_step_rules: str | None = None  # of piecewise_constant: 1:100,0.1:200,0.01 is factor:up to step
    lr_power: float = 1.0          # of polynomial
    adam_beta1: float = 0.9        # decay of the running mean of gradients
    adam_beta2: float = 0.999      # decay of the running mean of their squares
    adam_weight_decay: float = 1e-2  # decoupled, times the learning rate
    adam_epsilon: float = 1e-8     # keeps the division by small gradients finite
    max_grad_norm: float = 1.0     # the gradient of all trained tensors together is clipped to this norm
    use_8bit_adam: bool = False    # needs the package bitsandbytes and an NVIDIA GPU

    mixed_precision: str | None = None  # no, fp16, bf16; null: the best the device has
    # recompute activations in the backward pass: slower by a third, far less memory; null: where they would
    # not fit otherwise
    gradient_checkpointing: bool | None = None

    # when to write a checkpoint to resume from, or to render validation_data.prompt: a list of steps, or one
    # number for every so many steps. validation_data.before_training is about step 0.
    checkpointing_steps: Any = field(default_factory=lambda: [1000, 2000, 3000])  # of saving
    validation_steps: Any = field(default_factory=lambda: [1000, 2000, 3000])  # of rendering
    keep_checkpoints: int | None = None  # the newest ones, older are removed; null: all
    motion_dtype: str = "fp16"     # of motion.safetensors; fp32 is twice the size
    resume_from_checkpoint: str | None = None  # null, latest, or the folder of a run; the same as --resume
    cached_latent_dir: str | None = None  # null: output_dir/cache. Caching is always on and keyed by content
    report_to: str | None = None   # tensorboard or wandb, through accelerate; log.jsonl is always written


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
