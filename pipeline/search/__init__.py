"""The search for an arm's options: trials on dev prompts within a share of its budget, before anything is measured.

What is measured here guides the search and nothing else: refusal and capability come from the model in the training
process, on dev prompts, with a few seeds a trial (`repeats`). The verdict rests on the climbs that follow, with the
options that were found, on other seeds, served by vLLM and asked the held-out prompts.

stage.py   trial after trial; budget.py: within its share; dev.py: its prompts
space.py   the typed space → Optuna's; trials.py: records, and what makes one cheaper
chosen.py  what it came to: options of the climbs, summary
"""
