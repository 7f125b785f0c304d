"""Sweeps; images written and read back."""
