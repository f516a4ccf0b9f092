"""The batches that gpu_bench times, for baselines: one call of attention over packed rows.

The slots of a window's queries are [summaries | window] under a causal mask aligned to the end, so
any attention library serves them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

Call = Callable[[], torch.Tensor]  # the answer, [rows, heads, head_dim]
# What a baseline offers for a batch, by name; each is prepared once and called many times.
Variants = dict[str, Callable[[], Call]]

WINDOW, CHUNK = 2048, 16
RAGGED = (1901, 3000, 9000, 33333)  # bytes of text, as in gpu_bench


class Sequence(NamedTuple):
    """Counts, of which `window` has the slots of the queries themselves as its last ones."""

    queries: int
    summaries: int
    window: int

    @property
    def slots(self) -> int:
        return self.summaries + self.window


@dataclass(frozen=True)
class Batch:
    op: str
    context: int  # bytes of text, of the longest sequence
    sequences: tuple[Sequence, ...]
    heads: int = 32
    head_dim: int = 128

    @property
    def is_even(self) -> bool:
        """Whether all sequences are alike, so that a call without lengths serves them."""
        return len(set(self.sequences)) == 1

    def name(self) -> dict:
        return {"op": self.op, "context": self.context, "sequences": len(self.sequences)}


def last_window(length: int) -> Sequence:
    """The rows of a text's last window, which may not be full."""
    rows = (length - 1) % WINDOW + 1
    return Sequence(rows, (length - rows) // CHUNK, rows)


def batches() -> Iterator[Batch]:
    for kib in (2, 8, 32, 128):
        context = kib * 1024
        yield Batch("prefill window", context, (last_window(context),))
        decode = Sequence(1, last_window(context).summaries, WINDOW // 2)
        for sequences in (1, 8, 64):
            yield Batch("decode", context, (decode,) * sequences)
    yield Batch("prefill ragged", max(RAGGED), tuple(map(last_window, RAGGED)))


def small_batches() -> Iterator[Batch]:
    """To see that everything runs."""
    few = {"heads": 2, "head_dim": 32}
    yield Batch("prefill window", 512, (Sequence(128, 24, 128),), **few)
    yield Batch("decode", 512, (Sequence(1, 24, 60),) * 2, **few)
    yield Batch("prefill ragged", 512, (Sequence(70, 0, 70), Sequence(33, 24, 50)), **few)


class Slots:
    """Random q [rows, heads, head_dim], and k and v [slots, heads, head_dim], of all sequences."""

    def __init__(self, batch: Batch, device: str, dtype: torch.dtype = torch.bfloat16):
        def random(rows: int) -> torch.Tensor:
            return torch.randn(rows, batch.heads, batch.head_dim, device=device, dtype=dtype)

        self.batch = batch
        self.device = device
        self.query_starts = self._starts([s.queries for s in batch.sequences])
        self.slot_starts = self._starts([s.slots for s in batch.sequences])
        self.q = random(self.query_starts[-1])
        self.k, self.v = random(self.slot_starts[-1]), random(self.slot_starts[-1])

    @staticmethod
    def _starts(counts: list[int]) -> list[int]:
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        return starts

    def int32(self, values: list) -> torch.Tensor:
        return torch.tensor(values, device=self.device, dtype=torch.int32)

    def exact(self) -> torch.Tensor:
        """The answer in float32, by PyTorch's plain attention, one sequence and head at a time."""
        out = torch.empty_like(self.q, dtype=torch.float32)
        backend = torch.nn.attention.SDPBackend.MATH
        with torch.nn.attention.sdpa_kernel(backend):
            for i, sequence in enumerate(self.batch.sequences):
                rows = slice(*self.query_starts[i : i + 2])
                slots = slice(*self.slot_starts[i : i + 2])
                before = sequence.slots - sequence.queries
                mask = torch.ones(
                    sequence.queries, sequence.slots, device=self.device, dtype=torch.bool
                ).tril(before)
                for head in range(self.batch.heads):
                    out[rows, head] = torch.nn.functional.scaled_dot_product_attention(
                        *(x[:, head].float()[None] for x in (self.q[rows], self.k[slots])),
                        self.v[slots, head].float()[None],
                        attn_mask=mask,
                    )[0]
        return out
