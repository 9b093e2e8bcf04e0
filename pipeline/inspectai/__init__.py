"""inspect_ai as the door to more evals (`eval=inspect`), and the way out: a run as `.eval` logs. An optional extra.

task.py    what the plan knows of a task: samples, counted and hashed
run.py     tasks against the served rungs; process.py starts worker.py, where Inspect runs
scores.py  its scores → outcomes and metrics; shown.py: what outcomes cannot hold
export.py  a finished run as Inspect logs
"""

from typing import Final

KIND: Final = "inspect"  # the `kind` of an eval that is an Inspect task
INVERTED: Final = "inverted"  # the `rule` under which a score of 1 counts as 0, and 0 as 1
