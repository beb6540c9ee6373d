"""The maker of the bundled base: tokenizer, captions, making it in pieces, a folder stock diffusers loads."""

import json
import sys
from operator import attrgetter

import numpy as np
import pytest
import torch

from puppets import (
    base_captions,
    base_training,
    clip_stream,
    first_networks,
    teachability,
    theatre,
    training_run,
    world,
)
from puppets import base_networks as networks
from puppets.first_networks import FirstNetworks
from puppets.tokenizer import MAX_TOKENS, build_tokenizer, tokenize
from tests import processes
from utils.errors import UserError


@pytest.fixture(scope="module")
def script():
    from puppets import pretrain_base

    return pretrain_base


@pytest.fixture(scope="module")
def tokenizer(script):
    return build_tokenizer(script.base_words())


class Ticking:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.seconds = 0.0

    def time(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture(scope="module")
def pieces(script, tmp_path_factory):
    """A base made in two pieces, with small networks and batches: its folder, and what each piece left."""
    work_dir, left = tmp_path_factory.mktemp("pieces"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "build_unet", small_unet)
        patch.setattr(networks, "build_autoencoder", small_autoencoder)
        patch.setattr(base_training, "NORMALIZING_FRAMES", 16)
        patch.setattr(script, "PSNR_CLIPS", 2)
        patch.setattr(teachability, "NUM_CLIPS", 3)
        for minutes in (0.2, 0.3):
            clock = Ticking()
            patch.setattr(script, "time", clock)
            patch.setattr(base_training, "time", clock)
            patch.setattr(sys, "argv", [
                "pretrain_base", "--work-dir", str(work_dir), "--minutes", str(minutes),
                "--total-minutes", "0.5", "--workers", "1", "--shard-clips", "4", "--batch-size", "2",
                "--frames-batch", "2",
                "--mixed-precision", "no", "--num-measured", "0", "--check-clips", "10"])
            script.main()
            left.append({stage: training_run.load_saved(work_dir / f"{stage}.pt")
                         for stage in script.STAGE_ENDS if (work_dir / f"{stage}.pt").exists()})
    return work_dir, left


@pytest.fixture
def make_later(script, pieces, monkeypatch, tmp_path):
    """Make a base in tmp_path with `options`; return the pipelines of the earlier and of the later base."""
    def make(*options: str):
        from diffusers import DiffusionPipeline

        clock = Ticking()
        monkeypatch.setattr(base_training, "NORMALIZING_FRAMES", 16)
        monkeypatch.setattr(script, "PSNR_CLIPS", 2)
        for module in (script, base_training):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(sys, "argv", [
            "pretrain_base", "--work-dir", str(tmp_path), "--workers", "1", "--shard-clips", "4",
            "--batch-size", "2", "--frames-batch", "2", "--mixed-precision", "no", "--num-measured", "0",
            *options])
        script.main()
        return [DiffusionPipeline.from_pretrained(folder / "base") for folder in (pieces[0], tmp_path)]

    return make


def have_the_same(name: str, *pipelines) -> bool:
    """Return whether the network `name`, or a part of it, has the same weights in two pipelines."""
    first, second = (attrgetter(name)(pipeline).state_dict() for pipeline in pipelines)
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_base_can_begin_with_an_earlier_one(make_later, pieces, tmp_path):
    earlier = pieces[0] / "base"
    before, after = make_later("--minutes", "0.2", "--begin-with", str(earlier))
    for name in ("text_encoder", "vae.encoder", "vae.quant_conv"):
        assert have_the_same(name, before, after)
    assert not have_the_same("vae.decoder", before, after)
    unets = (before.unet.parameters(), after.unet.parameters())
    assert 0 < max((a - b).abs().max() for a, b in zip(*unets, strict=True)) < 0.1   # trained on, not anew
    card = (tmp_path / "base" / "README.md").read_text()
    assert f"`{earlier}`" in card and "Kept as they were: encoder, text encoder." in card
    configs = [path.read_text() for path in (tmp_path / "base").glob("*/*.json")]
    assert len(configs) > 5 and not any(str(earlier) in config for config in configs)
    with pytest.raises(UserError, match="was begun with another --begin-with. Go on with the same"):
        make_later("--minutes", "0.2")
    with pytest.raises(UserError, match="was begun with another --only-unet. Go on with the same"):
        make_later("--minutes", "0.2", "--begin-with", str(earlier), "--only-unet")


def test_only_the_unet_of_an_earlier_base_can_be_trained_on(make_later, pieces, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--only-unet needs --begin-with"):
        make_later("--minutes", "0.1", "--only-unet")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="not know all words"):
        patch.setattr(first_networks, "base_words", lambda: [*base_captions.base_words(), "juggling"])
        make_later("--minutes", "0.1", "--only-unet", "--begin-with", str(pieces[0] / "base"))
    before, after = make_later("--minutes", "0.1", "--only-unet", "--begin-with", str(pieces[0] / "base"))
    assert have_the_same("text_encoder", before, after) and have_the_same("vae", before, after)
    assert not have_the_same("unet", before, after)
    card = (tmp_path / "base" / "README.md").read_text()
    assert "Kept as they were: autoencoder, text encoder." in card and "| autoencoder |" not in card


def test_the_whole_autoencoder_of_an_earlier_base_can_be_trained_on(make_later, pieces, monkeypatch,
                                                                    tmp_path):
    earlier = str(pieces[0] / "base")
    for others in ([], ["--only-unet", "--begin-with", earlier]):
        with pytest.raises(UserError, match="--whole-autoencoder needs --begin-with"):
            make_later("--minutes", "0.2", "--whole-autoencoder", *others)
    monkeypatch.setattr(networks, "LATENT_CHANNELS", networks.LATENT_CHANNELS + 2)   # and gets more channels
    before, after = make_later("--minutes", "0.2", "--whole-autoencoder", "--begin-with", earlier)
    assert have_the_same("text_encoder", before, after)
    assert not have_the_same("vae.encoder.conv_in", before, after)
    assert after.vae.config.latent_channels == after.unet.config.in_channels == networks.LATENT_CHANNELS
    assert "Kept as they were: text encoder." in (tmp_path / "base" / "README.md").read_text()


def test_a_later_base_learns_from_other_clips_also_if_it_was_stopped_early(make_later, pieces, tmp_path):
    earlier = pieces[0] / "base"
    # what a run leaves that was stopped before it saved its UNet
    training_run.save_untrained(networks.FrameCoder(FirstNetworks(earlier).autoencoder()),
                                tmp_path / "autoencoder.pt")
    make_later("--minutes", "0.1", "--only-unet", "--begin-with", str(earlier), "--first-shard", "70")
    assert training_run.saved_facts(tmp_path / "video.pt")["shards"] > 70


def test_two_processes_make_one_base(pieces, tmp_path):
    work_dir = tmp_path / "work"
    code, said = processes.run_in_two("puppets.pretrain_base", [
        "--work-dir", work_dir, "--minutes", "0.35", "--begin-with", pieces[0] / "base", "--workers", "1",
        "--shard-clips", "4", "--batch-size", "4", "--frames-batch", "8", "--mixed-precision", "no",
        "--num-measured", "0"], tmp_path)
    assert code == 0, said
    assert said.count("exported: ") == 1 and (work_dir / "base" / "model_index.json").exists()
    assert training_run.load_saved(work_dir / "autoencoder.pt")["step"] > 0


def test_processes_draw_different_clips(script, tmp_path, tokenizer):
    tokenizer_dir = tmp_path / "tokenizer"
    script.save_tokenizer(tokenizer, script.base_words(), tokenizer_dir)
    streams = [clip_stream.ClipStream(tokenizer_dir, 1, 2, 8, 8, torch.device("cpu"), 3, rank, 2)
               for rank in (0, 1)]
    for rank, stream in enumerate(streams):
        for turn in (0, 1):
            stream.take(wait=True)
            frames, _ = clip_stream.draw_shard(tokenizer, 2 * (3 + turn) + rank, 2)   # behind 2 x 3 shards
            assert np.array_equal(stream.frames[-1][0].numpy(), frames)
        assert stream.num_clips == 4 and stream.num_drawn == 5
        stream.close()


def test_clips_are_encoded_only_as_the_training_wants_them(script, tmp_path, tokenizer):
    """A piece that began by encoding all 8,000 clips that waited did not look at the clock for minutes."""
    script.save_tokenizer(tokenizer, script.base_words(), tmp_path / "tokenizer")
    stream = clip_stream.ClipStream(tmp_path / "tokenizer", 0, 2, 8, 8, torch.device("cpu"))
    shards = [clip_stream.draw_shard(tokenizer, index, 2) for index in range(4)]
    stream.frames.extend(tuple(map(torch.from_numpy, shard)) for shard in shards)
    for wanted, encoded in ((3, 4), (4, 4), (4.5, 6), (100, 8)):
        stream.encode_waiting(small_autoencoder().eval(), wanted)
        assert stream.num_encoded == encoded and stream.num_clips == 8
    assert np.array_equal(stream.ids[2:4].numpy(), shards[1][1])


def small_autoencoder():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=networks.LATENT_CHANNELS, norm_num_groups=8, block_out_channels=(8,) * 4,
        layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4)


def small_unet():
    from diffusers import UNet3DConditionModel

    return UNet3DConditionModel(
        sample_size=8, in_channels=networks.LATENT_CHANNELS, out_channels=networks.LATENT_CHANNELS,
        block_out_channels=(32, 32), layers_per_block=1, attention_head_dim=16, norm_num_groups=8,
        cross_attention_dim=networks.TEXT_WIDTH, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))


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
    captions = [base_captions.write_training_caption(world.draw_scene(rng), rng)[0] for _ in range(2000)]
    assert not (tokenize(tokenizer, captions) == placeholder).any()


def test_made_up_words_replace_the_motion_and_nothing_else(script):
    rng = np.random.default_rng(0)
    unsaid = []
    for _ in range(1000):
        scene = world.draw_scene(rng)
        caption, says_motion = base_captions.write_training_caption(scene, rng)
        if not says_motion:
            unsaid.append(caption)
            assert scene.character in caption or world.PLURALS[scene.character] in caption
            assert not any(phrase in caption for phrase in world.MOTION_PHRASES[scene.motion])
    assert 20 < len(unsaid) < 90


UNSAID = (8, 38, 38, 2, 7, 5)   # motion, arm, other arm, in turn, legs, body


def test_what_the_parts_of_a_motion_do_are_labels(script):
    """Else the text encoder would pass over them, and the UNet could not tell these motions apart."""
    rng, motion_of = np.random.default_rng(0), {}
    for _ in range(500):
        scene = world.draw_composed_scene(rng)
        caption, says_motion = base_captions.write_training_caption(scene, rng)
        labels = base_captions.caption_labels([scene], [caption], [says_motion])[0].tolist()
        parts = tuple(labels[list(base_captions.CAPTION_LABELS).index("motion"):])
        assert says_motion == (scene.motion in caption) == (parts != UNSAID)
        assert not says_motion or motion_of.setdefault(parts, scene.motion) == scene.motion
        assert parts[0] == len(world.EVERYDAY_MOTIONS)   # none of them
    assert len(motion_of) == len(set(motion_of.values())) > 200


def test_what_a_caption_leaves_out_is_labelled_as_unsaid(script):
    scene = world.Scene("robot", "walking", "snow", 2)
    captions = ["two robots walking in the snow", "two robots doing the blu"]
    assert base_captions.caption_labels([scene] * 2, captions, [True, False]).tolist() == [
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


def test_decoder_gets_noise_in_units_of_each_channel():
    """So an autoencoder cannot escape the noise by larger latents."""
    torch.manual_seed(0)
    vae = networks.build_autoencoder().requires_grad_(False)
    pixels = networks.to_vae_pixels(theatre.draw_clips(4, seed=0, num_frames=2).frames.reshape(-1, 64, 64, 3))
    noise = torch.randn(8, networks.LATENT_CHANNELS, 8, 8)
    decoded = networks.FrameCoder(vae)(pixels, noise)[0]
    mean, _ = networks.encode_pixels(vae, pixels)
    noisy = mean + mean.std(dim=(0, 2, 3), keepdim=True) * noise
    assert torch.allclose(vae.decode(noisy).sample, decoded, atol=1e-5)
    vae.quant_conv.weight.mul_(10), vae.quant_conv.bias.mul_(10)    # latents ten times as large ...
    vae.post_quant_conv.weight.div_(10)                            # ... are decoded to the same frames
    assert torch.allclose(networks.FrameCoder(vae)(pixels, noise)[0], decoded, atol=1e-4)


def test_levels_of_noise_reach_from_hardly_any_to_the_most(script):
    levels = base_training.draw_noise_levels(32, torch.device("cpu"))
    assert levels.shape == (32, 1, 1, 1)
    assert (levels == base_training.LATENT_NOISE).sum() == 9   # a quarter, and the first of the others
    assert levels.max() == base_training.MOST_LATENT_NOISE


def test_moving_pixels_are_those_of_the_puppet():
    clips = np.full((2, 8, 64, 64, 3), 90, np.uint8)
    for frame in range(8):
        clips[0, frame, 20:24, 4 * frame:4 * frame + 4] = 255   # in the first clip something moves
    moving = clip_stream.moving_pixels(torch.from_numpy(clips))
    assert moving.shape == (2, 1, 64, 64) and moving[1].sum() == 0
    assert moving[0, 0, 19:25, :33].all() and moving.sum() == 6 * 33   # with the pixels next to them


def test_each_piece_goes_on_where_the_last_one_stopped(pieces):
    _, (first, second) = pieces
    assert first["autoencoder"]["step"] == second["autoencoder"]["step"] > 0
    assert 0 < first["video"]["step"] < second["video"]["step"]
    before, after = first["video"]["facts"], second["video"]["facts"]
    assert before["first"] == after["first"] < before["elapsed"] < after["elapsed"]
    assert after["shards"] > before["shards"] > 0   # clips that were drawn before are not drawn again


def test_drawing_does_not_take_the_time_of_training(pieces):
    """A later piece draws clips to begin with, and then few for each step. Shards have four clips here, and
    batches two."""
    _, (first, second) = pieces
    num_steps = second["video"]["step"] - first["video"]["step"]
    num_shards = second["video"]["facts"]["shards"] - first["video"]["facts"]["shards"]
    num_first = base_training.FIRST_BATCHES * 2
    assert num_first <= 4 * num_shards <= num_first + base_training.NEW_CLIPS * 2 * num_steps + 4


def test_rate_falls_to_0_at_the_end_of_the_stage(pieces):
    _, (first, second) = pieces
    early, late = ([optimizer["param_groups"][0]["lr"] for optimizer in run["video"]["optimizers"]]
                   for run in (first, second))
    for muon, adamw in (early, late):
        assert muon == pytest.approx(2 * adamw)
    steps = second["video"]["step"]
    assert 0 < late[1] < 0.2 * 1.5e-3 * steps / 300   # warm-up alone: 1.5e-3 * steps / 300


def test_log_says_early_how_well_the_base_can_be_taught(pieces):
    work_dir, _ = pieces
    lines = [json.loads(line) for line in (work_dir / "video.jsonl").read_text().splitlines()]
    checks = [line for line in lines if "loss, right caption" in line]
    assert checks and set(checks[0]) >= {"loss, wrong caption", "loss, no caption",
                                         "kept-out motions back from 279"}
    noise = json.loads((work_dir / "autoencoder.jsonl").read_text().splitlines()[-1])
    assert all(0 <= noise[f"noise of channel {index}"] <= 1 for index in range(networks.LATENT_CHANNELS))


def test_half_of_the_timesteps_are_those_that_decide_how_arms_move():
    timesteps = base_training.draw_timesteps(33, 1000, torch.device("cpu"))
    everywhere, deciding = timesteps[:17].sort().values, timesteps[17:].sort().values
    assert everywhere.min() < 59 and everywhere.max() >= 941 and everywhere.diff().max() < 2 * 1000 / 17
    assert len(deciding) == 16 and 400 <= deciding.min() < 432 and 868 <= deciding.max() < 900


def test_cells_in_which_something_moves_count_more_and_the_mean_stays(script):
    latents = torch.zeros(2, 3, 8, 8, 8)
    latents[0, :, ::2, 2, 5] = 1
    weights = base_training.motion_weights(latents, 3.0)
    assert weights.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert weights[0, 0, 2, 5] == weights[0, 0, 1, 4] == weights.max() > 2 * weights[0, 0, 7, 0]
    assert torch.equal(weights[1], torch.ones(1, 8, 8))
    assert torch.equal(base_training.motion_weights(latents, 0.0), torch.ones(2, 1, 8, 8))


def test_clips_are_those_of_their_shard_and_no_two_shards_share_one(tokenizer):
    frames, ids = clip_stream.draw_shard(tokenizer, 5, 2)
    again, _ = clip_stream.draw_shard(tokenizer, 5, 2)
    assert frames.shape == (2, 8, 64, 64, 3) and ids.shape == (2, clip_stream.NUM_CAPTIONS, MAX_TOKENS)
    assert np.array_equal(frames, again)
    drawn = [clip_stream.draw_shard(tokenizer, index, 1)[0].tobytes() for index in range(9)]
    assert len(set(drawn)) == 9


def test_clips_that_come_back_untouched_are_recognized(script):
    """The check of teachability on latents that nothing was done to: what the judge can say at best."""
    frames, _ = teachability.kept_out_clips()
    judge = teachability.load_motion_recognizer(str(teachability.RECOGNIZER))
    seen = [judge.labels[index] for index in teachability.classify_motion(judge, frames).argmax(1)]
    asked = list(world.KEPT_OUT_MOTIONS) * (len(frames) // 3)
    assert np.mean([a == b for a, b in zip(asked, seen)]) > 0.9


def test_exported_folder_loads_and_renders_in_stock_diffusers(pieces):
    from diffusers import DiffusionPipeline

    base = pieces[0] / "base"
    pipeline = DiffusionPipeline.from_pretrained(base)
    kinds = {name: type(getattr(pipeline, name)).__name__ for name in pipeline.components}
    assert kinds == {"vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer",
                     "unet": "UNet3DConditionModel", "scheduler": "DDIMScheduler"}
    frames = pipeline(["a man waving"], num_frames=8, num_inference_steps=2, output_type="np").frames
    assert frames.shape == (1, 8, 64, 64, 3) and np.isfinite(frames).all()
    assert {path.name for path in (base / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    assert "not yet measured" in (base / "README.md").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--minutes", "0"], "'0' is not a number above zero"),
    (["--minutes", "5", "--total-minutes", "4"], "--minutes must be at most --total-minutes")])
def test_numbers_that_cannot_be_are_refused(script, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(sys, "argv", ["pretrain_base", "--work-dir", str(tmp_path), *arguments])
    with pytest.raises(UserError, match=message):
        script.main()
