"""One file per way of stressing the subject; `ways` finds them by name.

base.py    the contract: climb a ladder of rungs within an allowance
lora.py    LoRA by TRL and PEFT; targets.py: which modules; mixture.py: which examples
ladder.py  the callback that climbs: rungs, dose, budget, a loss that is no number
passes.py  examples of like length pass together; copies.py: no copies of activations that autocast turns back
memory.py  fewer examples at once where the device's memory ends; longest.py: which shows itself before the first step
ways.py    the names, for who has no torch
"""
