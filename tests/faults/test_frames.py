"""Every frame trained on is the frame that a player shows at its moment, whatever file it comes from.

tests/odd_videos.py makes the files, and tests/filmed.py asks ffmpeg what each of them shows. Here both are
compared with what a run trains on, at every rate from 3 to 60 frames a second.
"""

import functools
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.filmed import EXACT, Shown, Unclear, look, numbers_on, regions_of_crop, shown
from tests.odd_videos import Kind, kinds
from tests.reliability import IS_FULL, Report, count, numbers
from training.clips import Clip, find_clips
from training.config import Config, TrainData
from utils.errors import UserError
from utils.video import iter_frames, read_frames

RATES = range(3, 61)
TOLERANCE = 12   # levels of 255, between the colours of two decoders
# what a reader may refuse, and why; everything else it has to read
MAY_BE_REFUSED = {
    "cut_3_h264.flv": "ffmpeg shows nothing of it",
    "frames.y4m": "uncompressed, between programs; nobody keeps clips in it",
}
# remarks on what the config asks for, not on the file
OF_SETTINGS = re.compile(r"recorded at [\d.]+ fps|smaller than the trained size")
# those that a dry run writes as pictures
WRITTEN = ["times_0.mkv", "cut_0.mp4", "pixels_4_3.mov", "delays_7.gif", "turned_90.mp4"]


class Samples(NamedTuple):
    """What is on the frames that are trained on."""

    codes: list[int | None]
    patches: np.ndarray                 # (f n c)
    seconds: Sequence[float] | None     # said to be their moments; None: nothing is said


def find(path: Path, fps: float) -> Clip:
    data = TrainData(path=str(path), width=80, height=80, n_sample_frames=1, fps=fps, fallback_prompt=["V*"])
    config = Config(train_data=data, dataset_types=["single_video"], prior_preservation=False)
    return find_clips(config, stride=8)[0][0]


def faults(kind: Kind, clip: Clip, fps: float, player: Shown) -> list[str]:
    """Say what is wrong with the frames of `clip`, sampled at `fps`."""
    codes, patches = trained_on(clip.path, clip.frames, clip.size, player.size, clip.info.is_plain)
    if len(codes) != len(clip.frames):
        return [f"{len(codes)} frames are read of {len(clip.frames)}"]
    if player.codes.count(None) > 0.1 * len(player.codes):
        return ["ffmpeg's own frames have no numbers that can be read: mend the kind, not the reader"]
    samples = Samples(codes, patches, getattr(clip, "seconds", None))
    found = min((mismatches(samples, way, fps, player, kind.theme != "HDR") for way in player.samples(fps)),
                key=len)
    remarks = " ".join(clip.remarks)
    if kind.alpha and patches[:, 4].min() < 225 and not re.search("transparen|alpha", remarks):
        found.append(f"hidden colours {patches[0, 4].round().tolist()} are shown without a note")
    if kind.theme == "HDR" and not re.search("HDR|tone|PQ|HLG", remarks) \
            and np.abs(patches[0] - player.patches[0])[:4].max() < TOLERANCE:
        found.append("HDR is neither tone-mapped nor noted")
    return found


@functools.lru_cache(maxsize=64)   # every rate above a clip's own takes the same frames
def trained_on(path: Path, frames: tuple[int, ...], size: tuple[int, int],
               displayed: tuple[float, float], is_plain: bool) -> tuple[list[int | None], np.ndarray]:
    """Return what is on the frames at the trained `size`, as `look` does, read as training reads them."""
    pixels = np.concatenate(list(iter_frames(path, frames, size, is_plain=is_plain)))
    return look(pixels, regions_of_crop(displayed, size))


def mismatches(samples: Samples, way: tuple[list[set[int]], int], fps: float, player: Shown,
               with_colours: bool = True) -> list[str]:
    """Say what is wrong with trained frames if the file is sampled in this way, one of `Shown.samples`."""
    (expected, num_samples), found = way, []
    if not num_samples <= len(samples.codes) <= len(expected):
        found.append(f"{len(samples.codes)} samples, not {num_samples} to {len(expected)}")
    for index, (code, right) in enumerate(zip(samples.codes, expected)):
        codes = {player.codes[frame] for frame in right}
        if code not in codes and None not in codes:
            found.append(f"sample {index} shows frame {code}, not {' or '.join(map(str, sorted(codes)))}")
        elif with_colours and not any(is_close(samples.patches[index], player.patches[frame])
                                      for frame in right):
            found.append(f"sample {index} has colours {samples.patches[index, :4].round().tolist()}, not "
                         f"{player.patches[min(right), :4].round().tolist()}")
        moments = np.array([index / fps, *(player.seconds[frame] for frame in right)])
        if samples.seconds and np.abs(moments - samples.seconds[index]).min() > player.tick + EXACT:
            found.append(f"sample {index} is said to be at {samples.seconds[index]:.4f} s")
    return found


def is_close(patches: np.ndarray, expected: np.ndarray) -> bool:
    """Compare colours (n c), but for the last one, which may be transparent."""
    return np.abs(patches - expected)[:4].max() <= TOLERANCE


def faults_of_size(clip: Clip, player: Shown) -> list[str]:
    """Say what is wrong with the size of frames, their number, and what is said of both."""
    shown_width, shown_height = player.size
    height, width = read_frames(clip.path, clip.frames[:1]).shape[1:3]
    found = []
    if abs(width * shown_height - height * shown_width) > max(width, height) * 1.01:   # a pixel, rounded
        found.append(f"a frame is {width}x{height}; {shown_width:g}x{shown_height:g} is displayed")
    if (clip.info.width, clip.info.height) != (width, height):
        found.append(f"a frame is {width}x{height} and said to be {clip.info.width}x{clip.info.height}")
    if clip.info.num_frames != len(player.codes):
        found.append(f"{clip.info.num_frames} frames are counted of {len(player.codes)}")
    return found


def judge(kind: Kind, path: Path, rates: list[int]) -> tuple[str, list[str]]:
    """Return right, noted, refused or wrong, and what is wrong or said."""
    try:
        player, unclear = shown(path), ""
    except Unclear as reason:
        player, unclear = None, str(reason)
    wrong, remarks = [], set()
    for fps in rates:
        try:
            clip = find(path, fps)
            found = faults(kind, clip, fps, player) if player else []
            if fps == rates[0] and player:
                found = faults_of_size(clip, player) + found
        except UserError as error:
            if kind.name in MAY_BE_REFUSED and is_one_line(error, path):
                return "refused", list(error.problems)
            return "wrong", [f"refused: {error}"]
        remarks |= {remark for remark in clip.remarks if not OF_SETTINGS.match(remark)}
        if found:
            wrong.append(f"{fps} fps: {'; '.join(found[:3])}" + f" (+{len(found) - 3})" * (len(found) > 3))
    if unclear and not remarks and not is_as_filmed(kind, clip):
        wrong.append(f"{unclear}, and neither a refusal nor a remark says so")
    return ("wrong", wrong) if wrong else ("noted", sorted(remarks)) if remarks else ("right", [])


def is_as_filmed(kind: Kind, clip: Clip) -> bool:
    """Say whether a file of one film is read as it was filmed: every frame, in order, at the film's rate."""
    numbers_read = numbers_on(read_frames(clip.path, range(clip.info.num_frames)))
    return numbers_read == list(range(kind.num_frames)) and abs(clip.info.fps - Fraction(kind.rate)) < 0.01


def is_one_line(error: UserError, path: Path) -> bool:
    return len(error.problems) == 1 and "\n" not in str(error) and str(error).startswith(f"{path}:")


def chosen() -> list[Kind]:
    """Return all kinds, or a sample with every theme as likely as any other."""
    everything, rng = kinds(), numbers("frames")
    if IS_FULL:
        return rng.sample(everything, min(len(everything), count(sample=0, full=len(everything))))
    themes = sorted({kind.theme for kind in everything} - {"long", "large", "aom"})   # they take long
    themes = rng.sample(themes, count(sample=12, full=0))
    return [rng.choice([kind for kind in everything if kind.theme == theme]) for theme in themes]


def test_frames_trained_on_are_those_that_a_player_shows(tmp_path):
    report, table, wrong = Report("frames"), {}, []
    for kind in chosen():
        path = tmp_path / kind.name
        if trouble := kind.write(tmp_path):
            report.add("not made, for lack of an encoder")
            wrong += [f"{kind.name} cannot be made: {trouble}"] * ("Unknown encoder" not in trouble)
            continue
        rates = list(RATES) if IS_FULL else numbers("rates", kind.name).sample(RATES, 3)
        outcome, said = judge(kind, path, rates)
        report.add(outcome)
        table.setdefault(kind.theme, Counter()).update(["files", outcome])
        if outcome == "wrong":
            commands = "\n".join("    " + shlex.join(command) for command in kind.commands(tmp_path))
            wrong.append(f"{kind.name} ({kind.theme}): {len(said)} of {len(rates)} rates wrong\n  "
                         + "\n  ".join(said[:4]) + f"\n{commands}")
        print(f"{kind.theme:24} {kind.name:40} {outcome:8}", *said[:2], flush=True)
        path.unlink()
    report.figures = {theme: ", ".join(f"{number} {word}" for word, number in counts.most_common())
                      for theme, counts in sorted(table.items())}
    report.write()
    assert not wrong, f"{len(wrong)} files\n" + "\n".join(wrong)


def test_every_kind_of_file_is_named_once():
    names = [kind.name for kind in kinds()]
    assert len(names) == len(set(names)) >= 400
    assert set(MAY_BE_REFUSED) <= set(names)


@pytest.mark.parametrize("name", ["bff.mkv", "turned_90.mp4", "pixels_4_3.mp4", "times_0.mkv"])
def test_what_is_filmed_can_be_told_from_what_is_not(tmp_path, name):
    """The comparison itself finds frames that are missing, swapped, or said to be at another moment."""
    (kind,) = [kind for kind in kinds() if kind.name == name]
    kind.write(tmp_path)
    player = shown(tmp_path / name)
    assert player.codes == list(range(kind.num_frames))
    assert abs(player.size[0] / player.size[1] - 4 / 3) < 0.01
    (way,) = player.samples(5)
    frames = [min(right) for right in way[0]][: way[1]]
    right = Samples([player.codes[frame] for frame in frames], player.patches[frames],
                    [index / 5 for index in range(len(frames))])
    swapped = right._replace(codes=[right.codes[1], right.codes[0], *right.codes[2:]])
    late = right._replace(seconds=[*right.seconds[:-1], right.seconds[-1] + 0.3])
    pale = right._replace(patches=right.patches * 0.9)
    assert mismatches(right, way, 5, player) == []
    assert [len(mismatches(wrong, way, 5, player)) for wrong in (swapped, late)] == [2, 1]
    assert len(mismatches(pale, way, 5, player)) == len(frames)
    assert mismatches(right._replace(codes=right.codes[:-1]), way, 5, player)


def test_dry_run_writes_the_frames_that_a_player_shows(tmp_path, write_config, run_main):
    """--frames DIR: DIR/{clip}/{number}_{seconds}.png, compared as the frames of `read_frames` are."""
    (tmp_path / "clips").mkdir()
    written = [kind for kind in kinds() if kind.name in WRITTEN]
    for kind in written:
        kind.write(tmp_path)
        (tmp_path / kind.name).rename(tmp_path / "clips" / kind.name)
    config = write_config(f"train_data.path={tmp_path / 'clips'}", "train_data.class_path=null",
                          "train_data.fallback_prompt=V*", "train_data.width=80", "train_data.height=80")
    code, out, err = run_main("train_model", "--config", config, "--dry-run", "--frames", tmp_path / "frames")
    assert code == 0, err
    for kind in written:
        player = shown(tmp_path / "clips" / kind.name)
        found = [(re.fullmatch(r"(\d{5})_([\d.]+)\.png", path.name), path)
                 for path in sorted((tmp_path / "frames" / kind.name).iterdir())]
        assert [int(match[1]) for match, _ in found] == list(range(len(found)))
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for _, path in found])
        boxes = regions_of_crop(player.size, (pixels.shape[2], pixels.shape[1]))
        samples = Samples(*look(pixels, boxes), None)
        assert min((mismatches(samples, way, 8, player) for way in player.samples(8)), key=len) == []
        seconds = find(tmp_path / "clips" / kind.name, 8).seconds   # which the other tests compare
        assert [match[2] for match, _ in found] == [f"{moment:.3f}" for moment in seconds]
