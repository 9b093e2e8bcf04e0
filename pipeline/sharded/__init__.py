"""One fine-tune in several processes, a device each, where `subject.fsdp` asks for it (PyTorch's FSDP2).

The subject's weights, which no arm changes, are cut up among the processes and come together layer by layer as they
are needed; the adapter is small, so that each process holds it whole. Each passes its share of a step's examples
through, the gradients are averaged, and all take the same step: the same examples in the same steps as in one process.

The command itself holds no weights and is none of these processes: it keeps ledger, rungs and tracker, asks and is
asked by messages, and ends all of them where one fails, so that memory's end on one device is no end of the run.

ranks.py     in the command: starts the processes, has them work, answers what they ask
messages.py  what the two sides say to each other
member.py    one of the processes
process.py   ... as a script
weights.py   in it: its share of the subject's weights
climbing.py  in it: an arm's climb, whose ledger and rungs are kept elsewhere
share.py     in it: its share of each step's examples, and the gradient of all
"""
