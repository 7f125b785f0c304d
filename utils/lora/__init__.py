"""LoRA at rest: files, formats, algebra, header, card, calibration."""
