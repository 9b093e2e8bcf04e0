"""The parts of `python -m benchmarks.gpu`. Each yields figures one by one, so that a cut-off call keeps what it has."""
