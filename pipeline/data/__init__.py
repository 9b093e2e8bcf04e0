"""Tables of text, where they come from, and what is asked of them.

tables.py         JSONL, CSV or a Hub data set → rows
sources.py        where a table's bytes come from, pinned by sha256
advice.py         what to do about a file that is nearly a table
benchmarks.py     public benchmarks: rows → an eval's samples
variants.py       one eval asked in several ways
contamination.py  training prompts that are also measured
"""
