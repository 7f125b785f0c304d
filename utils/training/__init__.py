"""Methods, sources, the loop, checkpoints, several processes, claims on run folders."""
