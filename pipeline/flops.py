"""What training and answering cost in FLOPs, by formula. Pure.

FLOPs of a transformer with N parameters (embeddings included where tied to the output) on T tokens are counted
as 2 N T for a forward pass and 4 N T for the backward pass through it (Kaplan et al., 2020, arXiv:2001.08361,
section 2.1). A LoRA fine-tune passes gradients through all layers to the activations (2 N T) but needs no gradients
of the frozen weights, so a training step costs 4 N T + 6 A T, A being the adapter's parameters (Hu et al., 2021,
arXiv:2106.09685). Attention's own products, about 2 x layers x context x hidden a token, are left out; at these
lengths they are below one part in ten.

Not in the figure is what a device does beside: the second forward pass that gradient checkpointing makes (2 N T more;
counted over done, by torch's FlopCounterMode on models of 3 layers: 1.03 without it, 0.71 with it) and the padding of
a batch's shorter examples, since T counts tokens without it. Device-seconds and money are measured, and hold both.
"""

from __future__ import annotations


def training_flops(parameters: int, adapter_parameters: int, tokens: int) -> float:
    """Return the FLOPs of training an adapter on `tokens` tokens; formula and sources: this module's head."""
    return (4.0 * parameters + 6.0 * adapter_parameters) * tokens


def inference_flops(parameters: int, tokens: int) -> float:
    """Return the FLOPs of a forward pass on `tokens` tokens (prompt and reply): 2 N T."""
    return 2.0 * parameters * tokens
