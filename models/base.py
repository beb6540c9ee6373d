"""Loading a base text-to-video model, and its frozen encoders: frames -> latents, prompts -> embeddings.

Shapes: f frames, c latent channels, h w latent cells (of pixels where uint8), n tokens, d text width.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from einops import rearrange
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from models.base_folder import (
    find_adapter,
    find_base,
    kind_of_folder,
    own_scheduler,
    pipeline_index,
)
from models.base_kind import BaseKind
from models.base_parts import (
    INDEX_NAME,
    PARTS,
    WEIGHTS,
    load_network,
    loading,
    stored_dtypes,
    unet_files,
    weight_files,
    weight_variant,
)
from models.fast import use_fast_forms
from models.fingerprints import fingerprint, heads, rounded_fingerprints, unet_fingerprint
from models.lora import merge_loras
from models.tokens import load_tokenizer
from utils.errors import UserError, first_line
from utils.files import copy_whole, digest_of, file_digest, replacing, write_json
from utils.tensor_files import DTYPE_NAMES, iter_tensors, read_shapes, write_tensors

# names of a text encoder as transformers 5 writes them; 4 wants "text_model." before them, and 5 reads both
BARE = r"^((embeddings|encoder|final_layer_norm)\.)"
DECODED_SHARE, DECODED_BYTES = 1 / 16, 2 ** 26   # for decoding: of a GPU's memory; of a CPU's


@dataclass(frozen=True)
class Base:
    """A pretrained text-to-video model, in float32 on the CPU as loaded."""

    name: str                  # as the user gave it
    folder: Path
    adapter: Path | None       # folder of its motion adapter, where the UNet is assembled from two folders
    kind: BaseKind
    pipeline: DiffusionPipeline
    fingerprint: str           # of the UNet
    rounded_fingerprints: dict[str, str]   # of the UNet as fp16 has it
    adapter_name: str | None = None   # as the user gave it

    @property
    def unet(self) -> torch.nn.Module:
        return self.pipeline.unet

    @property
    def vae(self) -> AutoencoderKL:
        return self.pipeline.vae

    def record(self) -> dict[str, Any]:
        """Return what videos and exported folders say of the base."""
        adapter = {"adapter": self.adapter_name} if self.adapter_name else {}
        return {"base": self.name, "base_fingerprint": self.fingerprint, **adapter}


def load_base(name: str, fast_forms: bool = True, adapter: str | None = None) -> Base:
    """Load a base, frozen and in eval mode, its UNet in the fast forms of models/fast.py or as diffusers has
    it.

    `name` is a diffusers folder or hub id. If it is an image model, `adapter` is the folder or hub id of a
    motion adapter. Raises UserError if it is incomplete or another kind of model.
    """
    folder = find_base(name, adapter=adapter)
    adapter_folder, kind = find_adapter(adapter, folder), kind_of_folder(folder)
    diffusers_logging.set_verbosity_error()   # that the pipeline's class is deprecated helps no user
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()   # load_network names missing tensors in one line
    transformers_logging.disable_progress_bar()
    with loading(folder):
        pipeline = _load_pipeline(kind, folder, adapter_folder)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    if fast_forms:
        use_fast_forms(pipeline.unet)
    pipeline.set_progress_bar_config(disable=True)
    unet = pipeline.unet
    return Base(name, folder, adapter_folder, kind, pipeline, unet_fingerprint(unet, kind),
                rounded_fingerprints(unet.state_dict(), kind, heads(unet, kind)), adapter)


def _load_pipeline(kind: BaseKind, folder: Path, adapter: Path | None) -> DiffusionPipeline:
    """Return the pipeline of a folder, each part loaded by the class that this program knows for it.

    The classes in model_index.json are not used, because they may be in modules of another program.
    """
    return getattr(diffusers, kind.pipeline)(
        unet=kind.load_unet(folder, adapter),
        vae=load_network(AutoencoderKL, folder / "vae"),
        text_encoder=load_network(CLIPTextModel, folder / "text_encoder"),
        tokenizer=load_tokenizer(folder),
        scheduler=own_scheduler(folder, adapter),
        **dict.fromkeys(kind.empty_parts))


def encoder_digests(base: Base) -> dict[str, str]:
    """Return hashes of all that makes latents of frames and embeddings of prompts: weights and settings."""
    folder, tokenizer = base.folder, sorted((base.folder / "tokenizer").iterdir())
    return {
        "latents": digest_of([fingerprint(base.vae.state_dict().items()),
                              file_digest(folder / "vae" / "config.json")]),
        "prompt": digest_of([fingerprint(base.pipeline.text_encoder.state_dict().items()),
                             file_digest(folder / "text_encoder" / "config.json"),
                             *(file_digest(path) for path in tokenizer if path.is_file())]),
    }


def training_scheduler(base: Base) -> DDPMScheduler:
    """Return a scheduler that adds noise as the base was trained with; the base's own keeps sampling
    state."""
    return DDPMScheduler.from_config(base.pipeline.scheduler.config)


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, frames: np.ndarray) -> dict[str, torch.Tensor]:
    """Return mean and std (f c h w), float32 on the CPU, of the posterior of uint8 frames (f h w c).

    Both carry the VAE's scaling factor: a latent is mean + std * eps. They are contiguous: trained on with
    channels last, torch 2.13 dies of a segmentation fault on a CPU, in the backward pass of the first group
    norm, whose weights train while nothing before it does.
    """
    pixels = torch.from_numpy(frames).to(vae.device, vae.dtype) / 127.5 - 1
    # one frame at a time: flat memory, and a frame's latents do not depend on how many are encoded with it
    posteriors = [vae.encode(frame).latent_dist for frame in rearrange(pixels, "f h w c -> f c h w").split(1)]
    scale = vae.config.scaling_factor
    moments = {name: torch.cat([getattr(posterior, name) for posterior in posteriors])
               for name in ("mean", "std")}
    return {name: (moment * scale).float().cpu().contiguous() for name, moment in moments.items()}


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """Return the uint8 frames (f h w c) of a video's latents (c f h w); what overflowed becomes black."""
    latents = rearrange(1 / vae.config.scaling_factor * latents, "c f h w -> f c h w")
    frames = []
    for chunk in latents.split(frames_at_once(vae, latents)):
        pixels = (vae.decode(chunk).sample.float() * 0.5 + 0.5).clamp(0, 1).nan_to_num() * 255   # (n c h w)
        frames.append(rearrange(pixels.round().to(torch.uint8), "n c h w -> n h w c").cpu())
    return torch.cat(frames).numpy()


def frames_at_once(vae: AutoencoderKL, latents: torch.Tensor) -> int:
    """Return how many frames of `latents` (f c h w) are decoded together: as many as DECODED_BYTES, on a GPU
    DECODED_SHARE of its memory, will hold of activations.

    That does not depend on what is free, so a video is the same whatever else is in memory.
    """
    widths = vae.config.block_out_channels
    num_pixels = latents.shape[2] * latents.shape[3] * 4 ** (len(widths) - 1)
    # four tensors at the start of the last level, which is as wide as the one before: in, normed, out, sum
    taken = 4 * max(widths[:2]) * num_pixels * latents.element_size()
    room = DECODED_BYTES
    if latents.device.type == "cuda":
        room = DECODED_SHARE * torch.cuda.get_device_properties(latents.device).total_memory
    return max(1, int(room / taken))


@torch.no_grad()
def encode_prompt(pipeline: DiffusionPipeline, prompt: str) -> torch.Tensor:
    """Return the embedding (n d) of a prompt, float32 on the CPU, by the encoding that generation uses."""
    prompt_embeds, _ = pipeline.encode_prompt(prompt, pipeline.text_encoder.device, 1, False)
    return prompt_embeds[0].float().cpu()


def export_base(base: Base, folder: Path) -> None:
    """Write a pipeline folder that stock diffusers loads: the UNet as it is now, with low-rank updates
    merged, each tensor in the precision it has in the base's files, and copies of the base's other files.

    The other files are copies, because a library may write names that its other versions do not read. Only a
    text encoder that has such names gets those that all versions read. With a motion adapter the scheduler is
    written too, because it is not the one in the base's folder.
    """
    merge_loras(base.unet)
    dtypes = {name: dtype for dtype, name in DTYPE_NAMES.items()}
    stored = stored_dtypes(unet_files(base.folder, base.adapter))
    for name, tensor in (*base.unet.named_parameters(), *base.unet.named_buffers()):
        tensor.data = tensor.data.to(dtypes.get(stored.get(name), tensor.dtype))
    base.unet.save_config(folder / "unet")
    # on a full disk, save_pretrained raises an error of safetensors that is no OSError
    write_tensors(folder / "unet" / f"{WEIGHTS['unet']}.safetensors", base.unet.state_dict(),
                  {"format": "pt"})
    scheduler = type(base.pipeline.scheduler).__name__
    with replacing(folder / INDEX_NAME) as partial:   # in the form that diffusers gives it
        index = json.dumps(pipeline_index(base.folder, scheduler), indent=2, sort_keys=True)
        partial.write_text(f"{index}\n", encoding="utf-8")
    if base.adapter:
        base.pipeline.scheduler.save_pretrained(folder / "scheduler")
    for part in PARTS.keys() - ({"unet", "scheduler"} if base.adapter else {"unet"}):
        described = [path for path in (base.folder / part).iterdir() if path.suffix in (".json", ".txt")]
        for path in described:
            if ".safetensors.index" not in path.name:
                copy_whole(path, folder / part / path.name)
        if part in WEIGHTS:
            _copy_weights(base.folder / part, folder / part)


def _copy_weights(part_folder: Path, target: Path) -> None:
    """Copy the weights of a part under names without a variant, so that they load without naming a variant.

    The index of shards holds the names of the shards, so it is made anew.
    """
    variant = weight_variant(part_folder)
    names = {path: path.name.replace(f".{variant}", "") for path in weight_files(part_folder)}
    for path, name in names.items():
        tensors = read_shapes(path)
        if part_folder.name == "text_encoder" and any(re.match(BARE, tensor) for tensor in tensors):
            renamed = {re.sub(BARE, r"text_model.\1", tensor): values
                       for tensor, values in iter_tensors([path], tensors)}
            write_tensors(target / name, renamed, {"format": "pt"})
        else:
            copy_whole(path, target / name)
    whole = f"{WEIGHTS[part_folder.name]}.safetensors"
    if whole not in names.values():
        places = {tensor: name for name in names.values() for tensor in read_shapes(target / name)}
        write_json(target / f"{whole}.index.json", {"metadata": {}, "weight_map": places})


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turn running out of the device's memory into a UserError with `advice`."""
    try:
        yield
    except RuntimeError as error:   # torch.OutOfMemoryError of a GPU, a plain one of a CPU
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        reason = first_line(error)
        raise UserError(f"The device has too little memory ({reason}) {advice}") from error
