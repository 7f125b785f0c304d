"""The library behind the PairEdit scripts: configuration, data, method, training, sampling and metrics."""
