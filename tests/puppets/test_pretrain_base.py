"""The maker of the bundled base: tokenizer, captions, exact resuming, a folder stock diffusers loads."""

import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from puppets import base_networks as networks
from puppets import theatre, training_run, world
from puppets.tokenizer import build_tokenizer, tokenize
from utils.errors import UserError


@pytest.fixture(scope="module")
def script():
    from puppets import pretrain_base as module

    module.SHARD_CLIPS, module.FIRST_SHARDS, module.FRAME_STEPS = 4, 1, 4
    module.NORMALIZING_FRAMES, module.PSNR_CLIPS = 16, 2
    return module


@pytest.fixture(scope="module")
def tokenizer(script):
    return build_tokenizer(script.base_words())


@pytest.fixture
def run_stage(script, monkeypatch):
    """Run a stage of the script in this process, with small batches and, for speed, small networks."""
    from diffusers import AutoencoderKL, UNet3DConditionModel

    def small_autoencoder():
        return AutoencoderKL(
            latent_channels=8, norm_num_groups=8, block_out_channels=(8,) * 4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)

    def small_unet():
        return UNet3DConditionModel(
            sample_size=8, in_channels=8, out_channels=8, block_out_channels=(32, 32), layers_per_block=1,
            attention_head_dim=16, norm_num_groups=8, cross_attention_dim=networks.TEXT_WIDTH,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))

    monkeypatch.setattr(networks, "build_unet", small_unet)
    monkeypatch.setattr(networks, "build_autoencoder", small_autoencoder)

    def run(work_dir: Path, stage: str, steps: int, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["pretrain_base.py", "--work-dir", str(work_dir),
                                          "--stage", stage, "--steps", str(steps), "--batch-size", "2",
                                          "--mixed-precision", "no", *more])
        script.main()

    return run


@pytest.fixture(scope="module")
def first_stages(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("first_stages")


@pytest.fixture
def start(run_stage, first_stages):
    """Return a function that fills a work folder with the autoencoder and text stages, which run once."""
    def copy(work_dir: Path) -> Path:
        for stage in ("autoencoder", "text"):
            if not (first_stages / f"{stage}.pt").exists():
                run_stage(first_stages, stage, 1)
        return shutil.copytree(first_stages, work_dir, dirs_exist_ok=True)

    return copy


def weights(work_dir: Path, stage: str) -> list[torch.Tensor]:
    state = torch.load(work_dir / f"{stage}.pt", weights_only=True)
    return [*state["model"].values(), *state["average"]]


def test_every_word_of_the_world_is_one_token(script, tokenizer):
    for word in script.base_words():
        assert len(tokenizer.tokenize(word)) == 1, word


def test_any_text_has_tokens_that_spell_it(tokenizer):
    for text in ("V* dance", "Zażółć gęślą jaźń", "漢字 🤖", "a%$#@!"):
        tokens = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in tokens[1:-1]
        spelled = tokenizer.decode(tokens, skip_special_tokens=True)
        assert spelled.replace(" ", "") == text.lower().replace(" ", "")


def test_the_placeholder_is_one_token_that_pretraining_never_uses(script, tokenizer):
    (placeholder,) = tokenizer("sks").input_ids[1:-1]
    rng = np.random.default_rng(0)
    captions = [script.write_training_caption(world.draw_scene(rng), rng)[0] for _ in range(2000)]
    assert not (tokenize(tokenizer, captions) == placeholder).any()


def test_made_up_words_replace_the_motion_and_nothing_else(script):
    rng = np.random.default_rng(0)
    unsaid = []
    for _ in range(1000):
        scene = world.draw_scene(rng)
        caption, says_motion = script.write_training_caption(scene, rng)
        if not says_motion:
            unsaid.append(caption)
            assert scene.character in caption or world.PLURALS[scene.character] in caption
            assert not any(phrase in caption for phrase in world.MOTION_PHRASES[scene.motion])
    assert 20 < len(unsaid) < 90


UNSAID = (8, 12, 12, 2, 4, 2)   # motion, arm, other arm, in turn, legs, body


def test_what_the_parts_of_a_motion_do_are_labels(script):
    """Else the text encoder would pass over them, and the UNet could not tell these motions apart."""
    rng, motion_of = np.random.default_rng(0), {}
    for _ in range(500):
        scene = world.draw_composed_scene(rng)
        caption, says_motion = script.write_training_caption(scene, rng)
        labels = script.caption_labels([scene], [caption], [says_motion])[0].tolist()
        parts = tuple(labels[list(script.CAPTION_LABELS).index("motion"):])
        assert says_motion == (scene.motion in caption) == (parts != UNSAID)
        assert not says_motion or motion_of.setdefault(parts, scene.motion) == scene.motion
        assert parts[0] == len(world.EVERYDAY_MOTIONS)   # none of them
    assert len(motion_of) == len(set(motion_of.values())) > 200


def test_what_a_caption_leaves_out_is_labelled_as_unsaid(script):
    scene = world.Scene("robot", "walking", "snow", 2)
    assert script.caption_labels([scene] * 2, ["two robots walking in the snow", "two robots doing the blu"],
                                 [True, False]).tolist() == [
        [3, 1, 2, 1, *UNSAID[1:]], [3, 1, 7, *UNSAID]]


def sampled_deviation(vae, pixels) -> tuple[torch.Tensor, torch.Tensor]:
    """Of sampled latents, and of the noise in them, in each channel."""
    mean, std = networks.encode_pixels(vae, pixels)
    noise = std.square().mean(dim=(0, 2, 3)).sqrt()
    return (mean.var(dim=(0, 2, 3)) + noise**2).sqrt(), noise


def test_normalized_latents_decode_to_the_same_frames():
    torch.manual_seed(0)
    vae = networks.build_autoencoder().eval().requires_grad_(False)
    with torch.no_grad():
        vae.quant_conv.bias[networks.LATENT_CHANNELS:] = -12   # noise of exp(-6), less than the most
    pixels = networks.to_vae_pixels(theatre.draw_clips(8, seed=0, num_frames=2).frames.reshape(-1, 64, 64, 3))
    before, std = networks.encode_pixels(vae, pixels)
    decoded, (spread, noise) = vae.decode(before).sample, sampled_deviation(vae, pixels)
    assert (noise / spread < networks.MOST_NOISE).all()
    networks.normalize_latents(vae, pixels)
    latents, new_std = networks.encode_pixels(vae, pixels)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (sampled_deviation(vae, pixels)[0] - 1).abs().max() < 1e-2
    assert torch.allclose(vae.decode(latents).sample, decoded, atol=1e-4)
    assert torch.allclose(new_std, std / spread[:, None, None], rtol=1e-2)


def test_channel_that_says_nothing_is_not_the_loudest():
    """Two of eight of the bundled autoencoder were so: scaled by their means alone, they were all noise."""
    torch.manual_seed(0)
    vae = networks.build_autoencoder().eval().requires_grad_(False)
    with torch.no_grad():
        vae.quant_conv.weight[0] *= 1e-3                  # its means hardly differ ...
        vae.quant_conv.bias[networks.LATENT_CHANNELS] = 0     # ... and its noise has a deviation of 1
    pixels = networks.to_vae_pixels(theatre.draw_clips(8, seed=0, num_frames=2).frames.reshape(-1, 64, 64, 3))
    networks.normalize_latents(vae, pixels)
    deviation, noise = sampled_deviation(vae, pixels)
    assert deviation[0] < 0.1 and (deviation < 1.01).all()
    assert (noise < 1.01 * networks.MOST_NOISE).all()


def test_stopping_and_going_on_equals_training_through(run_stage, start, tmp_path):
    through, stopped = start(tmp_path / "through"), start(tmp_path / "stopped")
    for work_dir, stops in ((through, (2,)), (stopped, (1, 2))):
        for steps in stops:
            run_stage(work_dir, "video", steps)
    for a, b in zip(weights(through, "video"), weights(stopped, "video"), strict=True):
        assert torch.equal(a, b)


def test_rate_falls_in_a_line_to_0_between_the_steps_asked_for():
    rates = [training_run.root_rate(1e-3, step, 200, 1500) * training_run.cooldown(step, 6000, 8000)
             for step in range(8001)]
    assert rates[199] == rates[1500] == 1e-3 and rates[99] == pytest.approx(5e-4)     # warm-up, then flat
    assert rates[6000] == pytest.approx(5e-4)            # the root of 1500 / 6000, of which all is left
    assert rates[7000] == pytest.approx(1e-3 * (1500 / 7000) ** 0.5 / 2)
    assert rates[7999] == pytest.approx(1e-3 * (1500 / 7999) ** 0.5 / 2000) and rates[8000] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[1500:]))


def test_video_stage_under_way_cools_down_between_the_steps_asked_for(run_stage, start, tmp_path):
    start(tmp_path)
    run_stage(tmp_path, "video", 1)
    run_stage(tmp_path, "video", 3, "--cooldown-from", "1")
    muon, adamw = torch.load(tmp_path / "video.pt", weights_only=True)["optimizers"]
    last_rate = training_run.root_rate(1e-3, 2, 200, 1500) / 2          # halfway between steps 1 and 3
    assert adamw["param_groups"][0]["lr"] == pytest.approx(last_rate)
    assert muon["param_groups"][0]["lr"] == pytest.approx(2 * last_rate)


@pytest.mark.parametrize("arguments, words", [
    (["video", 0, "--cooldown-from", "4"], "--cooldown-from is for --stage video with --steps"),
    (["text", 9, "--cooldown-from", "4"], "--cooldown-from is for --stage video with --steps"),
    (["video", 9, "--cooldown-from", "9"], "--cooldown-from 9 is not between 0 and --steps 9"),
])
def test_cooldown_that_cannot_be_is_refused(run_stage, tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        run_stage(tmp_path, *arguments)


def test_a_sharper_decoder_leaves_the_latents_as_they_are(script, run_stage, start, tmp_path):
    start(tmp_path)
    before = script.load_autoencoder(tmp_path, torch.device("cpu"))
    run_stage(tmp_path, "decoder", 1)
    after = script.load_autoencoder(tmp_path, torch.device("cpu"))
    pixels = networks.to_vae_pixels(theatre.draw_clips(2, seed=0, num_frames=1).frames[:, 0])
    latents, new_latents = (networks.encode_pixels(vae, pixels)[0] for vae in (before, after))
    assert torch.equal(latents, new_latents)
    assert not torch.equal(before.decode(latents).sample, after.decode(latents).sample)


def test_exported_folder_loads_and_renders_in_stock_diffusers(run_stage, start, tmp_path):
    from diffusers import DiffusionPipeline

    start(tmp_path)
    for stage in ("video", "export"):
        run_stage(tmp_path, stage, 1, "--export-dir", str(tmp_path / "base"))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "base")
    kinds = {name: type(getattr(pipeline, name)).__name__ for name in pipeline.components}
    assert kinds == {"vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer",
                     "unet": "UNet3DConditionModel", "scheduler": "DDIMScheduler"}
    frames = pipeline(["a man waving"], num_frames=8, num_inference_steps=2, output_type="np").frames
    assert frames.shape == (1, 8, 64, 64, 3) and np.isfinite(frames).all()
    assert {path.name for path in (tmp_path / "base" / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    assert "not yet measured" in (tmp_path / "base" / "README.md").read_text()

    run_stage(tmp_path / "again", "import", 1, "--export-dir", str(tmp_path / "base"))
    imported = torch.load(tmp_path / "again" / "video.pt", weights_only=True)["model"]
    for name, parameter in pipeline.unet.named_parameters():
        assert torch.equal(imported[f"unet.{name}"], parameter), name


def test_a_stage_whose_predecessor_is_missing_says_which_to_run(run_stage, tmp_path):
    with pytest.raises(UserError) as error:
        run_stage(tmp_path, "export", 1)
    assert str(error.value) == (f"{tmp_path / 'autoencoder.pt'}: does not exist. "
                                f"Run --stage autoencoder first.")
