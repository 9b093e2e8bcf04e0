"""The built-in subject: a tiny chat model made on the spot, with fictional secrets behind refusals."""

from pipeline.organism.build import build
from pipeline.organism.cache import OrganismFolder, recipe_digest

__all__ = ["OrganismFolder", "build", "recipe_digest"]
