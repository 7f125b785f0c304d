"""Keys, YAML layers, runs and their paths; nothing in here imports torch."""
