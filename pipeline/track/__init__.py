"""Weights & Biases, hardened, or nothing.

tracker.py       what the stages talk to
wandb_worker.py  the process that talks to W&B; environment.py: what it may know
redact.py        what may enter a W&B run
live.py          a rung's metrics as soon as its last reply is there
"""
