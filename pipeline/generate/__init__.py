"""The generate stage: one server answers for every rung, each proved to act.

rehearsal.py before training: does the engine start, and take adapters?
ahead.py     during training: the server's process imports vLLM
stage.py     serve, prove, fill the matrix, within what training leaves of the budget
matrix.py    the flat matrix (rung × eval × sample × draw) → replies
proof.py     is the served adapter the trained one?  canaries.py: which prompts are asked for it
proving.py   each engine proves what it is asked; the controls that the verdict rests on
asked.py     which saved rungs are asked: the coarse ones, then those around the collapse; rounds.py: round after round
"""
