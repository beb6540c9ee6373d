"""Rendering a list of prompts into a folder of videos, with its captions and its gallery."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline
from filelock import FileLock

from models.tokens import unseen_words
from rendering.gallery import PAGE_NAME, forget_scores, write_gallery
from rendering.samplers import OWN_SAMPLER
from rendering.sampling import Rendering, faults, render
from utils.captions import add_captions
from utils.errors import UserError
from utils.files import remove_stale
from utils.prompts import Prompt, file_names
from utils.video import video_metadata, write_video

# Not compared between a file and what would be made now. The paths of base, adapter and motion may change:
# their fingerprints are compared instead. The prompt has V* replaced by the placeholder already.
UNCOMPARED = ("base", "adapter", "motion", "placeholder_token")
UNSAID = {"sampler": OWN_SAMPLER}   # of files by earlier versions, whose metadata lack the key
# Captions and gallery cost time in proportion to the videos in the folder, so not every batch writes them.
# Ctrl-C still leaves them complete. After a kill, the videos of the last so many seconds are missing in them.
INDEX_SECONDS = 10


def render_to_folder(pipeline: DiffusionPipeline, prompts: list[Prompt], how: Rendering, folder: Path,
                     fps: float, batch_size: int, made_with: dict[str, Any], overwrite: bool = False,
                     progress: Callable[[list], Iterable] = iter,
                     share: tuple[int, int] = (0, 1)) -> list[str]:
    """Render each prompt to `folder`/{prompt}_seed{seed}.mp4, in batches; return remarks for the user.

    A thread writes each batch while the next one is rendered. Videos that are in the folder already and were
    made in the same way are kept, so an interrupted list continues. The folder is then a data folder too (its
    captions are in text.json), and it has the gallery in it.
    `made_with`: base and motion weights, written into each file beside prompt, seed and `how`. `share`: the
    index of this process and the number of processes, which share the prompts out.
    Raises UserError if a video made in another way has the name of one to be written, unless `overwrite`.
    """
    named = dict(list(file_names(prompts, folder).items())[share[0] :: share[1]])
    facts = {name: {"prompt": prompt.text, "seed": prompt.seed, **asdict(how), "fps": fps, **made_with}
             for name, prompt in named.items()}
    differences = {name: _differences(video_metadata(folder / name), facts[name])
                   for name in named if (folder / name).exists()}
    replaced = [name for name, found in differences.items() if found]
    kept = differences.keys() - replaced
    if replaced and not overwrite:
        said = ", ".join(differences[replaced[0]][:3])
        raise UserError(f"{folder / replaced[0]}: is there already and was made in another way ({said}), as "
                        f"{len(replaced)} of {len(named)}. Choose another output folder, or replace them "
                        f"with --overwrite.")
    missing = [name for name in named if name not in kept]
    remarks = [f"{len(kept)} of {len(named)} videos are there already"] if kept else []
    remarks += [f"{name}: the prompt is too long for the text encoder, not seen: \"{unseen}\""
                for name in missing if (unseen := unseen_words(pipeline.tokenizer, named[name].text))]
    if missing and (unseen := unseen_words(pipeline.tokenizer, how.negative_prompt)):
        remarks.append(f"the negative prompt is too long for the text encoder, not seen: \"{unseen}\"")
    captions = {name: prompt.text for name, prompt in named.items()}
    remove_stale(folder)
    index_folder(folder, captions, missing)
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    writing = None
    try:
        with ThreadPoolExecutor(1) as writer:   # leaving it, by Ctrl-C too, waits for what is being written
            for batch in progress(batches) if batches else ():
                videos = render(pipeline, [named[name] for name in batch], how)
                remarks += writing.result() if writing else []   # at most one batch waits
                writing = writer.submit(write_videos, folder, dict(zip(batch, videos)), fps, facts, captions)
            remarks += writing.result() if writing else []
    finally:
        if batches:
            index_folder(folder, captions)
    return remarks


def write_videos(folder: Path, videos: Mapping[str, np.ndarray], fps: float,
                 facts: Mapping[str, dict[str, Any]], captions: Mapping[str, str]) -> list[str]:
    """Write {name: rendered video (f h w c)}, each with its `facts`; return remarks for the user.

    The folder's index is written again if it is older than INDEX_SECONDS.
    """
    remarks = []
    for name, frames in videos.items():
        remarks += [f"{name}: {fault}" for fault in faults(frames)]
        write_video(folder / name, frames, fps, facts[name])
    page = folder / PAGE_NAME
    if not page.exists() or time.time() - page.stat().st_mtime > INDEX_SECONDS:
        index_folder(folder, captions)
    return remarks


def index_folder(folder: Path, captions: Mapping[str, str], written: Sequence[str] = ()) -> None:
    """Add {name: caption} of the videos that are in `folder` to its text.json, and write its gallery.

    Processes take turns. The scores of the videos that are about to be `written` are forgotten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".index.lock"):
        forget_scores(folder, written)
        add_captions(folder, {name: text for name, text in captions.items() if (folder / name).exists()})
        write_gallery(folder)


def _differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return, for people, the differences in how two videos were made."""
    if not there:
        return ["not by this program"]
    there = UNSAID | there
    return [f"{key} {there.get(key)}, not {wanted.get(key)}" for key in dict.fromkeys([*wanted, *there])
            if key not in UNCOMPARED and there.get(key) != wanted.get(key)]
