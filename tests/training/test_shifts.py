"""train_data.num_shifts: a run that also trains on copies of its clips that are moved sideways."""

import json

from safetensors.torch import load_file

from utils.tensor_files import read_metadata

CHANGES = ("train_data.num_shifts=2", "max_train_steps=2", "checkpointing_steps=1", "train_batch_size=2")


def cached_shifts(folder) -> list:
    """Return how far the frames of every cached clip are moved, None for as they are."""
    made_from = [json.loads(read_metadata(path)["made_from"]) for path in folder.glob("*.safetensors")]
    return [entry.get("shift") for entry in made_from if entry["kind"] == "latents"]


def test_a_run_trains_on_all_shifts_and_resumes(run_main, write_config, tmp_path):
    code, out, err = run_main("train_model", "--config", write_config(
        *CHANGES, f"cached_latent_dir={tmp_path / 'cache'}"))
    assert code == 0, out + err
    assert "each clip also moved sideways 2 times, by up to 10% of its width" in out
    shifts = cached_shifts(tmp_path / "cache")
    still = shifts.count(None)
    assert still >= 4 and len(shifts) == 3 * still
    assert all(-0.1 <= shift <= 0.1 for shift in filter(None, shifts))

    (run,) = (tmp_path / "results").glob("spin-*")
    learned = load_file(run / "motion.safetensors")
    (run / "motion.safetensors").unlink()
    (run / "checkpoint-2" / "state.json").unlink()
    assert run_main("train_model", "--resume", run)[0] == 0
    again = load_file(run / "motion.safetensors")
    assert all((learned[name] == again[name]).all() for name in learned)

    code, _, err = run_main("train_model", "--resume", run, "train_data.num_shifts=3", "max_train_steps=4")
    assert code == 2 and "train_data.num_shifts was 2, is 3" in err


def test_held_out_clips_are_measured_as_they_are(run_main, write_config, tmp_path):
    code, out, err = run_main("train_model", "--config", write_config(
        *CHANGES, "train_data.held_out=1", "held_out_steps=1", f"cached_latent_dir={tmp_path / 'cache'}"))
    assert code == 0, out + err
    shifts = cached_shifts(tmp_path / "cache")
    assert len(shifts) == shifts.count(None) + 2 * (shifts.count(None) - 2)


def test_shifts_change_what_is_learned(run_main, write_config, tmp_path):
    learned = []
    for num in (0, 2):
        run_main("train_model", "--config", write_config(*CHANGES, f"train_data.num_shifts={num}",
                                                         f"subject=with{num}"))
        (run,) = (tmp_path / "results").glob(f"with{num}-*")
        learned.append(load_file(run / "motion.safetensors"))
    assert any((learned[0][name] != learned[1][name]).any() for name in learned[0])
