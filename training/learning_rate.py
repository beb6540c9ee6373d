"""The learning rate as a function of the step, and the notes on keys that its schedule does not use.

The schedules are those of diffusers.optimization.get_scheduler.
"""

from collections.abc import Callable, Mapping

from training.config import KEYS, LR_SCHEDULERS, Config

# key -> the schedules that use it
USED_BY = {
    "lr_warmup_steps": [name for name in LR_SCHEDULERS if name not in ("constant", "piecewise_constant")],
    "lr_num_cycles": ["cosine_with_restarts"],
    "lr_step_rules": ["piecewise_constant"],
    "lr_power": ["polynomial"],
}


def learning_rate_schedule(config: Config, num_processes: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the step, so that resuming has no schedule to restore."""
    import torch
    from diffusers.optimization import get_scheduler  # imported late: reading a config should not wait

    rate = config.learning_rate
    if config.scale_lr:
        rate *= config.train_batch_size * config.gradient_accumulation_steps * num_processes
    # get_scheduler needs an optimizer to attach to. Its learning rate does not matter, because only the
    # factors by step are used. But it must be above 1e-7, where get_scheduler's polynomial schedule ends.
    carrier = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(
        config.lr_scheduler, carrier, step_rules=config.lr_step_rules,
        num_warmup_steps=config.lr_warmup_steps, num_training_steps=config.max_train_steps,
        num_cycles=config.lr_num_cycles, power=config.lr_power)
    return lambda step: rate * schedule.lr_lambdas[0](step)


def schedule_notes(config: Config, origins: Mapping[str, str]) -> list[str]:
    """Return a note for each key that the schedule does not use, and for a warm-up that is longer than the
    training. `origins`: key -> where the user gave it."""
    notes, schedule, warmup = [], config.lr_scheduler, config.lr_warmup_steps
    for key, users in USED_BY.items():
        if getattr(config, key) != KEYS[key].default and schedule not in users:
            notes.append(f"{origins[key]}: {key} has no effect with lr_scheduler: {schedule}. It is for "
                         f"{', '.join(users)}.")
    if warmup > config.max_train_steps and schedule in USED_BY["lr_warmup_steps"]:
        notes.append(f"{origins['lr_warmup_steps']}: lr_warmup_steps is {warmup} and max_train_steps "
                     f"{config.max_train_steps}: training ends before the learning rate has risen.")
    return notes
