"""Training: tasks, the jitted step, optimizers, checkpoints and the loop."""
