"""Methods compared."""
