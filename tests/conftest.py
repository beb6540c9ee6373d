"""What several test files share: a small random base, small clips, running a script, a browser."""

import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update", "--disable-sync"]
LOCAL_ADDRESSES = ("file:", "blob:", "data:", "http://127.0.0.1:")
sys.path.insert(0, str(ROOT))
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))   # pytest-xdist has a process a core


def draw_frames(num_frames: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a coloured square crossing a textured background: uint8 (f h w c)."""
    rng = np.random.default_rng(seed)
    background = np.kron(rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    frames = np.repeat(background[None, :height, :width].astype(np.uint8), num_frames, axis=0)
    for index, frame in enumerate(frames):
        left = (index * 3 + seed * 5) % max(1, width - 12)
        frame[height // 3 : height // 3 + 12, left : left + 12] = rng.integers(0, 255, 3) // 2 + 100
    return frames


def write_clip(path: Path, num_frames: int = 14, width: int = 64, height: int = 64, fps: float = 8,
               seed: int = 0, caption: str | None = None) -> Path:
    """Write a small real video, and its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded_clip(path.suffix, num_frames, width, height, fps, seed))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    return path


@functools.cache   # hundreds of tests write the same few clips, and encoding one takes longer than most tests
def encoded_clip(suffix: str, num_frames: int, width: int, height: int, fps: float, seed: int) -> bytes:
    from utils.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip{suffix}"
        write_video(path, draw_frames(num_frames, width, height, seed), fps, {})
        return path.read_bytes()


def make_parts(folder: Path) -> dict:
    """Return small random encoders, as ZeroScope and Stable Diffusion have them; a vocabulary is written."""
    from diffusers import AutoencoderKL
    from diffusers.utils import logging
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    from puppets.tokenizer import byte_letters

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    tokenizer_dir = folder / "tokenizer"
    tokenizer_dir.mkdir(parents=True)
    letters = byte_letters()   # no merges: every byte is a token
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tokenizer_dir / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (tokenizer_dir / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tokenizer_dir / "vocab.json"), str(tokenizer_dir / "merges.txt"),
                              model_max_length=77)
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=512, eos_token_id=513,
        pad_token_id=513))
    vae = AutoencoderKL(
        block_out_channels=(16,) * 4, latent_channels=4, norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    return {"tokenizer": tokenizer, "text_encoder": text_encoder, "vae": vae}


def make_base(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Write a random text-to-video base: every class and file of ZeroScope, 1.3 M parameters."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel

    torch.manual_seed(seed)
    parts = make_parts(folder)
    unet = UNet3DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8)
    # diffusers starts these at zero, where a network without motion hides mistakes in motion
    for name, parameter in unet.named_parameters():
        if "temp_convs" in name and "conv4" in name or "proj_out" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                              clip_sample=False, set_alpha_to_one=False, steps_offset=1,
                              prediction_type=prediction_type)
    TextToVideoSDPipeline(unet=unet, scheduler=scheduler, **parts).save_pretrained(folder)
    return folder


def make_animatediff(folder: Path, seed: int = 0, has_middle: bool = False) -> tuple[Path, Path, Path]:
    """Write a random image model, a motion adapter for it (`has_middle`: as v2 has it, else as v3), and the
    AnimateDiff pipeline of both: every class and file that diffusers writes. At most 8 frames."""
    from diffusers import (
        AnimateDiffPipeline,
        DDIMScheduler,
        MotionAdapter,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(seed)
    images, adapter_folder, full = folder / "images", folder / "adapter", folder / "full"
    parts = make_parts(images)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8)
    adapter = MotionAdapter(block_out_channels=(32, 64), motion_layers_per_block=1, motion_norm_num_groups=8,
                            motion_num_attention_heads=4, motion_max_seq_length=8,
                            use_motion_mid_block=has_middle)
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                              set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1)
    StableDiffusionPipeline(unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None,
                            requires_safety_checker=False, **parts).save_pretrained(images)
    adapter.save_pretrained(adapter_folder)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear",
                              timestep_spacing="linspace", steps_offset=1, clip_sample=False)
    AnimateDiffPipeline(unet=unet, motion_adapter=adapter, scheduler=scheduler, **parts).save_pretrained(full)
    return full, images, adapter_folder


@pytest.fixture(scope="session")
def animatediff(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A pipeline folder, and the image model and the motion adapter that it was made of."""
    return make_animatediff(tmp_path_factory.mktemp("bases") / "animatediff")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory) -> Path:
    """The same architecture with other weights, predicting v."""
    return make_base(tmp_path_factory.mktemp("bases") / "other", seed=1, prediction_type="v_prediction")


@pytest.fixture(scope="session")
def clip_folders(tmp_path_factory) -> tuple[Path, Path]:
    """Three exemplars, one of them landscape, and two regularization clips."""
    folder = tmp_path_factory.mktemp("clips")
    exemplars, regularization = folder / "exemplars", folder / "regularization"
    write_clip(exemplars / "spin_1.mp4", seed=1, caption="a man doing the V* spin")
    write_clip(exemplars / "spin_2.mp4", seed=2, num_frames=12, caption="a woman doing the V* spin")
    write_clip(exemplars / "spin_3.mp4", seed=3, width=96, height=64, num_frames=30, fps=24,
               caption="a robot doing the V* spin")
    write_clip(regularization / "a_man_walking.mp4", seed=4)
    write_clip(regularization / "a_dog_running.mp4", seed=5, caption="a dog running in the park")
    return exemplars, regularization


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_base, clip_folders) -> Path:
    """The folder of a finished run of two steps, without regularization, with samples of steps 0 and 2."""
    folder = tmp_path_factory.mktemp("run")
    assert run_script_here(
        "train_model", "--config", os.devnull,
        f"pretrained_model_path={tiny_base}", f"output_dir={folder}",
        "max_train_steps=2", "learning_rate=1e-2", "checkpointing_steps=1", "validation_steps=2",
        f"train_data.path={clip_folders[0]}", "train_data.width=64", "train_data.height=64",
        "train_data.n_sample_frames=4", "train_data.fps=8",
        "validation_data.width=64", "validation_data.height=64",
        "validation_data.num_frames=4", "validation_data.num_inference_steps=2",
        "validation_data.prompt=a cat doing the V* spin") == 0
    return next(folder.glob("best-*"))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """The cache of encoded clips and captions that all tests share, but for those of the cache itself."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def save_small_config(tiny_base, clip_folders, shared_cache):
    """Return a function that writes a config for a run of seconds into a folder, and returns its path."""
    from omegaconf import OmegaConf

    def save(folder: Path, *changes: str, name: str = "config.yaml") -> Path:
        exemplars, regularization = clip_folders
        config = OmegaConf.create({
            "pretrained_model_path": str(tiny_base), "output_dir": str(folder / "results"),
            "subject": "spin", "max_train_steps": 4, "learning_rate": 1e-3,
            "checkpointing_steps": 2, "validation_steps": None, "cached_latent_dir": str(shared_cache),
            "mixed_precision": "no", "gradient_checkpointing": False,
            "train_data": {"path": str(exemplars), "class_path": str(regularization),
                           "width": 64, "height": 64, "n_sample_frames": 4, "fps": 8},
            "validation_data": {"prompt": "a cat doing the V* spin", "num_frames": 4,
                                "width": 64, "height": 64, "num_inference_steps": 2},
        })
        config = OmegaConf.merge(config, OmegaConf.from_dotlist(list(changes)))
        OmegaConf.save(config, folder / name)
        return folder / name

    return save


@pytest.fixture
def write_config(tmp_path, save_small_config):
    """Return a function that writes a small config, with changes, into this test's folder."""
    return lambda *changes, name="config.yaml": save_small_config(tmp_path, *changes, name=name)


@pytest.fixture(scope="session")
def baseline_run(tmp_path_factory, save_small_config) -> Path:
    """The finished run of the small config without changes, to be compared with and copied, not changed."""
    folder = tmp_path_factory.mktemp("baseline")
    assert run_script_here("train_model", "--config", save_small_config(folder)) == 0
    return next(folder.glob("results/spin-*"))


def run_script_here(script: str, *arguments: str | Path) -> int:
    """Run a script's main in this process and return its exit code."""
    from accelerate.state import AcceleratorState

    from utils.errors import run_script

    # accelerate keeps one state per process, where scripts are one per process
    AcceleratorState._reset_state(reset_partial_state=True)
    given, sys.argv = sys.argv, [f"{script}.py", *map(str, arguments)]
    try:
        run_script(__import__(script).main)
    except SystemExit as error:
        return error.code or 0
    finally:
        sys.argv = given
    return 0


@pytest.fixture
def run_main(capsys):
    """Return a function that runs a script's main in this process: (exit code, stdout, stderr)."""
    def run(script: str, *arguments: str | Path) -> tuple[int, str, str]:
        code = run_script_here(script, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """Runs programs that know diffusers and do not know this project."""
    from tests.stock import Stock

    stock = Stock(tmp_path_factory.mktemp("stock"))
    yield stock
    stock.close()


@pytest.fixture
def full_disk():
    """Return a context in which no file can grow beyond 4 kB, in this process and in those it starts."""
    import resource
    from contextlib import contextmanager

    @contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope="session")
def browser():
    must_run = os.environ.get("CI") == "true" or os.environ.get("REQUIRE_BROWSER") == "1"
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    give_up = pytest.fail if must_run else pytest.skip
    if chromium is None:
        give_up("no Chromium found; install it with: apt install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        give_up("playwright is missing; install it with: pip install -r requirements-dev.txt")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a page; at the end of the test no request may have left and no error may have gone unnoticed."""
    contexts, requests, errors = [], [], []

    def open_page(where, **context_options):
        context = browser.new_context(**context_options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and errors.append(said.text))
        page.expected_errors = errors      # a test that provokes errors looks at them and clears the list
        page.goto(where.as_uri() if isinstance(where, Path) else where)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(LOCAL_ADDRESSES)] == []
    assert errors == []
