"""LoRA in a network: peft's layers beside the network's own, to train them, to render with them, to merge
them.

The network's weights do not change: each layer adds its low-rank update to its output, the same arithmetic
as diffusers' own when it loads the file. See models/lora_files.py for the matrices and the file.
"""

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from models.lora_files import MATRICES, PREFIX, Lora, all_matrices

TRAINED_ADAPTER = "motion"


def add_trainable_lora(unet: nn.Module, names: list[str], lora: Lora,
                       generator_for: Callable[[str], torch.Generator]) -> dict[str, nn.Parameter]:
    """Freeze `unet`, give the layers of the weights `names` low-rank updates, and return their matrices by
    name.

    A is drawn by `generator_for(layer)` as peft draws it, and B is zero, so that the network starts as the
    base. Nothing else is drawn.
    """
    matrices = {}
    for key, shape in all_matrices(base_shapes(unet), names, lora.rank).items():
        matrices[key] = torch.zeros(shape)
        if ".lora_A." in key:
            layer = key.partition(".lora_A.")[0]
            nn.init.kaiming_uniform_(matrices[key], a=math.sqrt(5), generator=generator_for(layer))
    unet.requires_grad_(False)
    _add_layers(unet, matrices, lora, TRAINED_ADAPTER)
    for layer in lora_layers(unet):
        layer.set_adapter(TRAINED_ADAPTER)
        layer.cast_input_dtype_enabled = False   # autocast casts; peft would make a copy in float32 before
    return {name: parameter for name, parameter in unet.named_parameters()
            if any(f".{matrix}." in name for matrix in MATRICES)}


def apply_lora(unet: nn.Module, tensors: Mapping[str, Tensor], lora: Lora, strength: float,
               adapter: str) -> None:
    """Add the low-rank updates of a file, times `strength`, beside the low-rank updates `unet` already has.

    `tensors`: the file's tensors, checked by `lora_misfits`. `adapter`: a name that `unet` does not have yet.
    """
    _add_layers(unet, {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}, lora, adapter)
    for layer in lora_layers(unet):
        layer.set_adapter(list(unet.peft_config), inference_mode=True)
        layer.set_scale(adapter, strength)
    unet.eval()


def merge_loras(unet: nn.Module) -> None:
    """Add all low-rank updates to the weights of `unet`, which then has the layers it was loaded with."""
    for layer in lora_layers(unet):
        layer.merge()
    recurse_remove_peft_layers(unet)


def lora_layers(unet: nn.Module) -> list[BaseTunerLayer]:
    """Return the layers that have low-rank updates."""
    return [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]


def base_shapes(unet: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the network's own weights, under the names they have without low-rank updates."""
    return {name.replace(".base_layer.", "."): tuple(parameter.shape)
            for name, parameter in unet.named_parameters()
            if not any(f".{matrix}." in name for matrix in MATRICES)}


def _add_layers(unet: nn.Module, matrices: Mapping[str, Tensor], lora: Lora, adapter: str) -> None:
    layers = sorted({key.partition(".lora_")[0] for key in matrices})
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")   # several files are meant
        # low_cpu_mem_usage: peft then draws no values of its own, which would be replaced at once
        inject_adapter_in_model(config, unet, adapter, state_dict=dict(matrices), low_cpu_mem_usage=True)
    set_peft_model_state_dict(unet, dict(matrices), adapter, low_cpu_mem_usage=True)
