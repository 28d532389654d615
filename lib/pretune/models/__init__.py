"""All that runs torch, and what a checkpoint is."""
