"""How the local judge's weights came about: `python -m evals.judges.fit --data ../shared/data`. Needs the extra `fit`.

Nothing that judges imports from here.
"""
