"""Published checkpoints of other frameworks, carried over to our parameters."""
