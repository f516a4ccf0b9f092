"""The paper's attention as modules. Parameters have the published names, so checkpoints load."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from . import biases, ops

ADAPTIVE_PROJ = ("default", "no-ln", "none")


def _extension(window_size: int, overlap_window: bool) -> int:
    return max(1, window_size // 2) if overlap_window else 0


def _adaptive_map(head_dim: int, has_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(head_dim, head_dim)]
    if has_norm:
        layers.append(nn.LayerNorm(head_dim, eps=1e-5))
    return nn.Sequential(*layers)


class T5Bias(nn.Module):
    """A learned number for each head and bucket of distances: [heads, queries, keys]."""

    def __init__(self, num_heads: int, index: torch.Tensor, num_buckets: int):
        super().__init__()
        self.relative_attention_bias = nn.Embedding(num_buckets, num_heads)
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> torch.Tensor:
        return self.relative_attention_bias(self.index).permute(2, 0, 1)


class _EvaAttention(nn.Module):
    """What the modules share."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim is {dim}, must be a multiple of num_heads = {num_heads}")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = 1 / math.sqrt(self.head_dim)

    def _add_maps(self, adaptive_proj: str) -> None:
        if adaptive_proj != "none":
            self.adaptive_mu_q = _adaptive_map(self.head_dim, adaptive_proj != "no-ln")
        self.adaptive_mu_k = _adaptive_map(self.head_dim, adaptive_proj != "no-ln")

    def _map(self, name: str) -> Sequence[torch.Tensor]:
        layers = getattr(self, name, ())
        return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


class _WindowAttention(_EvaAttention):
    """[batch, tokens..., dim] -> the same, not causal."""

    NUM_SIDES = 0  # of a window

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        num_landmarks: int,
        *,
        overlap_window: bool = False,
        adaptive_proj: str = "default",
        use_rpe: bool = False,
        use_t5_rpe: bool = False,
        qkv_bias: bool = True,
    ):
        super().__init__(dim, num_heads)
        if adaptive_proj not in ADAPTIVE_PROJ:
            raise ValueError(f"adaptive_proj is {adaptive_proj!r}, must be one of {ADAPTIVE_PROJ}")
        if use_rpe and use_t5_rpe:
            raise ValueError("use_rpe and use_t5_rpe are both true, must be one of them at most")
        self.window_size, self.num_landmarks = window_size, num_landmarks
        self.overlap_window, self.use_rpe, self.use_t5_rpe = overlap_window, use_rpe, use_t5_rpe
        self.extension = _extension(window_size, overlap_window)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self._add_maps(adaptive_proj)
        if use_rpe:
            self._add_table()
        if use_t5_rpe:
            sides = (window_size, window_size + 2 * self.extension)
            queries, keys = (side**self.NUM_SIDES for side in sides)
            index = biases.t5_bucket_of(
                queries, keys, window_size, self.extension, is_causal=False
            )
            buckets = biases.t5_buckets(window_size, self.extension)
            self.rel_pos_bias = T5Bias(num_heads, index, buckets)

    def _add_table(self) -> None:
        raise NotImplementedError

    def _table_bias(self) -> torch.Tensor:
        raise NotImplementedError

    def bias(self) -> torch.Tensor | None:
        """What is added to the logits, [num_heads, places of a window, places of its keys]."""
        if self.use_rpe:
            return self._table_bias()
        return self.scale * self.rel_pos_bias() if self.use_t5_rpe else None

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = (part.movedim(-2, 1) for part in qkv.unbind(-3))
        out = ops.window_attention(
            q,
            k,
            v,
            window=self.window_size,
            num_landmarks=self.num_landmarks,
            map_q=self._map("adaptive_mu_q"),
            map_k=self._map("adaptive_mu_k"),
            bias=self.bias(),
            overlap=self.overlap_window,
            lengths=lengths,
        )
        return self.proj(out.movedim(1, -2).flatten(-2))


class EvaAttention1d(_WindowAttention):
    """EVA attention over sequences: [batch, seq_len, dim] -> the same, of any lengths.

    With lengths, int64 [sequences], x is [1, sum of lengths, dim], one sequence after the other.
    window_size: tokens. num_landmarks: chunks that a sequence is cut into.
    overlap_window, adaptive_proj, use_rpe, use_t5_rpe: as in the published code.
    """

    NUM_SIDES = 1

    def _add_table(self) -> None:
        keys = self.window_size + 2 * self.extension
        table = torch.zeros(self.num_heads, self.window_size, keys)
        self.local_relative_position_bias_table = nn.Parameter(table)

    def _table_bias(self) -> torch.Tensor:
        return self.local_relative_position_bias_table


class EvaAttention2d(_WindowAttention):
    """EVA attention over maps: [batch, height, width, dim] -> the same.

    window_size, tokens along a side of a window, divides height and width. Without overlap the
    chunks, squares of about height x width / num_landmarks tokens, do so too.
    overlap_window, adaptive_proj, use_rpe, use_t5_rpe: as in the published code.
    """

    NUM_SIDES = 2

    def _add_table(self) -> None:
        entries = biases.map_entries(self.window_size, self.extension)
        self.local_relative_position_bias_table = nn.Parameter(torch.zeros(entries, self.num_heads))
        index = biases.map_offsets(self.window_size, self.extension)
        self.register_buffer("relative_position_index", index, persistent=False)

    def _table_bias(self) -> torch.Tensor:
        table = self.local_relative_position_bias_table
        return table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        # Published checkpoints have it, though it follows from the sizes.
        state_dict.pop(prefix + "relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CausalEvaAttention(_EvaAttention):
    """Causal EVA attention over sequences: [batch, seq_len, dim] -> the same.

    With lengths, int64 [sequences], x is [1, sum of lengths, dim], one sequence after the other.
    window_size: tokens, a multiple of chunk_size. adaptive_proj: "qk" or "no-ln".
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        chunk_size: int,
        *,
        overlap_window: bool = False,
        adaptive_proj: str = "qk",
        use_t5_rpe: bool = False,
    ):
        super().__init__(dim, num_heads)
        if adaptive_proj not in ("qk", "no-ln"):
            raise ValueError(f"adaptive_proj is {adaptive_proj!r}, must be 'qk' or 'no-ln'")
        self.window_size, self.chunk_size = window_size, chunk_size
        self.overlap_window, self.use_t5_rpe = overlap_window, use_t5_rpe
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(dim, dim))
        self._add_maps(adaptive_proj)
        if use_t5_rpe:
            extension = window_size if overlap_window else 0
            keys = window_size + extension
            index = biases.t5_bucket_of(window_size, keys, window_size, extension, is_causal=True)
            self.rel_pos_bias = T5Bias(1, index, biases.t5_buckets(window_size, extension))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        heads = (self.num_heads, self.head_dim)
        q, k, v = (
            linear(x).unflatten(-1, heads).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = ops.causal_attention(
            q,
            k,
            v,
            window=self.window_size,
            chunk=self.chunk_size,
            map_q=self._map("adaptive_mu_q"),
            map_k=self._map("adaptive_mu_k"),
            bias=self.scale * self.rel_pos_bias().squeeze(0) if self.use_t5_rpe else None,
            overlap=self.overlap_window,
            lengths=lengths,
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))
