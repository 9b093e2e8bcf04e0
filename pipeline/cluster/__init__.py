"""A review as jobs of a cluster: an array over arms and seeds, then serving and scoring, then the report.

- `submit`: cuts the budget, hands the jobs to Slurm, says how to follow them; `words`: what a job is given;
  `hub`: what is fetched before
- `job`: what a job does when its turn has come
- `task`: one arm and seed of the array; `lease`: its share of the budget; `held`: what its job is billed for
- `slurm`: the few commands of Slurm that are used; `queued`: what was submitted, and what of it the queue holds
- `table`: `stages=[status]`
"""

from __future__ import annotations
