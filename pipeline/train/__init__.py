"""The train stage: each arm and seed climbs its ladder (`pipeline.arms`).

stage.py     every ladder, in turn, within the budget
before.py    what is told before anything is loaded or spent; compiler.py: is there what Triton compiles with?
standing.py  what of a ladder really stands on the disk
"""
