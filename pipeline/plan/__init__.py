"""From a configuration to a plan: arms × seeds × rungs, hashed before anything runs.

make.py        the plan and its estimated cost; facts.py: what it is told of its inputs; inputs.py: from them
digests.py     what can change a reply, and what how it is read; intact.py: is plan.json still what was written?
caps.py        where the estimate passes a cap; examples.py: training examples that are cut, or repeat others
protocol.py    the plan as a page to be attached to a review; shown.py: both on the terminal
kept.py        the plan in the run folder: written once, held against every later command's
registered.py  the plan that a run folder was made for, held against the one in use
earlier.py     what an earlier Holdfast left: who wrote it, whose labels they are, and runs that are not gone on with
"""
