"""The generate stage: one server answers for every rung, each proved to act.

stage.py     serve, prove, fill the matrix
matrix.py    the flat matrix (rung × eval × sample × draw) → replies
proof.py     is the served adapter the trained one?  canaries.py: which prompts are asked for it
asked.py     which saved rungs are asked: the coarse ones, then those around the collapse; rounds.py: round after round
"""
