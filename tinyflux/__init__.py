"""The small FLUX that ships with the repository: its world of portraits, recipe, weights and probe."""
