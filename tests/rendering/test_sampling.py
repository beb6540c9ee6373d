"""Rendering to a folder: videos are decoded in chunks, and written while the next ones are rendered."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import base as base_module
from models.base import decode_latents, load_base
from rendering import video_folder
from rendering.sampling import Rendering, embed, render
from rendering.video_folder import render_to_folder
from utils.errors import UserError
from utils.prompts import Prompt

HOW = Rendering(32, 16, 3, 1, 9.0, sampler="base")
PROMPTS = [Prompt(1, "a cat"), Prompt(2, "a dog"), Prompt(3, "a man")]
NAMES = ["a_cat_seed1.mp4", "a_dog_seed2.mp4", "a_man_seed3.mp4"]
SECONDS = 60   # to wait for another thread before the test has failed


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return load_base(str(tiny_base)).pipeline


@pytest.fixture
def quick_render(monkeypatch):
    """Rendering that takes no time, noted: {prompt: an event}."""
    rendered = {prompt: threading.Event() for prompt in PROMPTS}

    def render(pipeline, batch, how):
        for prompt in batch:
            rendered[prompt].set()
        return np.random.default_rng(0).integers(0, 255, (len(batch), 3, 16, 32, 3), dtype=np.uint8)

    monkeypatch.setattr(video_folder, "render", render)
    return rendered


def render_all(pipeline, folder, batch_size: int = 1, progress=iter) -> list[str]:
    return render_to_folder(pipeline, PROMPTS, HOW, folder, 8.0, batch_size, {}, progress=progress)


def test_frame_by_frame_is_what_diffusers_decodes(pipeline, monkeypatch):
    monkeypatch.setattr(base_module, "frames_at_once", lambda vae, latents: 1)
    generators = [torch.Generator("cpu").manual_seed(prompt.seed) for prompt in PROMPTS]
    pipeline.vae.enable_slicing()
    frames = pipeline([prompt.text for prompt in PROMPTS], height=16, width=32, num_frames=3,
                      num_inference_steps=1, generator=generators, negative_prompt=[""] * 3).frames
    pipeline.vae.disable_slicing()
    assert np.array_equal(render(pipeline, PROMPTS, HOW), (frames * 255).round().astype(np.uint8))


@pytest.mark.parametrize("at_once", [2, 3, 8])
def test_chunks_of_any_size_are_equal_within_rounding(pipeline, monkeypatch, at_once):
    def decode(num: int) -> np.ndarray:
        monkeypatch.setattr(base_module, "frames_at_once", lambda vae, latents: num)
        return decode_latents(pipeline.vae, latents)

    latents = torch.randn(4, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    one_by_one, chunked = decode(1), decode(at_once)
    assert one_by_one.shape == (5, 16, 32, 3) and np.ptp(one_by_one) > 100
    assert np.abs(one_by_one.astype(int) - chunked).max() <= 1


def test_frames_decoded_at_once_fit_the_memory(pipeline, monkeypatch):
    """Of 16 channels in the last level: 4 x 16 x 4 bytes a pixel."""
    monkeypatch.setattr(base_module, "DECODED_BYTES", 10 * 256 * 32 * 16)
    assert base_module.frames_at_once(pipeline.vae, torch.zeros(64, 4, 2, 4)) == 10
    assert base_module.frames_at_once(pipeline.vae, torch.zeros(64, 4, 200, 400)) == 1


def test_what_overflows_is_black(pipeline):
    assert not decode_latents(pipeline.vae, torch.full((4, 2, 2, 4), torch.nan)).any()


def test_next_batch_is_rendered_while_one_is_written(pipeline, quick_render, monkeypatch, tmp_path):
    write, waited = video_folder.write_video, []

    def slow_write(path, *others):
        if path.name == NAMES[0]:
            waited.append(quick_render[PROMPTS[1]].wait(SECONDS))
        write(path, *others)

    monkeypatch.setattr(video_folder, "write_video", slow_write)
    render_all(pipeline, tmp_path)
    assert waited == [True]
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == NAMES


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_videos_are_written_in_order(pipeline, quick_render, monkeypatch, tmp_path, batch_size):
    write, written = video_folder.write_video, []
    monkeypatch.setattr(video_folder, "write_video",
                        lambda path, *others: (written.append(path.name), write(path, *others)))
    render_all(pipeline, tmp_path, batch_size)
    assert written == NAMES
    assert list(json.loads((tmp_path / "text.json").read_text())) == NAMES


@pytest.mark.parametrize("failing", [0, 2], ids=["first", "last"])
def test_failure_to_write_reaches_the_user(pipeline, quick_render, monkeypatch, tmp_path, failing):
    write = video_folder.write_video

    def full_disk(path, *others):
        if path.name == NAMES[failing]:
            raise UserError(f"{path}: could not be written.")
        write(path, *others)

    monkeypatch.setattr(video_folder, "write_video", full_disk)
    with pytest.raises(UserError, match=f"{NAMES[failing]}: could not be written."):
        render_all(pipeline, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == NAMES[:failing]
    assert quick_render[PROMPTS[2]].is_set() == (failing == 2)   # nothing is rendered in vain for long


def test_what_was_rendered_before_ctrl_c_is_on_disk_and_in_the_index(pipeline, quick_render, tmp_path):
    def interrupted(batches):
        yield from batches[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_all(pipeline, tmp_path, progress=interrupted)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".mp4") == NAMES[:2]
    assert list(json.loads((tmp_path / "text.json").read_text())) == NAMES[:2]
    assert not list(tmp_path.glob(".*.partial*"))


def test_weighted_prompts_are_rendered_as_compel_reads_them(pipeline):
    pytest.importorskip("compel")
    texts = ["a robot dancing", "a robot++ dancing", "a (robot)1.21 dancing", "a robot-- dancing",
             "a robot dancing"]
    prompts = [Prompt(1, text) for text in texts]
    together = embed(pipeline, texts)                                                    # (b n d)
    alone = torch.cat([embed(pipeline, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    plain, more, same, less, again = alone
    assert torch.equal(plain, again) and torch.allclose(more, same, atol=1e-5)
    assert not torch.allclose(plain, more, atol=1e-2) and not torch.allclose(plain, less, atol=1e-2)
    how = replace(HOW, num_inference_steps=2)
    assert not np.array_equal(*render(pipeline, prompts[:2], how))
    negative, weighted = (render(pipeline, prompts[:1], replace(how, negative_prompt=text))
                          for text in ("a robot", "a robot++"))
    assert not np.array_equal(negative, weighted)


def test_captions_and_gallery_are_not_written_for_every_batch(pipeline, quick_render, monkeypatch, tmp_path):
    write, written = video_folder.write_gallery, []
    monkeypatch.setattr(video_folder, "write_gallery", lambda folder: (written.append(folder), write(folder)))
    render_all(pipeline, tmp_path)
    assert len(written) == 2   # before the first video and after the last
    monkeypatch.setattr(video_folder, "INDEX_SECONDS", -1)
    render_to_folder(pipeline, PROMPTS, replace(HOW, width=64), tmp_path, 8.0, 1, {}, overwrite=True)
    assert len(written) == 2 + 2 + len(PROMPTS)   # as after a long time: with every batch
    assert list(json.loads((tmp_path / "text.json").read_text())) == NAMES
