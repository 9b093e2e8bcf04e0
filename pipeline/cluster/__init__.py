"""A review as jobs of a cluster: an array over arms and seeds, then serving and scoring, then the report.

- submit.py: cuts the budget, hands the jobs to Slurm, says how to follow them; words.py: what a job is given;
  hub.py: what is fetched before
- job.py: what a job does when its turn has come
- task.py: one arm and seed of the array; lease.py: its share of the budget; held.py: what its job is billed for
- slurm.py: the few commands of Slurm that are used; queued.py: what was submitted, and what of it the queue holds
- table.py: `stages=[status]`
"""

from __future__ import annotations
