"""Makes the bundled recognizers, models/puppet-recognizers, from clips of puppets/theatre.py only.

A VideoMAE names the motion of a clip. A CLIP tells character, number and place of a frame. They are made to
judge rendered videos, so the drawn frames they are trained on are made worse (puppets/degrading.py). The same
command continues a stage from its last checkpoint in --work-dir. `export` writes averaged weights as
transformers folders. `check` measures them (puppets/check_recognizers.py) and writes the model cards.
`import` makes a new work folder from --export-dir, with steps and optimizers at their start.

    export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
    python -m puppets.train_recognizers --work-dir WORK --stage motion
    python -m puppets.train_recognizers --work-dir WORK --stage clip
    python -m puppets.train_recognizers --work-dir WORK --stage export
    python -m puppets.train_recognizers --work-dir WORK --stage check

Shapes: n clips, b of a batch, f frames, h w c pixels and colours, k labels, d width of CLIP's embeddings.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor, VideoMAEForVideoClassification

from puppets import recognizer_examples as examples
from puppets import recognizer_networks as networks
from puppets.check_recognizers import check
from puppets.degrading import degrade, some_of, spoil_latents, to_unit_pixels
from puppets.model_cards import write_card
from puppets.recognizer_labels import MOTIONS, recognizer_words, write_frame_caption
from puppets.tokenizer import build_tokenizer, tokenize, write_vocabulary
from puppets.training_run import (
    Run,
    Shards,
    build_optimizers,
    cosine_rate,
    describe_machine,
    load_average,
    save_untrained,
)
from utils.arguments import fixed_seed, not_negative, positive
from utils.errors import UserError, plain_errors, run_script
from utils.files import write_json

WHITENING_CLIPS = 256
SPOILED_SHARE = 0.6   # of the clips that are made worse: how many of them get errors in their latents
# A recognizer that begins from nothing sees frames as drawn up to the first of these steps, and from the
# second on nearly all frames are made worse. With worse frames from the start only 32 % of motions were right
# after 1,000 steps.
EASY_STEPS = (200, 800)
OPTIMIZATION = {"faster": 3, "weight_decay": 0.05, "betas": (0.9, 0.98)}


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("--stage", choices=["import", "motion", "clip", "export", "check"], required=True)
    parser.add_argument("--work-dir", type=Path, required=True, help="checkpoints, drawn clips and logs")
    parser.add_argument("--minutes", type=positive(float), default=math.inf,
                        help="save and stop after so long")
    parser.add_argument("--steps", type=positive(int), help="last step of the stage (motion 2000, clip 800)")
    parser.add_argument("--batch-size", type=positive(int), help="clips (motion, 32) or frames (clip, 128)")
    parser.add_argument("--easy-steps", type=not_negative(int), nargs=2, default=EASY_STEPS,
                        metavar=("FIRST", "LAST"),
                        help="steps (motion) between which more and more clips are made worse, until all are "
                             "(default: 200 800). After `import`: 0 1")
    parser.add_argument("--first-shards", type=positive(int), default=2,
                        help="files of 1,024 drawn clips to begin with (default: 2). After `import`: 20, "
                             "because a network that was trained before soon learns two files by heart")
    parser.add_argument("--learning-rate", type=positive(float), default=1e-3, help="highest (default: 1e-3)")
    parser.add_argument("--checkpoint-steps", type=positive(int), default=250)
    parser.add_argument("--mixed-precision", choices=["no", "bf16"], default="bf16")
    parser.add_argument("--export-dir", type=Path, default=Path("models/puppet-recognizers"))
    parser.add_argument("--seed", type=fixed_seed, default=64,
                        help="of weights, and of how clips are made worse")
    args = parser.parse_args()
    first, last = args.easy_steps
    if not first < last:
        parser.error("--easy-steps FIRST LAST: LAST must be more than FIRST")
    return args


def main() -> None:
    args = parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if args.stage == "motion":
        train_motion(accelerator, args, args.steps or 2000, args.batch_size or 32)
    elif args.stage == "clip":
        train_clip(accelerator, args, args.steps or 800, args.batch_size or 128)
    elif args.stage == "import":
        import_recognizers(args.work_dir, args.export_dir)
    elif args.stage == "export":
        export(args.work_dir, args.export_dir)
    else:
        check(args.export_dir)


def randomness(seed: int, stage: str, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """Return the random generators of a step, the same whether or not the run was stopped before."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return np.random.default_rng((seed, len(stage), step)), generator


# ------------------------------------------------------------------------------------------------- motion

def train_motion(accelerator: Accelerator, args: argparse.Namespace, num_steps: int,
                 batch_size: int) -> None:
    """Train the classifier. The rate falls along a cosine to 0 at the last step."""
    torch.manual_seed(args.seed)
    shards = Shards(args.work_dir / "clips", examples.draw_motion_shard, examples.SHARD_CLIPS,
                    args.first_shards)
    model = networks.build_classifier(MOTIONS)
    networks.whiten_tubelets(model, to_unit_pixels(shards[0]["frames"][:WHITENING_CLIPS]) * 2 - 1)
    optimizers = build_optimizers(model, **OPTIMIZATION)
    run = Run(accelerator, args, "motion", model, *optimizers, batch_size=batch_size)
    spoil = partial(spoil_latents, vae=examples.load_vae())
    losses, hits = [], []
    while run.step < num_steps and run.has_time():
        rng, generator = randomness(args.seed, "motion", run.step)
        frames, labels = shards.draw("frames", "labels", num=batch_size, step=run.step, rng=rng)
        frames, target = examples.with_stills(frames, labels, rng)                               # (b k)
        first, last = args.easy_steps
        share = min(1, max(0, (run.step - first) / (last - first)))
        with accelerator.autocast():
            pixels = some_of(to_unit_pixels(frames), SPOILED_SHARE * share, spoil, generator)    # (b f c h w)
        pixels = degrade(pixels, generator, share) * 2 - 1
        logits = run.model(pixel_values=pixels.to(run.device)).logits.float()                    # (b k)
        loss = F.cross_entropy(logits, target.to(run.device))
        rate = cosine_rate(args.learning_rate, run.step, num_steps, num_warmup=50)
        run.update(loss, rate, average_decay=0.995)
        losses.append(loss.item())
        hits.append((logits.argmax(-1).cpu() == target.argmax(-1)).float().mean().item())
        if run.step % 25 == 0:
            run.log(loss=np.mean(losses[-25:]), accuracy=np.mean(hits[-25:]))
    run.save()


# --------------------------------------------------------------------------------------------------- clip

def train_clip(accelerator: Accelerator, args: argparse.Namespace, num_steps: int, batch_size: int) -> None:
    """Train CLIP on single frames. Every caption that is true of a frame counts as a match."""
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(recognizer_words())
    shards = Shards(args.work_dir / "frames", examples.draw_frame_shard, examples.SHARD_CLIPS,
                    args.first_shards)
    model = networks.build_clip(tokenizer)
    networks.whiten_patches(model, to_unit_pixels(shards[0]["frames"][:WHITENING_CLIPS])[:, 0] * 2 - 1)
    optimizers = build_optimizers(model, **OPTIMIZATION)
    run = Run(accelerator, args, "clip", model, *optimizers, batch_size=batch_size)
    losses, hits = [], []
    while run.step < num_steps and run.has_time():
        rng, generator = randomness(args.seed, "clip", run.step)
        frames, shown = shards.draw("frames", "shown", num=batch_size, step=run.step, rng=rng)   # (b 3)
        moments = torch.from_numpy(rng.integers(frames.shape[1], size=batch_size))
        frames = frames[torch.arange(batch_size), moments, None]                                 # (b 1 h w c)
        pixels = degrade(to_unit_pixels(frames), generator)[:, 0] * 2 - 1                        # (b c h w)
        captions, says = zip(*(write_frame_caption(examples.scene_of(row), rng) for row in shown.tolist()))
        is_true = matches(shown, torch.tensor(says)).to(run.device)                              # (b b)
        input_ids = tokenize(tokenizer, list(captions)).to(run.device)
        output = run.model(input_ids=input_ids, pixel_values=pixels.to(run.device))
        logits = output.logits_per_image.float()                                                 # (b b)
        loss = (match_loss(logits, is_true) + match_loss(logits.T, is_true.T)) / 2
        rate = cosine_rate(args.learning_rate, run.step, num_steps, num_warmup=50)
        run.update(loss, rate, average_decay=0.995)
        losses.append(loss.item())
        best = logits.argmax(-1, keepdim=True)
        hits.append(is_true.gather(1, best).float().mean().item())
        if run.step % 25 == 0:
            run.log(loss=np.mean(losses[-25:]), accuracy=np.mean(hits[-25:]))
    run.save()


def matches(shown: Tensor, says: Tensor) -> Tensor:
    """Return 1 where a caption (column) is true of a frame (row), else 0: (b b).

    Caption j was written for frame j. `says` (b 3): whether it says character, number and place. What a
    caption leaves out cannot make it false. `shown` (b 3): what the frames show.
    """
    same = (shown[:, None] == shown[None]) | ~says[None]                                         # (b b 3)
    return same.all(-1).float()


def match_loss(logits: Tensor, is_true: Tensor) -> Tensor:
    """Return the cross-entropy, averaged over rows. All matches of a row are equally right."""
    return -(is_true / is_true.sum(1, keepdim=True) * logits.log_softmax(-1)).sum(1).mean()


# ------------------------------------------------------------------------------------------------- export

def export(work_dir: Path, export_dir: Path) -> None:
    """Write the averaged weights as two transformers folders in half precision, each with a model card."""
    classifier, words = networks.build_classifier(MOTIONS), recognizer_words()
    tokenizer = build_tokenizer(words)
    clip = networks.build_clip(tokenizer)
    image_processor = networks.image_processor()
    for name, model, parts in (("motion", classifier, [networks.video_processor()]),
                               ("clip", clip, [image_processor, CLIPProcessor(image_processor, tokenizer)])):
        run, folder = load_average(work_dir / f"{name}.pt", model), export_dir / name
        if not run["step"]:
            print(f"{folder}: is not written, because {name} was not trained after --stage import")
            continue
        model.half().save_pretrained(folder)
        for part in parts:
            part.save_pretrained(folder)
        # transformers loads a model in the dtype that its config names: float32
        config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
        write_json(folder / "config.json", config)
        notes_path = work_dir / f"{name}-notes.md"               # written by whoever ran it
        write_card(folder, name, run | {
            "made_on": f"{describe_machine()}, beside other work",
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "notes": notes_path.read_text(encoding="utf-8") if notes_path.exists() else "",
            "clip_seed": examples.MOTION_SEED if name == "motion" else examples.FRAME_SEED})
    write_vocabulary(words, export_dir / "clip")


def import_recognizers(work_dir: Path, export_dir: Path) -> None:
    """Make checkpoints of step 0 from exported recognizers, to train on.

    Raises UserError if there are none.
    """
    kinds = {"motion": VideoMAEForVideoClassification, "clip": CLIPModel}
    missing = [export_dir / name for name in kinds if not (export_dir / name / "config.json").is_file()]
    if missing:
        raise UserError(*(f"{folder}: has no recognizer in it (no config.json). Name the folder of both "
                          f"with --export-dir." for folder in missing))
    for name, kind in kinds.items():
        save_untrained(kind.from_pretrained(export_dir / name, use_safetensors=True),
                       work_dir / f"{name}.pt")


if __name__ == "__main__":
    run_script(main)
