"""The small FLUX that ships with the repository: its world of portraits, its recipe, its weights, its probe."""
