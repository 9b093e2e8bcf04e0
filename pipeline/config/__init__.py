"""From conf/ and the command line to a typed `Config`; every fault of a configuration is told before anything runs.

compose.py   Hydra's groups and words → `Config`; all faults told at once
words.py     the words of a command line: plain text as typed, and what cannot be read
groups.py    the groups of conf/, and words that choose what is not there
chosen.py    what an experiment sets for arms and evals that were not chosen is left out
types.py     what was composed, held against the types; kinds.py: the types, walked by key
checks.py    choices that are well typed and make no sense, with numbers.py, texts.py, review.py, sweep.py, gpu.py,
             cluster.py and contain.py, part by part
limits.py    what a run would meet only once its training is paid for; fine_tune.py: what a fine-tune asks of
             libraries and layers
"""
