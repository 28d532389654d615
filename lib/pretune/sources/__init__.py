"""Where checkpoints and rows come from."""
