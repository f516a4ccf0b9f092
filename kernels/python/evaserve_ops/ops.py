"""torch.ops.eva with names for the arguments. TorchScript and torch.export see the operators."""

from collections.abc import Sequence

import torch

from . import _library  # noqa: F401  the operators are there after this


def window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    window: int,
    num_landmarks: int,
    map_k: Sequence[torch.Tensor],
    map_q: Sequence[torch.Tensor] = (),
    bias: torch.Tensor | None = None,
    overlap: bool = False,
    lengths: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """The paper's EVA attention, not causal.

    q, k, v: [batch, num_heads, seq_len, head_dim], or [batch, num_heads, height, width, head_dim]
    for maps, whose windows and chunks are squares. float32 or bfloat16, on CUDA float16 too.
    window: tokens of a window, or along a side of it. num_landmarks: chunks asked for.
    map_k, map_q: the learned maps of a chunk's mean (`adaptive_mu_k`, `adaptive_mu_q`): (weight,
    bias), or (weight, bias, norm weight, norm bias). map_q may be absent (adaptive_proj none).
    bias: [num_heads, places of a window, places of its keys], added to the logits.
    overlap: windows and chunks see a margin of max(1, window // 2) tokens.
    lengths: int64 [sequences]. Then batch is 1 and seq_len their sum: the sequences lie one after
    the other, and each is computed as if it were alone.
    scale: of the logits, 1 / sqrt(head_dim) if not given.

    Returns a tensor like q, with the memory of [batch, tokens, num_heads, head_dim].
    """
    return torch.ops.eva.window_attention(
        q,
        k,
        v,
        window,
        num_landmarks,
        list(map_q),
        list(map_k),
        bias,
        overlap=overlap,
        lengths=lengths,
        scale=scale,
    )


def causal_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    window: int,
    chunk: int,
    map_k: Sequence[torch.Tensor],
    map_q: Sequence[torch.Tensor] = (),
    bias: torch.Tensor | None = None,
    overlap: bool = False,
    lengths: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """The paper's causal EVA attention, of whole sequences from their first token on.

    q, k, v: [batch, num_heads, seq_len, head_dim], float32 or bfloat16, on CUDA float16 too.
    window: tokens of a window, a multiple of chunk. overlap: it also sees the window before.
    bias: [window, window], or [window, 2 window] with overlap, for all heads.
    The others as in window_attention().
    """
    return torch.ops.eva.causal_attention(
        q,
        k,
        v,
        window,
        chunk,
        list(map_q),
        list(map_k),
        bias,
        overlap=overlap,
        lengths=lengths,
        scale=scale,
    )


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mu: torch.Tensor,
    phi: torch.Tensor,
    *,
    window: int,
    chunk: int,
    scale: float | None = None,
) -> torch.Tensor:
    """EvaByte's causal EVA attention, of whole sequences from their first token on.

    q, k, v: [batch, num_heads, seq_len, head_dim], rotated already. mu, phi: [num_heads, head_dim],
    `adaptive_mu_k` and `adaptive_phi`. window: tokens, a multiple of chunk.
    """
    return torch.ops.eva.attention(q, k, v, mu, phi, window, chunk, scale)


def summarize(
    k: torch.Tensor,
    v: torch.Tensor,
    mu: torch.Tensor,
    phi: torch.Tensor,
    *,
    chunk: int,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """EvaByte's summaries: a key and a value for each whole chunk of the keys and values."""
    return torch.ops.eva.summarize(k, v, mu, phi, chunk, scale)
