"""A Triton kernel with the tiling of EvaByte's published ones, written for this comparison.

A program takes a block of queries of a window and one head. It goes over the window's keys up to
its own last query, all of them under the causal mask, then over the summaries of the windows
before, with one running softmax. What such kernels leave to be gained is why ours are not so.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from slots import Call, Slots, Variants


class Tiling(NamedTuple):
    queries: int
    slots: int
    warps: int
    stages: int


TILINGS = (
    Tiling(128, 128, 8, 2),
    Tiling(128, 64, 8, 3),
    Tiling(64, 128, 4, 2),
    Tiling(64, 64, 4, 3),
)
FIELDS = tl.constexpr(5)  # of a sequence in `sequences`


@triton.jit
def take_slots(
    acc, top, total, q, k, v, base, begin, end, first_hidden, width, scale_log2,
    SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Adds slots [begin, begin + SLOTS) to a block's sums. A row sees those before its entry of
    `first_hidden` if MASKED, and none from `end` on."""
    slots = begin + tl.arange(0, SLOTS)
    at = (base + slots).to(tl.int64)[:, None] * width + tl.arange(0, HEAD_DIM)[None, :]
    if EVEN:
        keys = tl.load(k + at)
        values = tl.load(v + at)
    else:
        keys = tl.load(k + at, mask=slots[:, None] < end, other=0.0)
        values = tl.load(v + at, mask=slots[:, None] < end, other=0.0)
    logits = tl.dot(q, tl.trans(keys)) * scale_log2
    if MASKED:
        logits = tl.where(slots[None, :] < first_hidden[:, None], logits, -float("inf"))
    if not EVEN:
        logits = tl.where(slots[None, :] < end, logits, -float("inf"))
    new_top = tl.maximum(top, tl.max(logits, 1))
    correction = tl.exp2(top - new_top)
    weights = tl.exp2(logits - new_top[:, None])
    acc = acc * correction[:, None]
    acc = tl.dot(weights.to(values.dtype), values, acc)
    return acc, new_top, total * correction + tl.sum(weights, 1)


@triton.jit
def attend_kernel(
    q, k, v, out, sequences, heads, scale_log2,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * QUERIES
    head = tl.program_id(2)
    shape = sequences + tl.program_id(1) * FIELDS
    query_start = tl.load(shape)
    num_queries = tl.load(shape + 1)
    slot_start = tl.load(shape + 2)
    num_summaries = tl.load(shape + 3)
    num_window = tl.load(shape + 4)
    if first >= num_queries:
        return
    width = heads * HEAD_DIM
    rows = first + tl.arange(0, QUERIES)
    at = (query_start + rows).to(tl.int64)[:, None] * width + head * HEAD_DIM
    at += tl.arange(0, HEAD_DIM)[None, :]
    is_row = rows[:, None] < num_queries
    queries = tl.load(q + at, mask=is_row, other=0.0)
    keys = k + head * HEAD_DIM
    values = v + head * HEAD_DIM

    acc = tl.zeros([QUERIES, HEAD_DIM], tl.float32)
    top = tl.full([QUERIES], -float("inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    first_hidden = num_window - num_queries + rows + 1
    end = tl.minimum(num_window, num_window - num_queries + first + QUERIES)
    window_start = slot_start + num_summaries
    for begin in range(0, end, SLOTS):
        acc, top, total = take_slots(
            acc, top, total, queries, keys, values, window_start, begin, num_window, first_hidden,
            width, scale_log2, SLOTS, HEAD_DIM, True, EVEN,
        )  # fmt: skip
    for begin in range(0, num_summaries, SLOTS):
        acc, top, total = take_slots(
            acc, top, total, queries, keys, values, slot_start, begin, num_summaries, first_hidden,
            width, scale_log2, SLOTS, HEAD_DIM, False, EVEN,
        )  # fmt: skip
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=is_row)


def prepare(slots: Slots, tiling: Tiling) -> Call:
    sequences = slots.batch.sequences
    shapes = [
        [query_start, sequence.queries, slot_start, sequence.summaries, sequence.window]
        for sequence, query_start, slot_start in zip(
            sequences, slots.query_starts, slots.slot_starts
        )
    ]
    is_even = all(
        s.queries % tiling.queries == s.window % tiling.slots == s.summaries % tiling.slots == 0
        for s in sequences
    )
    device_shapes = slots.int32(shapes)
    most_queries = max(sequence.queries for sequence in sequences)
    grid = (triton.cdiv(most_queries, tiling.queries), len(sequences), slots.batch.heads)
    out = torch.empty_like(slots.q)

    def call() -> torch.Tensor:
        attend_kernel[grid](
            slots.q,
            slots.k,
            slots.v,
            out,
            device_shapes,
            slots.batch.heads,
            math.log2(math.e) / math.sqrt(slots.batch.head_dim),
            QUERIES=tiling.queries,
            SLOTS=tiling.slots,
            HEAD_DIM=slots.batch.head_dim,
            EVEN=is_even,
            num_warps=tiling.warps,
            num_stages=tiling.stages,
        )
        return out

    return call


def official_tiling(slots: Slots) -> Variants:
    """None for decoding, which the published code leaves to other kernels."""
    if slots.batch.op == "decode":
        return {}
    return {f"{t.queries} x {t.slots}": functools.partial(prepare, slots, t) for t in TILINGS}
