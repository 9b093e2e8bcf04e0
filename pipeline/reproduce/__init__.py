"""What a run leaves so that it can be run again, reproduce.json; and `stages=[reproduce]`, which does and compares."""

from pipeline.reproduce.line import reproduction_line

__all__ = ["reproduction_line"]
