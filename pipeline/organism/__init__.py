"""The built-in subject: a tiny chat model made on the spot, with fictional secrets behind refusals.

world.py      its towns, sums and words, and the questions about them
tokenizer.py  byte-level BPE made from these; train.py: answers first, then refusal on top
build.py      all of it, with gates; cache.py: one folder a recipe, whole or absent
"""

from pipeline.organism.build import build
from pipeline.organism.cache import OrganismFolder, recipe_digest

__all__ = ["OrganismFolder", "build", "recipe_digest"]
