"""What a run leaves so that it can be run again, reproduce.json; and `stages=[reproduce]`, which does and compares.

record.py       reproduce.json; line.py: the command in reports; overrides.py: which words it may hold; machine.py:
                versions, machine
stage.py        inputs and environment held against the run's, the plan run again; source.py: the run; consent.py:
                what it may not decide
environment.py  what a difference of environments can do; results.py: what was found, as digests; differs.py: is it
                the same?
terminal.py     what is printed
again.py        a further command on a run takes its options (`run.again`); planned.py: a plan's configuration, typed
"""

from pipeline.reproduce.line import reproduction_line

__all__ = ["reproduction_line"]
