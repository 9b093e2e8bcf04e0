"""The publish stage: a finished run's W&B files are sent, checked on arrival, and shown in a W&B Report.

stage.py   send, check, save
curves.py  the verdict's curves as W&B runs; offline.py: what the files hold, by W&B's own reader (reader.py)
server.py  asks a W&B server, by client.py in a process of its own; arrived.py: did everything arrive?
page.py    the report as plain data; words.py: its Markdown; board.py: as a W&B Report
"""
