"""evaluation/features.py: what the models see in videos and in long exemplars."""

import numpy as np
import pytest

from evaluation import features
from evaluation.recognizing import image_embeddings, load_clip
from evaluation.shown_videos import Exemplar
from tests.conftest import write_clip
from tests.recognizers import make_clip
from utils.video import frame_changes, read_frames


@pytest.mark.parametrize("values, changes", [([7], []), ([0, 255, 250, 250], [255, 5, 0])])
def test_change_is_the_mean_difference_of_neighbouring_frames(values, changes):
    frames = np.array(values, np.uint8)[:, None, None, None].repeat(4, axis=1)
    assert frame_changes(frames) == changes


def test_exemplars_are_looked_at_in_pieces_with_the_same_result(tmp_path, monkeypatch):
    clip_model = load_clip(str(make_clip(tmp_path / "clip")))
    exemplar = Exemplar(write_clip(tmp_path / "long.mp4", 70, 96, 64), "", "", tuple(range(70)))
    whole = image_embeddings(clip_model, read_frames(exemplar.path, exemplar.frames)).numpy()
    assert np.array_equal(features.exemplar_embeddings(exemplar, clip_model), whole)
    monkeypatch.setattr(features, "PIECE_BYTES", 10 * 96 * 64 * 3)
    read = []
    monkeypatch.setattr(features, "image_embeddings", lambda model, frames, size: (
        read.append(len(frames)) or image_embeddings(model, frames, size)))
    assert np.allclose(features.exemplar_embeddings(exemplar, clip_model), whole, atol=1e-5)
    assert read == [10] * 7
