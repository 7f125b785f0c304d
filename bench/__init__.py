"""Speed: this framework against a plain loop that does what PairEdit's reference implementation does."""
