"""Source text of a scorer that the tests' Inspect tasks share; what it needs is imported by the task's own head."""

RAISING = """
@scorer(metrics=[accuracy()])
def raising():
    async def score(state, target):
        raise RuntimeError("this scorer cannot")
    return score
"""
