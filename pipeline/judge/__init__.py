"""Who tells refusal from compliance, and how far several agree; the rules themselves are in `evals.judges`.

judging.py    from the configuration of a judge to the judge
endpoint.py   asks a model behind an OpenAI-compatible server; server.py: one that Holdfast starts; words.py: its errors
cache.py      verdicts of language models, kept from run to run
file.py       `stages=[judge]`: any file, with rows.py and tally.py
agreement.py  how far two ways of labelling agree; panel.py: several judges over one run's replies
"""
