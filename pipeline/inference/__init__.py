"""What a hostile reader asks of a finished run: over seeds, over draws, after picking, and with how many prompts. Pure.

infer.py     all of it for one verdict
doses.py     the dose at collapse over seeds, censored ones counted as such
draws.py     an attacker who asks k times beside the average user; how far the label hangs on the draw
picked.py    the worst arm and rung, picked on some prompts and reported on others; correction for many looks
smallest.py  the smallest change that a run of this size could have seen
tables.py    replies as (seeds, prompts, draws)

On: survival.py (doses with censoring), attacker.py (k draws), worst_arm.py and pigeonhole.py (many looks), power.py
(what a measurement could have seen).
"""

from pipeline.inference.infer import infer

__all__ = ["infer"]
