"""The model card of a motion on the Hugging Face hub: README.md of its repository.

It says what was trained on which base, how to use it here and in diffusers, with which settings it was
trained, and shows the samples and scores of the run.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.base_folder import HUB_ALIASES, is_hub_id
from models.motion_weights import MotionInfo
from training.config import Config
from training.config_loading import flat_config
from training.run_folder import MOTION_NAME
from utils.prompts import Prompt, identifier, tokens_in, with_identifiers
from utils.wording import table

GRID_NAME = "samples.gif"
TAGS = ("text-to-video", "diffusers", "motion-customization")
SETTINGS = ("max_train_steps", "learning_rate", "lr_scheduler", "train_batch_size", "prior_preservation",
            "prior_lambda", "mixed_precision", "seed", "train_data.width", "train_data.height",
            "train_data.n_sample_frames", "train_data.fps", "train_data.sampling", "train_data.train_weights")


def model_card(name: str, info: MotionInfo, config: Config, samples: Sequence[Prompt],
               scores: Mapping[str, Any]) -> str:
    """Return the card of the motion that is at `name` (USER/NAME) on the hub.

    `samples`: the prompts of the videos in the grid, in its order. `scores`: the measures of scores.json.
    """
    info = replace(info, base=HUB_ALIASES.get(info.base, info.base))
    prompt = example_prompt(info, samples)
    parts = [front_matter(info, config), f"# {name.split('/')[1]}", summary(info, config), "## Use it",
             in_this_program(name, info, prompt), in_diffusers(name, info, config, prompt)]
    if samples:
        rows = [(number, prompt.text.replace("|", "\\|"), prompt.seed)
                for number, prompt in enumerate(samples, start=1)]
        parts += ["## Samples", f"![samples]({GRID_NAME})", listing(("", "prompt", "seed"), rows)]
    if scores:
        rows = [(measure, text_of(found), found["num"]) for measure, found in scores.items() if found["num"]]
        parts += ["## Scores", "Means with their 95 % intervals, by evaluate_motion.py.",
                  listing(("measure", "mean", "videos or prompts"), rows)]
    parts += ["## Training", listing(("setting", "value"), [("trainable_modules", ", ".join(info.groups)),
                                                            *settings(config)]),
              "config.yaml has every key. Versions: "
              + ", ".join(f"{library} {version}" for library, version in info.versions.items()) + ".",
              "## Licence",
              "None is stated here. Whoever uses these weights also needs the licence of the base."]
    return "\n\n".join(parts) + "\n"


def front_matter(info: MotionInfo, config: Config) -> str:
    """Return the block of YAML that the hub reads. A base that is a folder has no name there."""
    from huggingface_hub import ModelCardData

    bases = [base for base in (info.base, config.motion_adapter_path) if base and is_hub_id(base)]
    data = ModelCardData(base_model=bases or None, library_name="diffusers", pipeline_tag="text-to-video",
                         tags=[*TAGS, *["lora"] * (info.lora is not None)])
    return f"---\n{data.to_yaml()}\n---"


def summary(info: MotionInfo, config: Config) -> str:
    names = " and ".join(f"`{token}`" for token in tokens_in(info.placeholder_token))
    return (f"A motion for the text-to-video model `{info.base}`, learned with *Customizing Motion in "
            f"Text-to-Video Diffusion Models* ([arXiv 2312.04966](https://arxiv.org/abs/2312.04966)) in "
            f"{info.step} steps, at {info.fps:g} frames per second. Prompts ask for it by the word {names}. "
            f"`{MOTION_NAME}` holds "
            + weights_in_words(info, config))


def weights_in_words(info: MotionInfo, config: Config) -> str:
    """Return what the file of motion weights holds."""
    if not info.lora:
        return "the tuned tensors of the UNet alone."
    lora = f"low-rank updates (LoRA) of rank {info.lora.rank}"
    return f"{lora}." if config.lora_rank else f"{lora}, made of the whole weights that were trained."


def in_this_program(name: str, info: MotionInfo, prompt: str) -> str:
    words = ", ".join(f"{identifier(number)} stands for `{token}`"
                      for number, token in enumerate(tokens_in(info.placeholder_token), start=1))
    prompt = with_identifiers(prompt, info.placeholder_token)
    command = shlex.join(["python", "generate_pretrained.py", "-m", name, "-o", "outputs", "-p", prompt])
    moved = "" if is_hub_id(info.base) else " The base is a folder: say where you have it with `--base`."
    return f"In the program that made it ({words}):{moved}\n\n    {command}"


def in_diffusers(name: str, info: MotionInfo, config: Config, prompt: str) -> str:
    shown = config.validation_data
    return f"""In diffusers:

```python
{loading(info.base, config.motion_adapter_path)}

{applying(name, is_lora=info.lora is not None)}
frames = pipe({prompt!r}, num_frames={shown.num_frames},
              width={shown.width}, height={shown.height},
              num_inference_steps={shown.num_inference_steps}).frames[0]
```"""


def loading(base: str, adapter: str | None) -> str:
    """Return the lines that load the base in diffusers."""
    if adapter is None:
        return f"""from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained({base!r})"""
    return f"""from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

adapter = MotionAdapter.from_pretrained({adapter!r})
pipe = AnimateDiffPipeline.from_pretrained({base!r}, motion_adapter=adapter)
pipe.scheduler = DDIMScheduler.from_config(
    pipe.scheduler.config, beta_schedule="linear", timestep_spacing="linspace", clip_sample=False)"""


def applying(name: str, is_lora: bool) -> str:
    """Return the lines that apply the motion to a pipeline of diffusers."""
    if is_lora:
        return f"""from diffusers import UNet3DConditionModel
from diffusers.loaders import PeftAdapterMixin

if isinstance(pipe.unet, UNet3DConditionModel):   # diffusers itself has no LoRA for this class
    pipe.unet.__class__ = type("UNetWithLora", (UNet3DConditionModel, PeftAdapterMixin), {{}})
pipe.load_lora_weights({name!r}, weight_name="{MOTION_NAME}")"""
    return f"""from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

motion = load_file(hf_hub_download({name!r}, "{MOTION_NAME}"))
pipe.unet.load_state_dict(motion, strict=False)"""


def example_prompt(info: MotionInfo, samples: Sequence[Prompt]) -> str:
    """Return a prompt that asks for the motion."""
    asking = [prompt.text for prompt in samples
              if with_identifiers(prompt.text, info.placeholder_token) != prompt.text]
    return asking[0] if asking else f"a person doing the {tokens_in(info.placeholder_token)[0]} motion"


def settings(config: Config) -> list[tuple[str, Any]]:
    """Return the settings that a reader asks for first."""
    return [(key, value) for key, value in flat_config(config).items() if key in SETTINGS]


def listing(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join(table(header, rows))


def text_of(found: Mapping[str, Any]) -> str:
    """Return a mean and its interval, as scores.json has them."""
    interval = "" if found["low"] is None else f" ({found['low']:.3g} to {found['high']:.3g})"
    return f"{found['mean']:.3g}{interval}"
