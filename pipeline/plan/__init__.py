"""From a configuration to a plan: arms × seeds × rungs, hashed before anything runs.

make.py        the plan, its digests, its estimated cost; facts.py: what it is told of its inputs
caps.py        where the estimate passes a cap
protocol.py    the plan as a page to be attached to a review; shown.py: both on the terminal
registered.py  the plan that a run folder was made for, held against the one in use
"""
