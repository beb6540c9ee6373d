"""What a config names to train on: the clips of its data sets and their captions, before any clip is opened.

Exemplars come from every type in dataset_types, regularization clips from the folder train_data.class_path.
A JSON data set is {"data": [{"video_path": "a.mp4", "data": [{"frame_index": 0, "prompt": "a caption"}]}]}:
a caption is of the frames from its frame_index on, up to the frame_index of the next caption.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.config import Config, TrainData
from utils.captions import INDEX_NAME, PROMPTS_NAME, CaptionIndex, captions_of, read_caption_index
from utils.containers import CLIPS_OF_A_FOLDER, IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_clip, is_image
from utils.errors import UserError, attempt
from utils.files import expanded_path, read_text
from utils.prompts import clean_text
from utils.wording import first_few

COMPANION_SUFFIXES = (".txt", ".json", ".html", ".md")   # captions, galleries and notes beside the clips
MOST_NAMED = 8   # files named in one remark


@dataclass(frozen=True)
class ListedClip:
    """A file to be trained on, with its captions as they were written."""

    path: Path
    captions: tuple[str, ...]   # none only where the folder's text.json is among the problems
    remarks: tuple[str, ...]    # what is odd about the folder
    frame_step: int | None = None   # every n-th recorded frame; None: at the rate train_data.fps
    # recorded frames that the captions are of: the first, and the one after the last; None: to the end. The
    # clip is trained on from the first frame, and for at least one window.
    first_frame: int = 0
    end_frame: int | None = None


def list_clips(config: Config, role: str, problems: list[str]) -> list[ListedClip]:
    """Return the clips of one role (exemplar, regularization), each data set in the order of its names; none
    where the config names no data set.

    What is wrong with captions is added to `problems`, so that the clips can be looked at all the same.
    Raises UserError if a folder or file itself cannot be used.
    """
    data, types = config.train_data, config.dataset_types
    if role == "regularization":
        suffixes = (VIDEO_SUFFIXES if types != ["image"] else ()) + IMAGE_SUFFIXES * ("image" in types)
        source = DataFolder("train_data.class_path", data.class_path, suffixes, tuple(data.class_prompt),
                        takes_file=True, names_are_captions=True)
        return _list_folder(source, problems) if config.prior_preservation and data.class_path else []
    data_sets = [_list_folder(source, problems) for source in _exemplar_folders(data, types) if source.path]
    if "json" in types and (data.json_path or data.json_data):
        data_sets.append(_list_json(data, problems))
    if config.extend_dataset:
        data_sets = _extended(data_sets)
    return [clip for data_set in data_sets for clip in data_set]


@dataclass(frozen=True)
class DataFolder:
    """A folder of clips, or one clip, and how its captions are found."""

    key: str                     # of the config
    path: str | None
    suffixes: tuple[str, ...]    # of the files that are clips
    fallback: tuple[str, ...]    # the captions of clips that have none
    prompt: str | None = None    # the caption of all clips, whatever text files lie beside them
    reads_captions: bool = True  # of text files and text.json
    frame_step: int | None = None
    takes_file: bool = False     # the path may be a file
    takes_one: bool = False      # the path may hold only one clip
    names_are_captions: bool = False   # a clip without any caption takes its file name

    def takes(self, path: Path) -> bool:
        """Say whether a file is one of its clips. An animated picture is a clip, and a still one an image."""
        takes_clips = set(VIDEO_SUFFIXES) <= set(self.suffixes)
        takes_images = set(IMAGE_SUFFIXES) <= set(self.suffixes)
        return takes_clips and is_clip(path) or takes_images and is_image(path)


def _exemplar_folders(data: TrainData, types: list[str]) -> list[DataFolder]:
    """Return the folders and files of the exemplars. A type whose own key is unset takes train_data.path."""
    kinds = {"folder": ("path", VIDEO_SUFFIXES), "single_video": ("single_video_path", VIDEO_SUFFIXES),
             "image": ("image_dir", IMAGE_SUFFIXES)}
    sources = {}
    for kind in (kind for kind in kinds if kind in types):
        own, suffixes = kinds[kind]
        name, is_single = (own if getattr(data, own) else "path"), kind != "folder"
        source = DataFolder(f"train_data.{name}", getattr(data, name), suffixes, tuple(data.fallback_prompt),
                        takes_file=is_single, takes_one=kind == "single_video")
        if is_single:
            prompt = data.single_video_prompt if kind == "single_video" else data.single_img_prompt
            source = replace(source, prompt=prompt, reads_captions=data.use_caption,
                             frame_step=data.frame_step if kind == "single_video" else None)
        if name in sources:   # several types in one folder: its own captions count
            suffixes = tuple(dict.fromkeys(sources[name].suffixes + suffixes))
            source = replace(sources[name], suffixes=suffixes, takes_file=True, takes_one=False, prompt=None)
        sources[name] = source
    return [replace(source, path=path) for source in sources.values()
            for path in (source.path if isinstance(source.path, list) else [source.path])]


def _list_folder(source: DataFolder, problems: list[str]) -> list[ListedClip]:
    paths = _clip_paths(source)
    no_index = CaptionIndex(paths[0].parent / INDEX_NAME, {})
    index = no_index
    if source.reads_captions and not source.prompt:
        index = attempt(lambda: read_caption_index(paths[0].parent), None, problems)
    listed, named_by_file = [], []
    for path in paths:
        last_resort = (path.stem.replace("_", " "),) if source.names_are_captions else ()
        if index is None and no_index.text_file(path) is None:
            captions = ()   # text.json, which is among the problems, may have them
        else:
            captions = attempt(lambda: _captions(path, source, index or no_index, last_resort), (), problems)
        named_by_file += [path.name] * (bool(last_resort) and captions is last_resort)
        listed.append(ListedClip(path, captions, (), source.frame_step))
    remarks = _folder_remarks(Path(source.path), paths, index or no_index)
    if named_by_file:
        names = first_few(named_by_file, MOST_NAMED)
        remarks.append(f"the caption is the file name, for want of another: {names}")
    return [*listed[:-1], replace(listed[-1], remarks=tuple(remarks))]


def _captions(path: Path, source: DataFolder, index: CaptionIndex,
              last_resort: tuple[str, ...]) -> tuple[str, ...]:
    """Return the captions of a clip; `last_resort` itself where they are made of its file name."""
    if source.prompt:
        return (source.prompt,)
    if source.reads_captions:
        captions = captions_of(path, index, source.fallback or last_resort)
        if captions is last_resort:
            try:
                clean_text(*captions)
            except ValueError as error:
                raise UserError(f"{path}: its name would be its caption, and {error}. Write a caption into "
                                f"text.json.") from None
        return captions
    if not source.fallback:
        raise UserError(f"{path}: has no caption, because train_data.use_caption is false. Set "
                        f"train_data.single_video_prompt, .single_img_prompt or .fallback_prompt.")
    return source.fallback


def _folder_remarks(folder: Path, paths: list[Path], index: CaptionIndex) -> list[str]:
    """Return what else lies in a folder of clips, so that nothing in it is left out in silence."""
    if not folder.is_dir():
        return []
    idle = set(index.captions) - {index.entry(path) for path in paths}
    texts = {path.name for path in set(index.text_files) - {index.text_file(path) for path in paths}}
    texts.discard(PROMPTS_NAME)
    strangers = {path.name for path in folder.iterdir()
                 if path not in paths and not path.name.startswith(".")
                 and path.suffix.lower() not in COMPANION_SUFFIXES}
    idle, texts, strangers = (first_few(sorted(names), MOST_NAMED) for names in (idle, texts, strangers))
    return ([f"{index.path.name} also has captions for {idle}, which are not here"] * bool(idle)
            + [f"text files that are the caption of no clip: {texts}"] * bool(texts)
            + [f"also in this folder and not used: {strangers}"] * bool(strangers))


def _clip_paths(source: DataFolder) -> list[Path]:
    """Return the clips of a source in the order of their names. Raises UserError if there are none."""
    key, path, kinds, noun = source.key, Path(source.path), CLIPS_OF_A_FOLDER, "clips"
    if source.suffixes == IMAGE_SUFFIXES:
        kinds, noun = ", ".join(IMAGE_SUFFIXES), "pictures"
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
        entries = sorted(path.iterdir()) if is_folder else []
        paths = [p for p in entries if not p.name.startswith(".") and p.is_file() and source.takes(p)]
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror}).") from None
    if is_file and not source.takes_file:
        raise UserError(f"{key}: {path} is a file. Name its folder, or set dataset_types: [single_video].")
    if is_file:
        return [path]
    if not is_folder:
        raise UserError(f"{key}: {path} does not exist. "
                        f"Name {'a clip' if source.takes_one else f'a folder of {noun}'}.")
    if not paths:
        raise UserError(f"{key}: {path} holds no {noun} ({kinds}). Put some into it, or name another folder.")
    if source.takes_one and len(paths) > 1:
        raise UserError(f"{key}: {path} holds {len(paths)} clips. Name one, or set dataset_types: [folder].")
    return paths


def _list_json(data: TrainData, problems: list[str]) -> list[ListedClip]:
    """Return the clips of a JSON data set, in the order of the file. Raises UserError if it is none."""
    where, content = data.json_path or "train_data.json_data", data.json_data
    if data.json_path:
        try:
            content = json.loads(read_text(Path(data.json_path)))
        except ValueError as error:
            raise UserError(f"{where}: is not JSON ({error}).") from None
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{where}: holds no clips. It should be like {{"data": [{{"{data.vid_data_key}": '
                        f'"a.mp4", "data": [{{"frame_index": 0, "prompt": "a caption"}}]}}]}}.')
    listed = []
    for number, entry in enumerate(entries, start=1):
        try:
            listed += _list_entry(entry, data)
        except (KeyError, TypeError) as error:
            problems.append(f"{where}: clip {number} is not like the others ({error}).")
        except ValueError as error:
            problems.append(f"{where}: clip {number}: {error}.")
    return listed


def _list_entry(entry: Any, data: TrainData) -> list[ListedClip]:
    """Return one clip of a JSON data set: a part for each frame_index that has captions.

    Raises ValueError, KeyError or TypeError if the entry is not as it should be.
    """
    path, captions = expanded_path(entry[data.vid_data_key]), {}
    if data.video_dir:
        path = Path(data.video_dir) / path
    elif data.json_path and not path.exists():
        path = Path(data.json_path).parent / path
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    for part in entry["data"]:
        first_frame, prompt = part["frame_index"], part["prompt"]
        is_index = isinstance(first_frame, int) and first_frame >= 0
        if not is_index or not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"{part!r} needs a frame_index of 0 or above and a prompt")
        captions.setdefault(first_frame, []).append(clean_text(prompt))
    if not captions:
        raise ValueError("it has no captions")
    starts = sorted(captions)
    return [ListedClip(path, tuple(dict.fromkeys(captions[start])), (), data.frame_step, start, end)
            for start, end in zip(starts, [*starts[1:], None])]


def _extended(data_sets: list[list[ListedClip]]) -> list[list[ListedClip]]:
    """Repeat the clips of smaller data sets until every data set has as many as the largest."""
    most = max(map(len, data_sets), default=0)
    again = ("repeated, because extend_dataset gives all data sets as many clips",)
    return [clips + [replace(clips[index % len(clips)], remarks=again) for index in range(len(clips), most)]
            for clips in data_sets if clips]
