"""The clips of a run: finding them, checking them, and reporting every one before anything slow starts."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.config import Config
from training.data_folders import ListedClip, list_clips
from utils.decoder import complaint
from utils.decoding import IMAGE_SUFFIXES
from utils.errors import UserError, attempt
from utils.files import file_digest
from utils.prompts import names_motion, with_token
from utils.video import (
    SAME_PICTURE,
    VideoInfo,
    frame_step,
    iter_frames,
    probe,
    trained_size,
)

# keys that say whether a clip is long enough for a window
LENGTH_KEYS = {"train_data.n_sample_frames", "train_data.fps", "train_data.frame_step"}


@dataclass(frozen=True)
class Clip:
    """One clip and how it is trained on."""

    path: Path
    digest: str                # SHA-256 of the file
    captions: tuple[str, ...]  # the motion identifier already replaced; one is drawn per step
    info: VideoInfo            # as recorded
    size: tuple[int, int]      # trained width and height in pixels
    frames: tuple[int, ...]    # recorded frames that are trained on, at the trained rate
    window: int                # frames per training window
    remarks: tuple[str, ...]   # what is odd about it

    @property
    def num_windows(self) -> int:
        return len(self.frames) - self.window + 1

    @property
    def fps(self) -> float:
        """Frames per second of `frames`."""
        if len(self.frames) < 2:
            return self.info.fps
        return self.info.fps / (self.frames[1] - self.frames[0] or 1)


def find_clips(config: Config, stride: int,
               unknown_keys: Collection[str] = ()) -> tuple[list[Clip], list[Clip]]:
    """Return the exemplar clips and the regularization clips of a run, each sorted by name.

    `stride`: pixels per cell of the network's coarsest level. `unknown_keys`: keys whose value in the config
    is wrong; what depends on them is not checked. Raises UserError with a line for everything
    that is wrong with any of them.
    """
    problems, clips = [], {"exemplar": [], "regularization": []}
    if "dataset_types" in unknown_keys:
        return [], []
    for role in clips:
        for listed in attempt(lambda: list_clips(config, role, problems), [], problems):
            clip = attempt(lambda: _read_clip(listed, role, config, stride, unknown_keys), None, problems)
            clips[role] += [clip] if clip else []
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return clips["exemplar"], _mark_repeats(clips["exemplar"], clips["regularization"])


def clip_report(exemplars: list[Clip], regularization: list[Clip]) -> str:
    """Return the table a user reads before training: one line per clip, every clip accounted for."""
    lines = []
    for role, clips in (("exemplar", exemplars), ("regularization", regularization)):
        lines.append(f"{len(clips)} {role} clip{'s' if len(clips) != 1 else ''}")
        for clip in clips:
            native = (f"{clip.info.width}x{clip.info.height} @ {clip.info.fps:.4g} fps, "
                      f"{clip.info.num_frames} frames")
            trained = f"{clip.size[0]}x{clip.size[1]} @ {clip.fps:.4g} fps, {len(clip.frames)} frames"
            more = f" (+{len(clip.captions) - 1} more)" if len(clip.captions) > 1 else ""
            lines.append(f"  {clip.path.name}: {native} -> {trained}, {clip.num_windows} "
                         f"window{'s' if clip.num_windows != 1 else ''}, \"{clip.captions[0]}\"{more}")
            lines += [f"    note: {remark}" for remark in clip.remarks]
    return "\n".join(lines)


def _read_clip(listed: ListedClip, role: str, config: Config, stride: int,
               unknown_keys: Collection[str]) -> Clip:
    data, path, captions, remarks = config.train_data, listed.path, listed.captions, []
    info = probe(path)
    is_image = path.suffix.lower() in IMAGE_SUFFIXES
    window = 1 if is_image or data.train_weights == "spatial" else data.n_sample_frames
    step = listed.frame_step or frame_step(info.fps, data.fps)
    end = max(listed.end_frame or info.num_frames, listed.first_frame + window * step)
    frames = tuple(range(listed.first_frame, min(end, info.num_frames), step))
    if not frames:
        raise UserError(f"{path}: has {_count(info.num_frames, 'frame')}, so none at frame_index "
                        f"{listed.first_frame}.")
    if len(frames) < window and not LENGTH_KEYS.intersection(unknown_keys):
        short = f"has {_count(len(frames), 'frame')} at {info.fps / step:.4g} fps; training needs {window}"
        if not data.allow_short_clips:
            raise UserError(f"{path}: {short}. Lower train_data.n_sample_frames, use a longer clip, or set "
                            f"train_data.allow_short_clips: true.")
        remarks.append(f"{short}: its last frame is repeated, which teaches the model to freeze")
        frames += (frames[-1],) * (window - len(frames))

    size = trained_size(info.width, info.height, (data.width, data.height), stride, data.use_bucketing)
    if info.width < size[0] or info.height < size[1]:
        remarks.append("smaller than the trained size: it is enlarged")
    if not is_image and info.fps < data.fps / 1.25:
        remarks.append(f"recorded at {info.fps:.4g} fps, not {data.fps:.4g}: "
                       f"the motion is learned {data.fps / info.fps:.2g} times too fast")
    num_frozen = _num_frozen(path, frames) if len(frames) > 1 else 0
    if damage := complaint(path):
        remarks.append(f"the decoder found it damaged ({damage}). Look at it, or copy it again")
    if num_frozen:
        remarks.append(f"{num_frozen} of {len(frames)} frames show the same picture as the one before")
    named = [names_motion(caption, config.placeholder_token) for caption in captions]
    if role == "exemplar" and not all(named):
        remarks.append("the caption does not name the motion (V*), so a prompt cannot ask for it")
    if role == "regularization" and any(named):
        remarks.append("the caption names the motion (V*), which regularization clips should not show")
    captions = tuple(with_token(caption, config.placeholder_token) for caption in captions)
    return Clip(path, file_digest(path), captions, info, size, frames, window,
                (*remarks, *listed.remarks))


def _num_frozen(path: Path, frames: tuple[int, ...]) -> int:
    """Count frames like the one before. Decodes every frame, so damage is found here, before training."""
    num_frozen, before = 0, None
    for pixels in iter_frames(path, frames):
        pixels = pixels.astype(np.int16)
        for frame in pixels:
            if before is not None and np.abs(frame - before).mean() < SAME_PICTURE:
                num_frozen += 1
            before = frame
    return num_frozen


def _mark_repeats(exemplars: list[Clip], regularization: list[Clip]) -> list[Clip]:
    names = {clip.digest: clip.path.name for clip in exemplars}
    return [replace(clip, remarks=(*clip.remarks, f"the same file as the exemplar {names[clip.digest]}"))
            if clip.digest in names else clip for clip in regularization]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
