"""Frozen bases, and adapters at work in them."""
