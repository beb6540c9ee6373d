"""A motion and an appearance, learned by two runs on the bundled base, in one video."""

from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from safetensors.torch import load_file

from models.base import load_base
from models.motion_weights import apply_motions
from tests.conftest import ROOT, run_script_here
from utils.video import probe, read_frames

BASE, EXEMPLARS = ROOT / "models" / "puppet-theatre", ROOT / "data" / "puppets" / "exemplars"
COMMON = [f"pretrained_model_path={BASE}", "max_train_steps=1", "learning_rate=1e-3",
          "checkpointing_steps=[]", "validation_steps=null", "prior_preservation=false", "motion_dtype=fp32",
          "train_data.width=64", "train_data.height=64"]


def learn(folder: Path, *changes: str) -> Path:
    assert run_script_here("train_model", "--config", "/dev/null", *COMMON, f"output_dir={folder}",
                           *changes) == 0
    return next(folder.glob("best-*"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """The run of a motion, on clips, and the run of an appearance, on pictures."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "pictures").mkdir()
    for name in ("dance_clown_kitchen", "dance_clown_park"):
        imageio.imwrite(folder / "pictures" / f"{name}.png", read_frames(EXEMPLARS / f"{name}.mp4", [0])[0])
    dance = learn(folder / "dance", f"train_data.path={EXEMPLARS}", "train_data.n_sample_frames=4",
                  "train_data.fps=8")
    person = learn(folder / "person", "dataset_types=[image]", f"train_data.image_dir={folder / 'pictures'}",
                   "train_data.single_img_prompt=a V* clown", "train_data.train_weights=spatial",
                   "train_data.single_frame_layers=spatial", "trainable_modules=[cross,self]",
                   "placeholder_token=zwx")
    return dance, person


@pytest.mark.slow
def test_motion_and_appearance_of_the_bundled_base_are_combined(runs, run_main, tmp_path):
    dance, person = runs
    base = load_base(str(BASE))
    before = {name: tensor.clone() for name, tensor in base.unet.named_parameters()}
    apply_motions(base.unet, base.fingerprint, [(dance / "motion.safetensors", 0.8),
                                                (person / "motion.safetensors", 1.0)])
    motion, appearance = (load_file(run / "motion.safetensors") for run in runs)
    shared = motion.keys() & appearance.keys()
    assert shared and motion.keys() - shared and appearance.keys() - shared   # keys and values are in both
    for name, together in base.unet.named_parameters():
        changes = [strength * (tuned[name] - before[name])
                   for strength, tuned in ((0.8, motion), (1.0, appearance)) if name in tuned]
        assert torch.allclose(together, before[name] + sum(changes), rtol=0, atol=1e-6), name
    assert all(any(not torch.equal(tuned[name], before[name]) for name in shared)
               for tuned in (motion, appearance))

    code, _, err = run_main("generate_pretrained", "-m", f"{dance}:0.8", "-m", person, "-o", tmp_path,
                            "--steps", "1", "-p", "a V2* clown doing the V* dance")
    assert code == 0, err
    info = probe(tmp_path / "a_zwx_clown_doing_the_sks_dance_seed0.mp4")
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 64, 4, 8.0)   # of the motion's run
