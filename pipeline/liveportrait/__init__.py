"""LivePortrait inference in PyTorch: the released checkpoints, in process."""
