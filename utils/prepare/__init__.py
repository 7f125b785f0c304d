"""From photographs to a dataset: cropped, cut out, captioned and tagged."""
