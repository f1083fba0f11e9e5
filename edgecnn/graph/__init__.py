"""The canonical graph: export from torch, rewrites, the reference run, cost per layer."""
