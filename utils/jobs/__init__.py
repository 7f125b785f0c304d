"""What commands share: prepare, launch, outcomes, progress."""
