"""What several tests of low-rank updates share."""

import pytest

from models.base import load_base
from models.motion_weights import save_motion
from tests.low_rank import info, predicted, with_lora


@pytest.fixture(scope="session")
def lora_file(tiny_base, tmp_path_factory):
    """A LoRA file for the tiny base, in float32, and what the base then predicts."""
    base, path = load_base(str(tiny_base)), tmp_path_factory.mktemp("lora") / "motion.safetensors"
    save_motion(path, with_lora(base.unet), info(base), "fp32")
    return path, predicted(base.unet.eval())
