"""Clips: every file is accounted for; nothing is stretched, mirrored, padded or dropped in silence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_frames, write_clip
from tests.filmed import ffmpeg
from training.clips import clip_report, find_clips, make_clip
from training.config import Config, TrainData
from training.data_folders import ListedClip
from training.looking import look_at_clips
from utils.containers import VIDEO_SUFFIXES
from utils.errors import UserError
from utils.video import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("one") / "spin.mp4", num_frames=10,
                      caption="a man doing the V* spin")


@pytest.fixture
def folder(tmp_path, clip) -> Path:
    """A folder of exemplars with one clip, spin.mp4, and its caption."""
    shutil.copytree(clip.parent, tmp_path / "exemplars")
    return tmp_path / "exemplars"


def find(path: Path, class_path: Path | None = None, dataset_types: tuple[str, ...] = ("folder",),
         stride: int = 16, prior_preservation: bool = True, **data):
    """Find the clips of a run that trains 64x64 windows of 4 frames at 8 fps."""
    data = {"width": 64, "height": 64, "n_sample_frames": 4, "fps": 8, **data}
    train_data = TrainData(path=str(path), class_path=class_path and str(class_path), **data)
    return find_clips(Config(train_data=train_data, dataset_types=list(dataset_types),
                             prior_preservation=prior_preservation), stride)


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def problems_of(*arguments, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        find(*arguments, **options)
    return list(caught.value.problems)


def add(folder: Path, *names: str, clip: str = "spin.mp4") -> None:
    """Copy a clip of `folder` under other names, captions too."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(folder / clip, folder / name)
        (folder / name).with_suffix(".txt").write_text("the V* spin")


# ----------------------------------------------------------------------------------------------- finding them

def test_clips_are_sorted_whatever_the_folder_lists_first(folder, monkeypatch):
    add(folder, "c.mp4", "a.mp4", "b.mp4")
    listed = list(folder.iterdir())
    for order in (listed, listed[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda self, order=order: iter(order))
        assert [found.path.name for found in find(folder)[0]] == ["a.mp4", "b.mp4", "c.mp4", "spin.mp4"]


def test_animated_pictures_are_clips_and_still_ones_are_not(folder):
    frames = [Image.fromarray(frame) for frame in draw_frames(6, 64, 64)]
    for suffix in (".webp", ".png", ".apng"):
        frames[0].save(folder / f"moving{suffix}", save_all=True, append_images=frames[1:], duration=125)
        frames[0].save(folder / f"still{suffix.replace('a', '')}")
    (folder / "moving.txt").write_text("V*")
    found, _ = find(folder)
    assert [clip.path.name for clip in found] == ["moving.apng", "moving.png", "moving.webp", "spin.mp4"]
    assert [len(clip.frames) for clip in found] == [6, 6, 6, 10]
    assert found[-1].remarks == ("also in this folder and not used: still.png, still.webp",)


def test_suffix_counts_in_any_case(folder):
    add(folder, "A.MP4", "b.Mp4")
    assert [found.path.name for found in find(folder)[0]] == ["A.MP4", "b.Mp4", "spin.mp4"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_number_of_exemplars_does_not_depend_on_regularization(folder, tmp_path, number):
    add(folder, "b.mp4", "c.mp4")
    other = tmp_path / "regularization"
    for index in range(number):
        write_clip(other / f"walk_{index}.mp4", seed=index, num_frames=5)
    exemplars, regularization = find(folder, other)
    assert (len(exemplars), len(regularization)) == (3, number)


def test_without_a_regularization_folder_there_is_none(folder):
    assert find(folder)[1] == []


def test_regularization_that_is_switched_off_is_not_looked_at(folder):
    assert find(folder, folder / "nowhere", prior_preservation=False)[1] == []


def test_hidden_files_are_no_clips(folder):
    (folder / "._spin.mp4").write_bytes(b"a Mac's notes")
    assert len(find(folder)[0]) == 1


def test_one_file_is_a_data_set(folder):
    add(folder, "b.mp4")
    exemplars, _ = find(folder / "spin.mp4", dataset_types=("single_video",))
    assert [found.path.name for found in exemplars] == ["spin.mp4"] and exemplars[0].remarks == ()


def test_one_picture_is_a_clip_of_one_frame(folder):
    Image.fromarray(draw_frames(1, 80, 60)[0]).save(folder / "robot.png")
    (folder / "robot.txt").write_text("a V* robot")
    exemplars, _ = find(folder, dataset_types=("image",))
    assert [(found.path.name, found.window, found.num_windows) for found in exemplars] == [
        ("robot.png", 1, 1)]


def test_training_on_single_frames_makes_every_frame_a_window(folder):
    (found,), _ = find(folder, train_weights="spatial")
    assert (found.window, found.num_windows) == (1, 10)


# -------------------------------------------------------------------------------------- sizes, rates, windows

@pytest.mark.parametrize("width, height, size", [(160, 90, (80, 48)), (90, 160, (48, 80)), (74, 74, (64, 64)),
                                                 (66, 50, (80, 64)), (128, 64, (96, 48))])
def test_clip_keeps_its_aspect_ratio(tmp_path, width, height, size):
    write_clip(tmp_path / "a.mp4", 5, width, height, caption="V*")
    assert find(tmp_path)[0][0].size == size


def test_without_bucketing_every_clip_has_the_size_asked_for(tmp_path):
    write_clip(tmp_path / "a.mp4", 5, 160, 90, caption="V*")
    assert find(tmp_path, use_bucketing=False)[0][0].size == (64, 64)


def test_fast_recording_is_subsampled_to_the_trained_rate(tmp_path):
    write_clip(tmp_path / "a.mp4", 13, fps=24, caption="V*")
    (found,), _ = find(tmp_path)
    assert found.frames == (0, 3, 6, 9, 12) and found.fps == 8 and found.num_windows == 2


def test_slow_recording_keeps_every_frame_and_is_remarked_on(folder):
    (found,), _ = find(folder, fps=24)
    assert found.frames == tuple(range(10)) and found.fps == 8
    assert "recorded at 8 fps, not 24: the motion is learned 3 times too fast" in found.remarks


def test_clip_of_exactly_one_window_is_enough(folder):
    (found,), _ = find(folder, n_sample_frames=10)
    assert found.num_windows == 1 and found.remarks == ()


def test_clip_too_short_is_named_with_its_length(folder):
    assert problems_of(folder, n_sample_frames=11) == [
        f"{folder / 'spin.mp4'}: has 10 frames at 8 fps; training needs 11. "
        f"Lower train_data.n_sample_frames, use a longer clip, or set train_data.allow_short_clips: true."]


def test_length_is_counted_at_the_trained_rate(tmp_path):
    write_clip(tmp_path / "a.mp4", 11, fps=24, caption="V*")
    (problem,) = problems_of(tmp_path, n_sample_frames=5)
    assert "a.mp4: has 4 frames at 8 fps; training needs 5." in problem


def test_clip_of_one_frame_is_named(tmp_path):
    write_clip(tmp_path / "a.mp4", 1, caption="V*")
    assert "a.mp4: has 1 frame at 8 fps; training needs 4." in problems_of(tmp_path)[0]


def test_short_clips_are_padded_only_when_allowed_and_said(folder):
    (found,), _ = find(folder, n_sample_frames=12, allow_short_clips=True)
    assert found.frames == (*range(10), 9, 9) and found.num_windows == 1
    assert any("its last frame is repeated, which teaches the model to freeze" in remark
               for remark in found.remarks)


def test_one_frame_padded_to_a_window_has_a_rate(tmp_path):
    write_clip(tmp_path / "a.mp4", 1, caption="V*")
    (found,), _ = find(tmp_path, allow_short_clips=True)
    assert found.frames == (0, 0, 0, 0) and found.fps == 8


# ------------------------------------------------------------------------------------------------ what is odd

def test_clip_in_order_has_no_remarks(folder):
    assert find(folder)[0][0].remarks == ()


def test_frozen_frames_are_counted(tmp_path):
    frames = draw_frames(8, 64, 64)
    frames[3:6] = frames[2]
    write_video(tmp_path / "a.mp4", frames, 8, {})
    (tmp_path / "a.txt").write_text("V*")
    assert find(tmp_path)[0][0].remarks == ("3 of 8 frames show the same picture as the one before",)


def test_caption_that_does_not_name_the_motion_is_remarked_on(folder):
    (folder / "spin.txt").write_text("a man spinning")
    assert "the caption does not name the motion (V*)" in find(folder)[0][0].remarks[0]


def test_regularization_caption_that_names_the_motion_is_remarked_on(folder, tmp_path):
    write_clip(tmp_path / "other" / "a.mp4", 5, seed=3, caption="a man doing the sks walk")
    assert "which regularization clips should not show" in find(folder, tmp_path / "other")[1][0].remarks[0]


def test_regularization_clip_that_is_an_exemplar_is_remarked_on(folder, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "spin.mp4", tmp_path / "other" / "walk.mp4")
    (tmp_path / "other" / "walk.txt").write_text("a man walking")
    assert find(folder, tmp_path / "other")[1][0].remarks == ("the same file as the exemplar spin.mp4",)


def test_same_exemplar_twice_is_remarked_on(folder):
    add(folder, "again.mp4")
    assert [found.remarks for found in find(folder)[0]] == [(), ("the same file as the exemplar again.mp4",)]


def test_slow_clips_that_a_base_rendered_itself_are_at_its_own_speed(folder, tmp_path):
    write_video(make_folder(tmp_path / "own") / "a_cat.mp4", draw_frames(10, 64, 64), 8,
                {"prompt": "a cat", "seed": 1, "base": "a base"})
    write_clip(tmp_path / "other" / "a_dog.mp4", 10, seed=3)
    own, other = (find(folder, tmp_path / name, fps=24)[1][0].remarks for name in ("own", "other"))
    assert "too fast" not in str(own) and "3 times too fast" in str(other)


def test_clip_of_a_variable_rate_is_sampled_by_time(folder):
    ffmpeg("-i", folder / "spin.mp4", "-vf", "settb=1/1000,setpts='if(lt(N,5),N*50,250+(N-5)*200)'",
           "-fps_mode", "vfr", "-enc_time_base", "1:1000", folder / "a.mkv")
    (folder / "a.txt").write_text("V*")
    found = find(folder)[0][0]
    assert found.fps == 8 and found.frames[:9] == (0, 2, 5, 5, 6, 6, 7, 8, 8)
    assert found.seconds[:4] == pytest.approx((0, 0.1, 0.25, 0.25), abs=1e-3)
    assert "64x64 @ 5 to 20 fps, 10 frames -> 64x64 @ 8 fps, " in clip_report([found], [])
    assert "the rate varies between 5 and 20 fps: sampled by time" in found.remarks


def test_every_nth_frame_is_of_those_shown(folder, monkeypatch):
    listed = ListedClip(folder / "spin.mp4", ("a V* spin",), (), frame_step=3)
    config = Config(train_data=TrainData(path=str(folder), width=64, height=64, n_sample_frames=4, fps=24))
    found = make_clip(listed, "exemplar", config, 16, look_at_clips([listed.path], None)[listed.path])
    assert found.frames == (0, 3, 6, 9) and found.fps == pytest.approx(8 / 3) and found.remarks == ()


def test_enlarged_clip_is_remarked_on(tmp_path):
    write_clip(tmp_path / "a.mp4", 5, 32, 32, caption="V*")
    assert find(tmp_path)[0][0].remarks == ("smaller than the trained size: it is enlarged",)


def test_what_is_not_used_is_named(folder):
    write_clip(folder / "more" / "b.mp4", 2)
    os.rename(write_clip(folder / "c.mp4", 2), folder / "c.mxf")
    Image.fromarray(draw_frames(1, 32, 32)[0]).save(folder / "d.png")
    (folder / "gone.mp4").symlink_to("nowhere")
    for companion in ("README.md", "video_lightbox.html", ".DS_Store", "prompts.txt", "notes.txt"):
        (folder / companion).write_text("")
    assert find(folder)[0][0].remarks == ("text files that are the caption of no clip: notes.txt",
                                          "also in this folder and not used: c.mxf, d.png, gone.mp4, more")


def test_captions_of_clips_that_are_not_here_are_named(folder):
    (folder / "text.json").write_text('{"spin.mp4": "V*", "jump.mp4": "V*", "walk": "V*"}')
    assert find(folder)[0][0].remarks == (
        "text.json also has captions for jump.mp4, walk, which are not here",)


# --------------------------------------------------------------------------------------------------- captions

def test_identifier_in_captions_becomes_the_placeholder(folder):
    assert find(folder)[0][0].captions == ("a man doing the sks spin",)


def test_fallback_captions_serve_exemplars_without_any(folder):
    (folder / "spin.txt").unlink()
    (found,), _ = find(folder, fallback_prompt=["a V* spin", "the V* spin"])
    assert found.captions == ("a sks spin", "the sks spin")


def test_regularization_caption_is_the_file_name_without_its_path(folder, tmp_path):
    write_clip(tmp_path / "some_folder" / "a_man_walking.mp4", 5, seed=2)
    assert find(folder, tmp_path / "some_folder")[1][0].captions == ("a man walking",)


def test_class_prompt_comes_before_the_file_name(folder, tmp_path):
    write_clip(tmp_path / "other" / "clip_0001.mp4", 5, seed=2)
    assert find(folder, tmp_path / "other", class_prompt=["a person"])[1][0].captions == ("a person",)


def test_exemplar_without_a_caption_is_refused_even_if_its_name_says_something(folder):
    (folder / "spin.txt").unlink()
    assert problems_of(folder) == [
        f"{folder / 'spin.mp4'}: it has no caption. "
        f"Write spin.txt beside it, or set train_data.fallback_prompt."]


# ---------------------------------------------------------------------------------------------- what is wrong

def test_missing_folder_is_named(tmp_path):
    assert problems_of(tmp_path / "nowhere") == [
        f"train_data.path: {tmp_path / 'nowhere'} does not exist. Name a folder of clips."]


def test_missing_regularization_folder_is_named(folder, tmp_path):
    assert problems_of(folder, tmp_path / "nowhere") == [
        f"train_data.class_path: {tmp_path / 'nowhere'} does not exist. Name a folder of clips."]


def test_path_too_long_for_the_system_is_named():
    assert "cannot be read (File name too long)" in problems_of(Path("x" * 5000))[0]


def test_empty_folder_is_named(tmp_path):
    assert problems_of(tmp_path) == [
        f"train_data.path: {tmp_path} holds no clips ({', '.join(VIDEO_SUFFIXES)}, animated .png, .webp). "
        f"Put some into it, or name another folder."]


def test_folder_of_other_files_is_named(tmp_path):
    (tmp_path / "notes.pdf").write_text("")
    assert f"train_data.path: {tmp_path} holds no clips" in problems_of(tmp_path)[0]


def test_file_where_a_folder_is_meant_is_told_how(folder):
    assert "is a file. Name its folder, or set dataset_types: [single_video]." in \
        problems_of(folder / "spin.mp4")[0]


def test_many_clips_where_one_is_meant_are_counted(folder):
    add(folder, "b.mp4")
    assert "holds 2 clips. Name one, or set dataset_types: [folder]." in \
        problems_of(folder, dataset_types=("single_video",))[0]


def test_everything_wrong_with_every_clip_is_said_at_once(folder, tmp_path):
    whole = (folder / "spin.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[:-100])
    (folder / "none.mp4").touch()
    (folder / "text.mp4").write_text("not a video at all")
    (folder / "bare.mp4").write_bytes(whole)
    write_clip(folder / "short.mp4", 2, caption="V*")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "broken.mp4").write_bytes(whole[:-100])
    for name in ("cut", "none", "text"):
        (folder / f"{name}.txt").write_text("V*")
    problems = problems_of(folder, tmp_path / "other")
    assert [Path(problem.split(":")[0]).name for problem in problems] == [
        "bare.mp4", "cut.mp4", "none.mp4", "short.mp4", "text.mp4", "broken.mp4"]


def test_broken_clip_is_not_replaced_by_another(folder):
    (folder / "broken.mp4").write_text("x")
    (folder / "broken.txt").write_text("V*")
    assert len(problems_of(folder)) == 1


def test_damage_in_the_middle_is_found_before_training(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 8, {})
    (tmp_path / "a.txt").write_text("V*")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    half = (content.index(b"mdat") + len(content)) // 2
    content[half:-10] = b"\x55" * (len(content) - half - 10)
    (tmp_path / "a.mp4").write_bytes(bytes(content))
    assert "a.mp4: frame" in problems_of(tmp_path)[0] and "cannot be decoded" in problems_of(tmp_path)[0]


def test_index_that_is_not_json_is_reported_with_the_clips(folder):
    (folder / "text.json").write_text("{")
    (folder / "none.mp4").touch()
    problems = problems_of(folder)
    assert len(problems) == 2
    assert "text.json: is not JSON" in problems[0] and "none.mp4: is empty" in problems[1]


# --------------------------------------------------------------------------------------------- cached latents

def test_plain_clips_keep_the_latents_of_earlier_versions(folder):
    """Those of an odd file, or of frames that decord found by seeking, may be of wrong frames."""
    ffmpeg("-i", folder / "spin.mp4", "-vf", "setsar=4/3", folder / "wide.mp4")
    write_clip(folder / "fast.mp4", 31, fps=24)
    found = {clip.path.name: clip.is_read_as_ever for clip in find(folder, fallback_prompt=["V*"])[0]}
    assert found == {"spin.mp4": True, "wide.mp4": False, "fast.mp4": False}


# ------------------------------------------------------------------------------------------------- the report

def test_report_has_a_line_for_every_clip(folder, tmp_path):
    write_clip(folder / "wide.mp4", 13, 160, 90, fps=24, caption="a cat doing the V* spin")
    write_clip(tmp_path / "other" / "a_dog_running.mp4", 5, seed=4)
    assert clip_report(*find(folder, tmp_path / "other")).splitlines() == [
        "2 exemplar clips",
        ('  spin.mp4: 64x64 @ 8 fps, 10 frames -> 64x64 @ 8 fps, 10 frames, 7 windows, '
         '"a man doing the sks spin"'),
        ('  wide.mp4: 160x90 @ 24 fps, 13 frames -> 80x48 @ 8 fps, 5 frames, 2 windows, '
         '"a cat doing the sks spin"'),
        "1 regularization clip",
        '  a_dog_running.mp4: 64x64 @ 8 fps, 5 frames -> 64x64 @ 8 fps, 5 frames, 2 windows, "a dog running"',
        "    note: the caption is the file name, for want of another: a_dog_running.mp4",
    ]


def test_picture_has_no_rate_in_the_report(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    data = TrainData(image_dir=str(tmp_path), width=64, height=48, fallback_prompt=["V*"])
    clips = find_clips(Config(train_data=data, dataset_types=["image"]), 16)
    assert clip_report(*clips).splitlines()[1] == '  a.png: 64x48, 1 frame -> 64x48, 1 frame, 1 window, "sks"'


def test_report_of_one_file_of_each_kind_fits_one_screen(folder):
    source, hevc = ["-i", folder / "spin.mp4"], ["-c:v", "libx265", "-x265-params", "log-level=none"]
    for name, arguments in {
            "anamorphic.mp4": ["-vf", "setsar=4/3"], "b.avi": ["-c:v", "mpeg4", "-bf", 2], "broadcast.ts": [],
            "camera.mpg": ["-r", 25, "-c:v", "mpeg2video", "-vf", "interlace", "-flags", "+ilme+ildct"],
            "cut.mp4": ["-ss", 0.5, "-c", "copy"],
            "hdr.mp4": [*hevc, "-vf", "setparams=color_trc=arib-std-b67"],
            "hevc.mkv": hevc, "screen.webm": [], "sticker.gif": [],
            "sticker.webp": [], "sticker.apng": ["-f", "apng"], "old.wmv": []}.items():
        before = arguments[:2] if "-ss" in arguments else []
        ffmpeg(*before, *source, *arguments[len(before):], folder / name)
    ffmpeg("-display_rotation", 90, *source, "-c", "copy", folder / "phone.mov")
    lines = clip_report(*find(folder, fallback_prompt=["V*"], n_sample_frames=2)).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 120
    for said in ("anamorphic.mp4: 85x64 @ 8 fps, 10 frames", "interlaced: its comb lines are removed",
                 "recorded at 64x64, with pixels that are 4/3 as wide as high",
                 "4 more frames are recorded, which players do not show",
                 "HDR (HLG): mapped to the ordinary range", "sticker.webp: 64x64 @ 8 fps, 10 frames",
                 "phone.mov: 64x64 @ 8 fps"):
        assert any(said in line for line in lines), (said, lines)


def test_report_has_what_is_odd_below_the_clip(folder):
    (folder / "spin.txt").unlink()
    exemplars, regularization = find(folder, fallback_prompt=["spinning", "turning"], n_sample_frames=10)
    lines = clip_report(exemplars, regularization).splitlines()
    assert lines[1].endswith('1 window, "spinning" (+1 more)')
    assert lines[2].startswith("    note: the caption does not name the motion")


def test_shifts_belong_to_the_clip_and_stay_if_there_are_more_of_them(folder):
    add(folder, "again.mp4")
    (one, same), _ = find(folder, num_shifts=3, max_shift=0.2)
    (more, _), _ = find(folder, num_shifts=50, max_shift=0.2)
    assert one.shifts == same.shifts == more.shifts[:4] and one.shifts[0] == 0
    assert -0.2 <= min(more.shifts) < -0.15 and 0.15 < max(more.shifts) <= 0.2
    assert len(set(more.shifts)) == 51 and find(folder)[0][0].shifts == (0,)
