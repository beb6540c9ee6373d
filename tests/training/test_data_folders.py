"""Data sets of every type: which files are clips, what their captions are, and what is said of the rest.

Nothing here opens a clip, so empty files will do.
"""

import json
from pathlib import Path

import pytest

from tests.conftest import write_clip
from training.clips import find_clips
from training.config import Config, TrainData
from training.data_folders import MOST_NAMED, list_clips
from utils.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def config_of(*dataset_types: str, extend_dataset: bool = False, **data) -> Config:
    data = {name: str(value) if isinstance(value, Path) else value for name, value in data.items()}
    return Config(train_data=TrainData(**data), dataset_types=list(dataset_types),
                  extend_dataset=extend_dataset)


def listed(config: Config, role: str = "exemplar"):
    problems = []
    clips = list_clips(config, role, problems)
    assert problems == []
    return clips


def problems_of(config: Config) -> list[str]:
    problems = []
    try:
        list_clips(config, "exemplar", problems)
    except UserError as error:
        problems += error.problems
    return problems


# ----------------------------------------------------------------------------------------- one clip, pictures

def test_prompt_of_the_single_video_goes_before_its_caption(tmp_path):
    clip = touch(tmp_path, "a.mp4") / "a.mp4"
    (tmp_path / "a.txt").write_text("from the file")
    for data, caption in (({}, "from the file"),
                          ({"single_video_prompt": "from the config"}, "from the config"),
                          ({"use_caption": False, "fallback_prompt": ["a fallback"]}, "a fallback")):
        (found,) = listed(config_of("single_video", single_video_path=clip, frame_step=3, **data))
        assert (found.path, found.captions, found.frame_step, found.remarks) == (clip, (caption,), 3, ())


def test_missing_pictures_are_called_pictures(tmp_path):
    touch(tmp_path, "a.mp4")
    assert problems_of(config_of("image", image_dir="nowhere")) == [
        "train_data.image_dir: nowhere does not exist. Name a folder of pictures."]
    (problem,) = problems_of(config_of("image", image_dir=tmp_path, single_img_prompt="a cat"))
    assert f"{tmp_path} holds no pictures (.png, .jpg," in problem


def test_single_video_without_caption_or_prompt_says_why(tmp_path):
    touch(tmp_path, "a.mp4", "a.txt")
    (problem,) = problems_of(config_of("single_video", single_video_path=tmp_path, use_caption=False))
    assert "a.mp4: has no caption, because train_data.use_caption is false. Set train_data.single" in problem


def test_pictures_share_their_prompt(tmp_path):
    touch(tmp_path, "a.png", "b.jpg", "c.mp4")
    found = listed(config_of("image", image_dir=tmp_path, single_img_prompt="a V* robot"))
    assert [(clip.path.name, clip.captions) for clip in found] == [
        ("a.png", ("a V* robot",)), ("b.jpg", ("a V* robot",))]
    assert found[-1].remarks == ("also in this folder and not used: c.mp4",)


def test_every_type_of_data_set_adds_its_clips(tmp_path):
    clips = touch(tmp_path / "clips", "a.mp4", "b.mp4", "z.png")
    pictures = touch(tmp_path / "pictures", "c.png")
    config = config_of("image", "single_video", "folder", path=clips, image_dir=pictures,
                       single_video_path=clips / "b.mp4", single_video_prompt="one",
                       fallback_prompt=["other"])
    assert [(clip.path.name, *clip.captions) for clip in listed(config)] == [
        ("a.mp4", "other"), ("b.mp4", "other"), ("b.mp4", "one"), ("c.png", "other")]


def test_videos_and_pictures_of_one_folder_are_listed_once(tmp_path):
    touch(tmp_path, "a.mp4", "b.png")
    found = listed(config_of("folder", "image", path=tmp_path, fallback_prompt=["a cat"]))
    assert [clip.path.name for clip in found] == ["a.mp4", "b.png"]


def test_smaller_data_sets_are_repeated_only_if_asked_for(tmp_path):
    clips, pictures = touch(tmp_path / "clips", *"abcde"), touch(tmp_path / "pictures", "p.png", "q.png")
    for name in "abcde":
        (clips / name).rename(clips / f"{name}.mp4")
    data = {"path": clips, "image_dir": pictures, "fallback_prompt": ["a cat"]}
    assert len(listed(config_of("folder", "image", **data))) == 7
    found = listed(config_of("folder", "image", extend_dataset=True, **data))
    assert "".join(clip.path.stem for clip in found) == "abcdepqpqp"
    assert [bool(clip.remarks) for clip in found] == [False] * 7 + [True] * 3


def test_every_folder_of_a_list_has_its_own_captions(tmp_path):
    folders = touch(tmp_path / "dance", "a.mp4", "x.bin"), touch(tmp_path / "jump", "a.mp4", "b.mp4")
    (folders[0] / "a.txt").write_text("the V* dance")
    (folders[1] / "text.json").write_text('{"a.mp4": "the V2* jump"}')
    config = config_of("folder", path=list(map(str, folders)), fallback_prompt=["V2* too"])
    found = listed(config)
    assert [(clip.path, *clip.captions) for clip in found] == [
        (folders[0] / "a.mp4", "the V* dance"), (folders[1] / "a.mp4", "the V2* jump"),
        (folders[1] / "b.mp4", "V2* too")]
    assert [clip.remarks for clip in found] == [("also in this folder and not used: x.bin",), (), ()]
    config.train_data.path.append(str(tmp_path / "gone"))
    assert problems_of(config) == [f"train_data.path: {tmp_path / 'gone'} does not exist. Name a folder of "
                                   f"clips."]


# ------------------------------------------------------------------------------------------------------- JSON

def data_set(*entries: dict) -> dict:
    return {"name": "clips", "data": list(entries)}


def part(frame_index: int, prompt: str) -> dict:
    return {"frame_index": frame_index, "prompt": prompt}


def test_captions_of_a_json_data_set_are_of_the_frames_from_their_index_on(tmp_path):
    write_clip(tmp_path / "a.mp4", 24, 32, 32)
    parts = [part(16, "V* end"), part(0, "V* start"), part(0, "V* begin"), part(5, "V* middle")]
    (tmp_path / "clips.json").write_text(json.dumps(data_set({"video_path": "a.mp4", "data": parts})))
    config = config_of("json", json_path=tmp_path / "clips.json", frame_step=2, n_sample_frames=4, width=32,
                       height=32)
    clips, _ = find_clips(config, 8)
    assert [(clip.captions, clip.frames) for clip in clips] == [
        (("sks start", "sks begin"), (0, 2, 4, 6)),       # at least a window, though the next begins at 5
        (("sks middle",), (5, 7, 9, 11, 13, 15)), (("sks end",), (16, 18, 20, 22))]


def test_json_data_may_stand_in_the_config_with_another_name_for_the_path(tmp_path):
    touch(tmp_path, "a.mp4")
    data = data_set({"clip": "a.mp4", "data": [part(0, "a  cat\n")]})
    (found,) = listed(config_of("json", json_data=data, video_dir=tmp_path, vid_data_key="clip"))
    assert (found.path, found.captions, found.frame_step) == (tmp_path / "a.mp4", ("a cat",), None)


def test_index_behind_the_end_of_a_clip_is_named(tmp_path):
    write_clip(tmp_path / "a.mp4", 6, 32, 32)
    data = data_set({"video_path": "a.mp4", "data": [part(40, "V*")]})
    with pytest.raises(UserError, match="a.mp4: has 6 frames, so none at frame_index 40."):
        find_clips(config_of("json", json_data=data, video_dir=tmp_path), 8)


def test_every_entry_of_a_json_data_set_that_is_wrong_is_named(tmp_path):
    touch(tmp_path, "a.mp4")
    right = {"video_path": "a.mp4", "data": [part(0, "a cat")]}
    wrong = [{"video_path": "b.mp4", "data": right["data"]}, {"data": right["data"]}, "a.mp4",
             {**right, "data": []}, {**right, "data": [part(-1, "a cat")]}, {**right, "data": [part(0, " ")]},
             {**right, "data": [part(0, "a\0cat")]}, {**right, "data": [part(0, None)]}]
    problems = problems_of(config_of("json", json_data=data_set(right, *wrong), video_dir=tmp_path))
    numbers = [problem.partition("clip ")[2].split()[0].strip(":") for problem in problems]
    assert numbers == [str(number) for number in range(2, 10)]


@pytest.mark.parametrize("content, words", [
    ("{", "is not JSON"), ("[]", "holds no clips. It should be like"), ('{"data": 3}', "holds no clips")])
def test_json_that_is_no_data_set_is_named(tmp_path, content, words):
    (tmp_path / "clips.json").write_text(content)
    (problem,) = problems_of(config_of("json", json_path=tmp_path / "clips.json"))
    assert problem.startswith(f"{tmp_path / 'clips.json'}: {words}")


# ---------------------------------------------------------------------------------------------------- remarks

def test_text_file_of_no_clip_and_captions_made_of_names_are_remarked_on(tmp_path):
    touch(tmp_path, "IMG_1.MOV", "a_man_walking.mp4", "IMG_2.TXT")
    (tmp_path / "img_1.txt").write_text("a cat")
    found = listed(config_of("folder", class_path=tmp_path), "regularization")
    assert [clip.captions for clip in found] == [("a cat",), ("a man walking",)]
    assert found[-1].remarks == ("text files that are the caption of no clip: IMG_2.TXT",
                                 "the caption is the file name, for want of another: a_man_walking.mp4")


def test_long_lists_are_cut(tmp_path):
    touch(tmp_path, *(f"{index}.mp4" for index in range(MOST_NAMED + 3)))
    (remark,) = listed(config_of("folder", class_path=tmp_path), "regularization")[-1].remarks
    assert remark.endswith(" and 3 more")


def test_index_that_cannot_be_read_hides_no_missing_caption_file(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "b.txt")
    (tmp_path / "text.json").write_text("{")
    problems = problems_of(config_of("folder", path=tmp_path))
    assert [problem.rpartition("/")[2].split(":")[0] for problem in problems] == ["text.json", "b.txt"]
