"""Measures how many steps each sampler needs on the bundled base.

    python -m studies.samplers --out outputs/samplers

Everyday prompts are rendered with the same seeds by every sampler. The error is the mean absolute difference
between its latents and those of dpm in 100 steps, in units of the reference's standard deviation. The bundled
recognizers then say in how many videos the motion and the character asked for are seen. Prints a row of a
markdown table for each way as soon as it is measured. The latents stay in --out, so the same command
continues an interrupted measurement. Shapes: n videos, c channels, f frames, h w latent cells.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from evaluation.recognizing import load_clip, load_motion_recognizer
from models.base import Base, decode_latents, load_base
from puppets import world
from puppets.measure_base import Question, ask, see
from puppets.recognizer_labels import shown_labels
from rendering.samplers import SAMPLERS
from rendering.sampling import Rendering, denoise
from utils.arguments import fixed_seed, positive
from utils.commands import CLIP, RECOGNIZER, ROOT
from utils.errors import plain_errors, run_script
from utils.files import digest_of
from utils.prompts import Prompt
from utils.tensor_files import read_tensors, write_tensors
from utils.wording import table

REFERENCE = Rendering(world.FRAME_SIZE, world.FRAME_SIZE, world.CLIP_FRAMES, 100, 4.0, sampler="dpm")


def main() -> None:
    args = parse_args()
    base, questions = load_base(str(ROOT / "models" / "puppet-theatre")), ask(args.num, args.seed)
    base.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    ways = [REFERENCE, *(replace(REFERENCE, sampler=sampler, num_inference_steps=num_steps)
                         for sampler in args.samplers for num_steps in args.steps)]
    reference, header = None, ["sampler", "steps", "error", "motion right", "character right"]
    print("\n".join(table(header, [])), flush=True)
    for way in ways:
        latents = render_latents(base, questions, way, args)                          # (n c f h w)
        reference = latents if reference is None else reference
        error = ((latents - reference).abs().mean() / reference.std()).item()
        right = [f"{num} of {args.num}" for num in judge(base.vae, latents, questions)]
        print(*table([way.sampler, way.num_inference_steps, f"{error:.3f}", *right], [])[:1], flush=True)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--num", type=positive(int), default=16, help="prompts (default: 16)")
    add("--seed", type=fixed_seed, default=0, help="of the prompts and the noise")
    add("--samplers", nargs="+", choices=SAMPLERS, default=["dpm", "ddim", "unipc", "euler"])
    add("--steps", nargs="+", type=positive(int), default=[10, 15, 20, 25, 50])
    add("--batch-size", type=positive(int), default=8)
    add("--out", type=Path, required=True, help="folder for the latents of the videos rendered so far")
    return parser.parse_args()


def render_latents(base: Base, questions: list[Question], way: Rendering,
                   args: argparse.Namespace) -> torch.Tensor:
    """Return the latents (n c f h w) of a video for each question, float32 on the CPU."""
    prompts = [Prompt(question.seed, question.text) for question in questions]
    batches = []
    for first in range(0, len(prompts), args.batch_size):
        batch = prompts[first : first + args.batch_size]
        # the name is all that the latents depend on
        made_of = digest_of([base.fingerprint, asdict(way), [[prompt.seed, prompt.text] for prompt in batch]])
        path = args.out / f"{way.sampler}-{way.num_inference_steps}-{made_of[:16]}.safetensors"
        if not path.exists():
            write_tensors(path, {"latents": denoise(base.pipeline, batch, way).float().cpu()})
        batches.append(read_tensors(path)["latents"])
    return torch.cat(batches)


def judge(vae, latents: torch.Tensor, questions: list[Question]) -> tuple[int, int]:
    """Return in how many videos the motion asked for is seen, and in how many the character."""
    frames = np.stack([decode_latents(vae, video.to(vae.device)) for video in latents])   # (n f h w c)
    seen, _ = see(load_motion_recognizer(str(RECOGNIZER)), load_clip(str(CLIP)), frames)
    shown = shown_labels([question.scene for question in questions])
    return tuple(int((seen[name] == shown[name]).sum()) for name in ("motion", "character"))


if __name__ == "__main__":
    run_script(main)
