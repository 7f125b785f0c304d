"""Other trainers' configs."""
