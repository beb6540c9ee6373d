"""train_model.py under FSDP on the CPU, where accelerate would fall back to DDP; started by
tests/utils/test_processes.py. Before each pass it says how many parts of gradients a process holds."""


def main() -> None:
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    import train_model
    from training import plan, step
    from utils.errors import run_script

    plan.SMALL_PASS = 0   # two passes a step
    prepare, losses = train_model.start, step.clip_losses

    def counted_losses(predict, *others):
        (unet,) = predict.args
        num = sum(parameter.grad is not None for parameter in unet.parameters())
        print(f"gradients: {num}\n", end="")   # in one piece: processes speak at the same time
        return losses(predict, *others)

    def start(config, run):
        state = PartialState(cpu=True)
        # what accelerate looks at to decide between DDP and FSDP; processes, device and gloo stay as they are
        state._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        accelerator, run = prepare(config, run)
        assert accelerator.is_fsdp2, accelerator.distributed_type
        return accelerator, run

    train_model.start, step.clip_losses = start, counted_losses
    run_script(train_model.main)
