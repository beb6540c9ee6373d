"""What lies in a data folder: its clips and their captions, before any clip is opened."""

from dataclasses import dataclass, replace
from pathlib import Path

from training.config import Config
from utils.captions import CaptionIndex, captions_of, read_caption_index
from utils.containers import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_clip, is_image
from utils.errors import UserError, attempt

COMPANION_SUFFIXES = (".txt", ".json", ".html", ".md")   # captions, galleries and notes beside the clips


@dataclass(frozen=True)
class ListedClip:
    """A file to be trained on, with its captions as they were written."""

    path: Path
    captions: tuple[str, ...]   # none only where the folder's text.json is among the problems
    remarks: tuple[str, ...]    # what is odd about the folder
    frame_step: int | None = None   # every n-th recorded frame; None: at the rate train_data.fps


def list_folder(config: Config, role: str, problems: list[str]) -> list[ListedClip]:
    """Return the clips of one role (exemplar, regularization), sorted by name; none where it has no folder.

    What is wrong with captions is added to `problems`, so that the clips can be looked at all the same.
    Raises UserError if the folder itself cannot be used.
    """
    data = config.train_data
    folder, fallback = data.path, data.fallback_prompt
    if role == "regularization":
        folder, fallback = config.prior_preservation and data.class_path, data.class_prompt
    if not folder:
        return []
    paths = _clip_paths(Path(folder), role, config.dataset_types)
    index = attempt(lambda: read_caption_index(paths[0].parent), None, problems)
    fallback = tuple(fallback or ())
    if index is None:   # the captions that clips lack are not judged: text.json may have them
        index, fallback = CaptionIndex(paths[0].parent / "text.json", {}), ("unknown",)
    listed = []
    for path in paths:
        # regularization clips, last resort: the file's own name; the folders above it say nothing about it
        last_resort = (path.stem.replace("_", " "),) if role == "regularization" else ()
        captions = attempt(lambda: captions_of(path, index, fallback or last_resort), (), problems)
        listed.append(ListedClip(path, captions, ()))
    unused = sorted(set(index.captions) - {p.name for p in paths} - {p.stem for p in paths})
    strangers = _strangers(Path(folder), paths)
    remarks = (
        [f"{index.path.name} also has captions for {', '.join(unused)}, which are not here"] * bool(unused)
        + [f"also in this folder and not used: {', '.join(strangers)}"] * bool(strangers)
    )
    return [*listed[:-1], replace(listed[-1], remarks=tuple(remarks))]


def _strangers(path: Path, used: list[Path]) -> list[str]:
    """Return what else lies in a data folder, for nothing in it to be left out in silence."""
    if not path.is_dir():
        return []
    return sorted(p.name for p in path.iterdir() if p not in used and not p.name.startswith(".")
                  and p.suffix.lower() not in COMPANION_SUFFIXES)


def _clip_paths(path: Path, role: str, dataset_types: list[str]) -> list[Path]:
    key = "train_data.path" if role == "exemplar" else "train_data.class_path"
    takes_clips, takes_images = {"folder", "single_video"} & set(dataset_types), "image" in dataset_types
    suffixes = (VIDEO_SUFFIXES if takes_clips else ()) + (IMAGE_SUFFIXES if takes_images else ())
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
        entries = sorted(path.iterdir()) if is_folder else []
        paths = [p for p in entries if not p.name.startswith(".") and p.is_file()
                 and (takes_clips and is_clip(p) or takes_images and is_image(p))]
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror}).") from None
    if is_file:
        if role == "exemplar" and not {"single_video", "image"} & set(dataset_types):
            raise UserError(f"{key}: {path} is a file. "
                            f"Name its folder, or set dataset_types: [single_video].")
        return [path]
    if not is_folder:
        raise UserError(f"{key}: {path} does not exist. Name a folder of clips.")
    if not paths:
        raise UserError(f"{key}: {path} holds no clips ({', '.join(suffixes)}).")
    if role == "exemplar" and dataset_types == ["single_video"] and len(paths) > 1:
        raise UserError(f"{key}: {path} holds {len(paths)} clips. Name one, or set dataset_types: [folder].")
    return paths
