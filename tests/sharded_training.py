"""train_model.py under FSDP on the CPU, where accelerate would fall back to DDP; started by
tests/test_processes.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    import train_model
    from utils.errors import run_script

    prepare = train_model.start

    def start(config, run):
        state = PartialState(cpu=True)
        # what accelerate looks at to decide between DDP and FSDP; processes, device and gloo stay as they are
        state._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        accelerator, run = prepare(config, run)
        assert accelerator.is_fsdp2, accelerator.distributed_type
        return accelerator, run

    train_model.start = start
    run_script(train_model.main)


if __name__ == "__main__":
    main()
