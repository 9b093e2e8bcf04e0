"""A vLLM server as a context manager, with every adapter of a run in one engine.

server.py       starts it, waits, asks, ends it
launch.py       its process, now or ahead of time
device.py       where it runs, and its environment
port.py         its port, and whether it is ours
keyed.py        in its process: nobody is answered without the key
adapters.py     what it is told of adapters
vllm_server.py  the process: vLLM's own server; on a CPU its engine is forked, not spawned
cpu_lora.py     on a CPU, vLLM's multi-LoRA operator with one matrix product an adapter
replaced.py     how a function of vLLM's is replaced by ours
cpu_experts.py  on a CPU, experts' kernels
lone_worker.py  on a CPU, no store that listens to the network, in an older vLLM
width.py        how much is asked at once, where the configuration leaves it open
watch.py        tells a server that hangs from one that is slow
"""
