"""Measures the bundled recognizers on drawn clips that they were never trained on, and writes their cards.

`python -m puppets.train_recognizers --stage check` runs this. The recognizers see the clips as drawn, and
made worse in several ways. Some of the ways make a clip look nearly like a rendered video.

Shapes: n clips, f frames, h w c pixels and colours, k labels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from evaluation.recognizing import classify_motion, load_clip, load_motion_recognizer
from models.base import load_base
from puppets import recognizer_examples as examples
from puppets import theatre, world
from puppets.clip_stream import encode_clips
from puppets.degrading import degrade, spoil_latents, to_frames, to_unit_pixels
from puppets.model_cards import confusion_counts, write_measurements
from puppets.recognizer_labels import (
    MOTIONS,
    SCENES,
    draw_any_scene,
    draw_motion,
    match_captions,
    read_scenes,
    scene_captions,
    shown_labels,
)
from puppets.teachability import denoise_from
from puppets.tokenizer import tokenize

CHECK_CLIPS = 2400   # 200 of each motion
NOISED = 279         # timestep up to which clips are noised for the base to denoise


def check(export_dir: Path) -> None:
    """Measure both recognizers on clips never trained on; print the figures and add them to the cards."""
    recognizer, clip = load_motion_recognizer(str(export_dir / "motion")), load_clip(str(export_dir / "clip"))
    rngs = [np.random.default_rng((examples.CHECK_SEED, 1, i)) for i in range(CHECK_CLIPS)]
    labels = [MOTIONS[i % len(MOTIONS)] for i in range(CHECK_CLIPS)]
    motions = [draw_motion(label, rng) for label, rng in zip(labels, rngs)]
    scenes = [replace(draw_any_scene(rng), motion=motion) for rng, motion in zip(rngs, motions)]
    shown, accuracies, confusion = shown_labels(scenes), {}, None
    for view, frames in draw_views(scenes).items():
        probabilities = classify_motion(recognizer, frames)                                      # (n k)
        seen = read_scenes(match_captions(clip, frames, scene_captions()))
        seen |= {"motion": probabilities.argmax(1)}
        accuracies[view] = {"clips": len(frames)} | {
            name: float((seen[name] == shown[name][: len(frames)]).mean()) for name in shown}
        if confusion is None:   # the first view: frames as drawn
            confusion = confusion_counts(shown["motion"], seen["motion"], len(MOTIONS))
            accuracies |= check_time(recognizer, frames[: len(frames) // 10], shown["motion"])
        print(view, {name: round(number, 4) for name, number in accuracies[view].items()}, flush=True)
    for name in ("motion", "clip"):
        write_measurements(export_dir / name, accuracies, examples.CHECK_SEED,
                           confusion if name == "motion" else None)


def draw_views(scenes: list[world.Scene]) -> dict[str, np.ndarray]:
    """Return scenes as uint8 frames (n f h w c): all as drawn, a tenth in ways that are harder to judge."""
    num, some = len(scenes), len(scenes) // 10
    frames = theatre.draw_clips(num, examples.CHECK_SEED, scenes=scenes, trimmed=False).frames
    views = {"as drawn": frames}
    views["two seconds in 16 frames"] = theatre.draw_clips(
        some, examples.CHECK_SEED, first=num, num_frames=2 * world.CLIP_FRAMES, scenes=scenes[:some],
        trimmed=False).frames
    views["each puppet in its own manner"] = theatre.draw_clips(
        some, examples.CHECK_SEED, scenes=scenes[:some], trimmed=False, varied=True).frames
    generator = torch.Generator().manual_seed(examples.CHECK_SEED)
    drawn = torch.from_numpy(frames[:some])
    views["made worse as in training"] = to_frames(degrade(to_unit_pixels(drawn), generator))
    pipeline, parts = load_base(str(examples.BASE)).pipeline, to_unit_pixels(drawn).split(16)
    for view, most in (("through the base's autoencoder", 0.0), ("with errors in the latents", 0.5)):
        spoiled = [spoil_latents(part, generator, pipeline.vae, most, most) for part in parts]
        views[view] = to_frames(torch.cat(spoiled))
    views[f"noised up to timestep {NOISED}, denoised by the base"] = redraw(pipeline, frames[:some], scenes)
    return views


@torch.no_grad()
def redraw(pipeline: DiffusionPipeline, frames: np.ndarray, scenes: list[world.Scene]) -> np.ndarray:
    """Noise the latents of clips (n f h w c) up to NOISED, and return the clips that the base makes of them.

    The prompts name character, number and place only, so that the base has the motion from the clip.
    """
    unet, vae, captions = pipeline.unet, pipeline.vae, dict(zip(SCENES, scene_captions()))
    prompts = [captions[scene.character, scene.num_characters, scene.place] for scene in scenes]
    redrawn = []
    for start in range(0, len(frames), 16):
        input_ids = tokenize(pipeline.tokenizer, prompts[start : start + 16])
        redrawn.append(denoise_from(NOISED, unet, vae, pipeline.scheduler,
                                    encode_clips(vae, torch.from_numpy(frames[start : start + 16])),
                                    pipeline.text_encoder(input_ids).last_hidden_state))
    return np.concatenate(redrawn)


def check_time(recognizer, frames: np.ndarray, motions: np.ndarray) -> dict[str, dict[str, float]]:
    """Return what the recognizer calls clips as they are, frozen at a random frame, and in a wrong order."""
    rng = np.random.default_rng(examples.CHECK_SEED)
    moving = motions[: len(frames)] != MOTIONS.index("standing")
    frames, motions = frames[moving], motions[: len(frames)][moving]
    frozen = np.stack([clip[[rng.integers(world.CLIP_FRAMES)] * world.CLIP_FRAMES] for clip in frames])
    shuffled = np.stack([clip[examples.shuffled_order(rng, world.CLIP_FRAMES)] for clip in frames])
    results = {}
    for name, changed in (("moving", frames), ("frozen", frozen), ("shuffled", shuffled)):
        probabilities = classify_motion(recognizer, changed)                                     # (n k)
        results[name] = {"clips": len(frames), "motion": float((probabilities.argmax(1) == motions).mean()),
                         "probability": float(probabilities[np.arange(len(motions)), motions].mean()),
                         "standing": float((probabilities.argmax(1) == MOTIONS.index("standing")).mean())}
        print(name, {name: round(number, 4) for name, number in results[name].items()}, flush=True)
    return results
