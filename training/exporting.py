"""Learned motions written for other programs: a pipeline folder, a LoRA file, a motion LoRA for ComfyUI."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# torch and diffusers are imported in the functions that use them: wrong arguments should not wait for them
from training.sources import EXPORT_NAME, Source
from utils.errors import UserError
from utils.files import check_writable, replacing_folder, write_json

if TYPE_CHECKING:
    from models.base import Base


def check_export(folder: Path) -> list[str]:
    """Return what keeps an exported pipeline from being written to `folder`."""
    real = Path(os.path.realpath(folder))
    if os.path.exists(real):
        if not real.is_dir() or any(real.iterdir()):
            return [f"{folder}: is there already and not an empty folder. Name a new one."]
        if real == Path.cwd() or real.is_mount():
            return [f"{folder}: is the current folder or a disk of its own, which cannot be replaced. Name a "
                    f"new folder in it."]
    return check_writable(real.parent)


def check_lora_file(rank: str | None, path: Path) -> list[str]:
    """Return what is wrong with RANK and FILE of a LoRA to be written."""
    problems = []
    if rank is not None and not (rank.isdecimal() and int(rank)):
        problems.append(f"--export-lora {rank}: the rank must be a whole number above zero, such as 16.")
    if path.suffix != ".safetensors" or path.exists():
        problems.append(f"{path}: name a new file that ends in .safetensors.")
    return problems + check_writable(path.absolute().parent)


def export(base: "Base", folder: Path, made_with: dict[str, Any]) -> None:
    """Write a pipeline folder that stock diffusers loads, and `made_with`: what it is and how to render it.

    The tensors that the motions did not change are equal to the tensors in the base's files.
    """
    from models.base import export_base

    with replacing_folder(folder) as partial:
        export_base(base, partial)
        write_json(partial / EXPORT_NAME, made_with)   # what this is; diffusers ignores it
    print(f"exported: {folder}\nload it with\n  DiffusionPipeline.from_pretrained({str(folder)!r})")


def export_lora_file(source: Source, rank: str | None, path: Path) -> None:
    """Write the one motion of `source` as a LoRA file: the LoRA of this rank that is nearest to its whole
    weights, or, where `rank` is None, its own LoRA as a motion LoRA for ComfyUI."""
    from tqdm import tqdm

    from models.base import load_base
    from models.lora_exports import export_comfy, export_lora

    if len(source.motions) != 1:
        raise UserError("--export-lora and --export-comfy write the LoRA of one motion. Name it with -m.")
    (motion,), base = source.motions, load_base(source.base, adapter=source.adapter)
    if rank:
        report = export_lora(base.unet, base.fingerprint, motion.path, int(rank), path,
                             motion.strength, lambda tensors: tqdm(tensors, desc="decomposing",
                                                                   dynamic_ncols=True))
    else:
        report = export_comfy(base.unet, base.fingerprint, motion.path, path, motion.strength)
    print(f"{report}\nexported: {path}")
