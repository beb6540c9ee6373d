"""train_model.py in several processes, with what each of them did noted, for tests/utils/test_processes.py.

Every process writes to $OBSERVED/rank_N.jsonl, before each pass, a hash of its noise and the number of blocks
of memory that hold its gradients, and after each step a hash of its weights.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)   # not tests/, which has rooms of the same names


def main() -> None:
    from training import loop as training
    from training import step

    losses, report = step.clip_losses, training.report

    def note(kind: str, what) -> None:
        with open(Path(os.environ["OBSERVED"]) / f"rank_{os.environ['RANK']}.jsonl", "a") as file:
            file.write(json.dumps([kind, what]) + "\n")

    def digest_of(tensors) -> str:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def noted_losses(predict, scheduler, latents, noise, *others):
        (unet,) = predict.args
        note("noise", digest_of([noise]))
        gradients = [parameter.grad for parameter in unet.parameters() if parameter.grad is not None]
        note("blocks", len({gradient.untyped_storage().data_ptr() for gradient in gradients}))
        return losses(predict, scheduler, latents, noise, *others)

    def noted_report(training, *others):
        note("weights", digest_of(training.trained.values()))
        report(training, *others)

    step.clip_losses, training.report = noted_losses, noted_report
    import train_model
    from utils.errors import run_script

    run_script(train_model.main)


if __name__ == "__main__":
    main()
