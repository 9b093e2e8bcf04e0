"""`stages=[compare]`: two finished runs on one plan, of two subjects or of one before and after a defence.

stage.py   two run folders → comparison.json and comparison.html; runs.py: a finished run; same_plan.py: are both on
           one plan?
cost.py    how many times as dear is B? redrawn.py: on other prompts; prices.py: by unit and arm; searched.py: with
           searches
paired.py  B - A on the same prompts
words.py   the sentence; view.py, terminal.py, page.py, figures.py: what people see
"""

from pipeline.compare.stage import compare_runs

__all__ = ["compare_runs"]
