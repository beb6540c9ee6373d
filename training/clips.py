"""The clips of a run: finding them, checking them, and reporting every one before anything slow starts."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.config import Config, TrainData
from training.data_folders import ListedClip, list_clips
from training.looking import look_at_clips
from utils.containers import is_image
from utils.errors import UserError, attempt
from utils.files import is_text, short_names
from utils.prompts import identifier, names_motion, tokens_in, with_token
from utils.video import SAME_PICTURE, VideoInfo, metadata_in, sampled_fps, sampled_frames, trained_size
from utils.wording import counted

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
    frames: tuple[int, ...]    # numbers of the frames that are trained on, counted over those a player shows
    window: int                # frames per training window
    remarks: tuple[str, ...]   # what is odd about it
    seconds: tuple[float, ...]   # when each of `frames` appears, on the clip's own timeline
    fps: float                   # frames per second of `frames`
    # how far the trained part of each frame is moved to the right, in its own widths; one is drawn per step
    shifts: tuple[float, ...] = (0.0,)
    is_part: bool = False        # whether a data set in JSON names a part of the file

    @property
    def num_windows(self) -> int:
        return len(self.frames) - self.window + 1

    @property
    def is_read_as_ever(self) -> bool:
        """Say whether earlier versions read the same pixels, so that the latents they cached are right."""
        return self.info.is_plain and all(b - a <= 1 for a, b in zip(self.frames, self.frames[1:]))


def find_clips(config: Config, stride: int, cache_dir: Path | None = None,
               progress=lambda done, num: done,
               unknown_keys: Collection[str] = ()) -> tuple[list[Clip], list[Clip]]:
    """Return the exemplar clips and the regularization clips of a run, each sorted by name.

    `stride`: pixels per cell of the network's coarsest level. `cache_dir`: where to keep what was found in
    files. `progress`: as for `look_at_clips`. `unknown_keys`: keys whose value in the config is wrong: checks
    that depend on them are skipped. Raises UserError with a line for everything wrong with any clip.
    """
    problems, clips = [], {"exemplar": [], "regularization": []}
    if "dataset_types" in unknown_keys:
        return [], []
    listed = {role: attempt(lambda: list_clips(config, role, problems), [], problems) for role in clips}
    paths = [file.path for files in listed.values() for file in files]
    found = look_at_clips(list(dict.fromkeys(paths)), cache_dir, progress)
    for role, files in listed.items():
        for file in files:
            clip = attempt(lambda: make_clip(file, role, config, stride, found[file.path], unknown_keys),
                           None, problems)
            clips[role] += [clip] if clip else []
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return _mark_repeats(clips["exemplar"], clips["regularization"])


def clip_report(exemplars: list[Clip], regularization: list[Clip],
                held_out: Mapping[str, list[Clip]] | None = None) -> str:
    """Return the table a user reads before training: one line per clip, every clip accounted for."""
    lines, parts = [], [("exemplar", exemplars, ""), ("regularization", regularization, "")]
    parts += [(role, clips, ", held out: never trained on, only measured")
              for role, clips in (held_out or {}).items() if clips]
    for role, clips, remark in parts:
        lines.append(counted(len(clips), f"{role} clip") + remark)
        names = short_names(clip.path for clip in clips)
        for clip in clips:
            info = clip.info
            native = _described((info.width, info.height), info.rates or (info.fps,), info.num_frames)
            trained = _described(clip.size, (clip.fps,), len(clip.frames))
            more = f" (+{len(clip.captions) - 1} more)" if len(clip.captions) > 1 else ""
            lines.append(f"  {names[clip.path]}: {native} -> {trained}, "
                         f"{counted(clip.num_windows, 'window')}, \"{clip.captions[0]}\"{more}")
            lines += [f"    note: {remark}" for remark in clip.remarks]
    return "\n".join(lines)


def motions_report(exemplars: list[Clip], placeholder_token: str) -> list[str]:
    """Return a line that says how many exemplars teach each of several motions; nothing for a single one."""
    tokens = tokens_in(placeholder_token)
    if len(tokens) == 1:
        return []
    num_clips = [sum(any(names_motion(caption, token) for caption in clip.captions) for clip in exemplars)
                 for token in tokens]
    taught = ", ".join(f"{identifier(number)} ({token}) in {counted(num, 'exemplar')}"
                       for number, (token, num) in enumerate(zip(tokens, num_clips), start=1))
    untaught = [identifier(number) for number, num in enumerate(num_clips, start=1) if not num]
    return [f"motions: {taught}"] + [f"note: no caption names {' or '.join(untaught)}, so nothing is learned "
                                     f"by that name"] * bool(untaught)


def make_clip(listed: ListedClip, role: str, config: Config, stride: int,
              found: tuple[str, VideoInfo] | UserError, unknown_keys: Collection[str] = ()) -> Clip:
    """Return how a file is trained on, from what was `found` in it. Raises UserError if it cannot be."""
    if isinstance(found, UserError):
        raise found
    (digest, info), data, path = found, config.train_data, listed.path
    if not all(is_text(caption) for caption in listed.captions):
        raise UserError(f"{path}: its name, which would be its caption, is no text. Rename it.")
    window = 1 if is_image(path) or data.train_weights == "spatial" else data.n_sample_frames
    frames, fps = trained_frames(listed, info, data.fps, window)
    num_sampled, num_frozen, remarks = len(frames), count_frozen(info, frames), []
    if len(frames) < window and not LENGTH_KEYS.intersection(unknown_keys):
        short = f"has {counted(len(frames), 'frame')} at {fps:.4g} fps; training needs {window}"
        if not data.allow_short_clips:
            raise UserError(f"{path}: {short}. Lower train_data.n_sample_frames, use a longer clip, or set "
                            f"train_data.allow_short_clips: true.")
        remarks.append(f"{short}: its last frame is repeated, which teaches the model to freeze")
        frames += (frames[-1],) * (window - len(frames))
    size = trained_size(info.width, info.height, (data.width, data.height), stride, data.use_bucketing)
    if info.width < size[0] or info.height < size[1]:
        remarks.append("smaller than the trained size: it is enlarged")
    is_slow = fps < data.fps / 1.25 and not listed.frame_step and not is_image(path)
    if is_slow and not (role == "regularization" and is_own_video(info)):
        remarks.append(f"recorded at {fps:.4g} fps, not {data.fps:.4g}: "
                       f"the motion is learned {data.fps / fps:.2g} times too fast")
    remarks += info.notes
    if info.damage:
        remarks.append(f"the decoder found it damaged ({info.damage}). Look at it, or copy it again")
    if num_frozen:
        remarks.append(f"{num_frozen} of {num_sampled} frames show the same picture as the one before")
    captions = tuple(with_token(caption, config.placeholder_token) for caption in listed.captions)
    remarks += [*caption_remarks(listed.captions, role, config.placeholder_token), *listed.remarks]
    return Clip(path, digest, captions, info, size, frames, window, tuple(remarks),
                tuple(info.seconds[number] for number in frames), fps, draw_shifts(digest, data),
                bool(listed.first_frame or listed.end_frame))


def draw_shifts(digest: str, data: TrainData) -> tuple[float, ...]:
    """Return no shift, and train_data.num_shifts random shifts in widths.

    The random shifts depend on the clip's content and on train_data.max_shift alone. With a higher
    num_shifts the first shifts stay the same, so that a later run finds their latents in the cache.
    """
    rng = random.Random(digest)
    return (0.0, *(rng.uniform(-data.max_shift, data.max_shift) for _ in range(data.num_shifts)))


def trained_frames(listed: ListedClip, info: VideoInfo, fps: float,
                   window: int) -> tuple[tuple[int, ...], float]:
    """Return the numbers of the frames that are trained on, and how many of them a second has.

    For a part of a file, these are the frames from the part's first to its end, but at least a `window`.
    Raises UserError if the file has no such frame.
    """
    frames, rate = sampled_frames(info, fps), sampled_fps(info, fps)
    if listed.frame_step:
        frames = tuple(range(listed.first_frame, info.num_frames, listed.frame_step))
        rate = info.fps / listed.frame_step
    frames = tuple(number for number in frames if number >= listed.first_frame)
    if not frames:
        raise UserError(f"{listed.path}: has {counted(info.num_frames, 'frame')}, so none at frame_index "
                        f"{listed.first_frame}.")
    end = listed.end_frame or info.num_frames
    return frames[:max(window, sum(number < end for number in frames))], rate


def caption_remarks(captions: tuple[str, ...], role: str, token: str) -> list[str]:
    """Return what is odd about the captions of a clip."""
    named = [names_motion(caption, token) for caption in captions]
    if role == "exemplar" and not all(named):
        return ["the caption does not name the motion (V*), so a prompt cannot ask for it"]
    if role == "regularization" and any(named):
        return ["the caption names the motion (V*), which regularization clips should not show"]
    return []


def count_frozen(info: VideoInfo, frames: tuple[int, ...]) -> int:
    """Count the frames in `frames` that show the same picture as the frame before.

    The sum of all changes between two frames is never less than their difference, so no frame that shows
    something else is counted.
    """
    changed = np.cumsum(info.changes)
    return sum(changed[b] - changed[a] < SAME_PICTURE for a, b in zip(frames, frames[1:]))


def is_own_video(info: VideoInfo) -> bool:
    """Say whether this program rendered the video, whose rate is then the one that its base knows."""
    return {"prompt", "base"} <= set(metadata_in(info.comment))


def _mark_repeats(exemplars: list[Clip], regularization: list[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Add a remark to every clip whose file is the same as an exemplar before it."""
    names, marked = {}, []
    for clip in (*exemplars, *regularization):
        if same := names.get(clip.digest):
            clip = replace(clip, remarks=(*clip.remarks, f"the same file as the exemplar {same}"))
        marked.append(clip)
        if len(marked) <= len(exemplars):
            names.setdefault(clip.digest, clip.path.name)
    return marked[:len(exemplars)], marked[len(exemplars):]


def _described(size: tuple[int, int], rates: tuple[float, ...], num_frames: int) -> str:
    """Return size, rates and number of frames for a person to read; a picture has no rate."""
    rate = f" @ {' to '.join(f'{rate:.4g}' for rate in rates)} fps" if num_frames > 1 else ""
    return f"{size[0]}x{size[1]}{rate}, {counted(num_frames, 'frame')}"
