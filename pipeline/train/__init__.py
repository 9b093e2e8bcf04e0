"""The train stage: each arm and seed climbs its ladder (`pipeline.arms`).

stage.py     every ladder, in turn, within the budget
fixed.py     rung 0, and the control of zeros
process.py   what a process that trains sets up and gives back
before.py    what is told before anything is loaded or spent; compiler.py: is there what Triton compiles with?
standing.py  what of a ladder really stands on the disk
"""
