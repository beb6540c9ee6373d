"""What this program cannot do in the way that it was started, or with the packages that this machine has."""

import importlib.util
import os

import torch

from training.config import Config

SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"   # seconds; read by torch/distributed/launcher/api.py


def check_packages(config: Config) -> list[str]:
    """Return the optional packages that the config needs and this machine lacks."""
    needed = [(f"report_to: {config.report_to}", config.report_to)]   # named like its package
    if config.use_8bit_adam:
        needed.append(("use_8bit_adam: true", "bitsandbytes"))
    problems = [f"{key} needs the package {package}. Install it: pip install {package}"
                for key, package in needed if package and importlib.util.find_spec(package) is None]
    if config.use_8bit_adam and not torch.cuda.is_available():
        problems.append("use_8bit_adam: true needs an NVIDIA GPU, and there is none here. Set it to false.")
    return problems


def check_launch(config: Config) -> list[str]:
    """Return what this program cannot do in the way that `accelerate launch` has started it."""
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return ["DeepSpeed is not supported. configs/accelerate/zero2.yaml spreads gradients and optimizer "
                "state as its ZeRO-2 does, configs/accelerate/fsdp.yaml the weights too."]
    if not uses_fsdp():
        return []
    problems = []
    if os.environ.get("FSDP_VERSION") != "2":
        problems.append("Of FSDP, version 2 is supported. Set fsdp_version: 2, as "
                        "configs/accelerate/fsdp.yaml does.")
    if config.validation_steps:
        problems.append("validation_steps: FSDP spreads the network over the processes, so samples cannot be "
                        "rendered during training. Set it to null, and render from the checkpoints.")
    if config.use_8bit_adam:
        problems.append("use_8bit_adam: true cannot be used with FSDP. Set it to false.")
    return problems


def shutdown_remark() -> list[str]:
    """Return a note if torch's launcher, on Ctrl-C, gives the processes less time than saving may take."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or SHUTDOWN_TIMEOUT in os.environ:
        return []
    return [f"note: on Ctrl-C the launcher kills the processes after 30 seconds. A step, the samples under "
            f"way and a checkpoint may take longer: start with {SHUTDOWN_TIMEOUT}=600 before the command"]


def uses_fsdp() -> bool:
    """Say whether `accelerate launch` was asked for FSDP."""
    return _is_on("ACCELERATE_USE_FSDP")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() == "true"
