"""PyTorch's own attention: FlashAttention-2 and cuDNN, and FlashAttention-2 with lengths."""

import torch
from slots import Call, Slots, Variants
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right


def scaled_dot_product(slots: Slots, backend: SDPBackend) -> Variants:
    """For batches of sequences that are all alike; others have no variant."""

    def prepare() -> Call:
        sequence = slots.batch.sequences[0]

        def by_sequence(packed: torch.Tensor, count: int) -> torch.Tensor:
            return packed.unflatten(0, (-1, count)).transpose(1, 2)

        q = by_sequence(slots.q, sequence.queries)
        k, v = by_sequence(slots.k, sequence.slots), by_sequence(slots.v, sequence.slots)
        is_one = sequence.queries == 1
        mask = None if is_one else causal_lower_right(sequence.queries, sequence.slots)

        def call() -> torch.Tensor:
            with sdpa_kernel(backend):
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return out.transpose(1, 2).flatten(0, 1)

        return call

    return {"": prepare} if slots.batch.is_even else {}


def flash(slots: Slots) -> Variants:
    return scaled_dot_product(slots, SDPBackend.FLASH_ATTENTION)


def cudnn(slots: Slots) -> Variants:
    return scaled_dot_product(slots, SDPBackend.CUDNN_ATTENTION)


def varlen(slots: Slots) -> Variants:
    """All sequences of a batch in one call, whatever their lengths."""

    def prepare() -> Call:
        from torch.nn.attention.varlen import varlen_attn  # new in PyTorch 2.10

        starts = slots.int32(slots.query_starts), slots.int32(slots.slot_starts)
        most_queries = max(sequence.queries for sequence in slots.batch.sequences)
        most_slots = max(sequence.slots for sequence in slots.batch.sequences)
        return lambda: varlen_attn(
            slots.q, slots.k, slots.v, *starts, most_queries, most_slots, window_size=(-1, 0)
        )

    return {"": prepare}
