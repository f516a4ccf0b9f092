#!/usr/bin/env python3
"""What PyTorch makes of the same slots as gpu_bench: one call of its fastest attention.

The slots of a window's queries are [summaries | window] under a causal mask aligned to the end, so
any attention library serves them. One JSON object a line, as gpu_bench prints them.
"""

import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

HEADS, HEAD_DIM, WINDOW, CHUNK = 32, 128, 2048, 16
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def random(sequences: int, slots: int) -> torch.Tensor:
    return torch.randn(sequences, HEADS, slots, HEAD_DIM, device="cuda", dtype=torch.bfloat16)


def microseconds(call, repeats: int = 20) -> float:
    """Of one call: the fastest of five runs."""
    best = float("inf")
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) * 1e3 / repeats)
    return best


def report(op: str, context: int, sequences: int, queries: int, slots: int) -> None:
    q, k, v = random(sequences, queries), random(sequences, slots), random(sequences, slots)
    mask = causal_lower_right(queries, slots) if queries > 1 else None
    for name, backend in BACKENDS.items():
        line = {"op": op, "context": context, "sequences": sequences, "backend": name}
        try:
            with sdpa_kernel(backend):
                attend = lambda: torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask
                )
                attend()
                line["attend_us"] = round(microseconds(attend), 1)
        except RuntimeError as error:
            line["error"] = str(error).splitlines()[0]
        print(json.dumps(line), flush=True)


def main() -> None:
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}))
    for kib in (2, 8, 32, 128):
        context = kib * 1024
        summaries = (context - WINDOW) // CHUNK
        report("prefill window", context, 1, WINDOW, summaries + WINDOW)
        for sequences in (1, 8, 64):
            report("decode", context, sequences, 1, summaries + WINDOW // 2)


if __name__ == "__main__":
    main()
