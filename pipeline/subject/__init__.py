"""The model under review.

subject.py    weights, tokenizer and template, opened
folder.py     where its files are: a folder, the organism, a pinned commit of the Hub; safetensors only
kind.py       can it be trained, and served with adapters?
weights.py    its weights as its files state them, not loaded
empty.py      its model without the weights
placement.py  on which devices it is loaded
digests.py    SHA-256 of its files, kept from command to command
chat_date.py  the day that its template is told
"""
