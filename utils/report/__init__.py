"""Tables, plots and pages, out of plain data."""
