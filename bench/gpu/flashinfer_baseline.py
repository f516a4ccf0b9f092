"""FlashInfer, where it is installed: ragged prefill, and decoding from pages.

Its classes: https://docs.flashinfer.ai/api/attention.html. It compiles its kernels when they are
first called, for which it needs nvcc or its package of compiled ones.
"""

import functools

import torch
from slots import Call, Slots, Variants

PAGE_SLOTS = 128
WORKSPACE_BYTES = 128 << 20  # as its documentation advises


def prepare_prefill(slots: Slots, backend: str) -> Call:
    import flashinfer

    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=slots.device)
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD", backend=backend)
    wrapper.plan(
        slots.int32(slots.query_starts),
        slots.int32(slots.slot_starts),
        slots.batch.heads,
        slots.batch.heads,
        slots.batch.head_dim,
        causal=True,  # aligned to the end
        q_data_type=slots.q.dtype,
        kv_data_type=slots.k.dtype,
    )
    return lambda: wrapper.run(slots.q, slots.k, slots.v)


def in_pages(slots: Slots) -> tuple[torch.Tensor, list[int], list[int]]:
    """Keys and values [pages, 2, PAGE_SLOTS, heads, head_dim], where the pages of each sequence
    start, and how many slots of its last page are its own."""
    pages, starts, last = [], [0], []
    for i, sequence in enumerate(slots.batch.sequences):
        own = slice(*slots.slot_starts[i : i + 2])
        num_pages = -(-sequence.slots // PAGE_SLOTS)
        padding = (0, 0, 0, 0, 0, num_pages * PAGE_SLOTS - sequence.slots)
        both = torch.stack([slots.k[own], slots.v[own]])
        padded = torch.nn.functional.pad(both, padding)
        pages.append(padded.unflatten(1, (num_pages, PAGE_SLOTS)).transpose(0, 1))
        starts.append(starts[-1] + num_pages)
        last.append(sequence.slots - (num_pages - 1) * PAGE_SLOTS)
    return torch.cat(pages), starts, last


def prepare_decode(slots: Slots, use_tensor_cores: bool) -> Call:
    import flashinfer

    pages, starts, last = in_pages(slots)
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=slots.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, "NHD", use_tensor_cores=use_tensor_cores
    )
    wrapper.plan(
        slots.int32(starts),
        slots.int32(list(range(starts[-1]))),
        slots.int32(last),
        slots.batch.heads,
        slots.batch.heads,
        slots.batch.head_dim,
        PAGE_SLOTS,
        q_data_type=slots.q.dtype,
        kv_data_type=slots.k.dtype,
    )
    return lambda: wrapper.run(slots.q, pages)


def ragged_and_paged(slots: Slots) -> Variants:
    if slots.batch.op == "decode":
        return {
            "CUDA cores": functools.partial(prepare_decode, slots, False),
            "tensor cores": functools.partial(prepare_decode, slots, True),
        }
    return {
        backend: functools.partial(prepare_prefill, slots, backend) for backend in ("fa2", "fa3")
    }
