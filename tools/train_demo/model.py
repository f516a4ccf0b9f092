"""EvaByte in PyTorch, in the parallel form that training needs (SPEC: docs/models.md).

Tensor names, shapes and the mathematics are those of the published EvaByte checkpoints, so the
state dict of `EvaByte` is what the server loads.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Config:
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    vocab_size: int = 320
    num_pred_heads: int = 8
    window_size: int = 256
    chunk_size: int = 16
    max_position_embeddings: int = 4096
    rope_theta: float = 100000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


class Norm(nn.Module):
    """RMS norm with weight 1 + w (`norm_add_unit_offset`)."""

    def __init__(self, config: Config):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], 1 + self.weight, self.eps)


def rope_tables(config: Config, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [length, head_dim], half-split layout, float32."""
    i = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    angle = torch.outer(
        torch.arange(length, dtype=torch.float32), 1 / config.rope_theta ** (i / config.head_dim)
    )
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        d, h = config.hidden_size, config.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(d, d, bias=False))
        for name in ("adaptive_mu_k", "adaptive_phi"):
            init = torch.randn(1, h, 1, 1, config.head_dim).clamp(-1, 1) / math.sqrt(
                config.head_dim
            )
            setattr(self, name, nn.Parameter(init))

    def summaries(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """k, v [B, H, N, D], N a multiple of chunk_size -> summary keys and values [B, H, N/C, D]."""
        k, v = (t.unflatten(2, (-1, self.config.chunk_size)) for t in (k, v))
        scale = 1 / math.sqrt(self.config.head_dim)
        a = (self.adaptive_mu_k * k).sum(-1, dtype=torch.float32)
        b = scale * (
            (self.adaptive_phi * k).sum(-1, dtype=torch.float32)
            - 0.5 * k.square().sum(-1, dtype=torch.float32)
        )
        weigh = lambda logits, x: (logits.softmax(-1).to(x.dtype).unsqueeze(-1) * x).sum(-2)
        return weigh(a, k), weigh(b, v)

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        c = self.config
        heads = lambda t: t.view(batch, length, c.num_attention_heads, c.head_dim).transpose(1, 2)
        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        windows = length // c.window_size
        seen = (windows - 1) * c.window_size  # the last window is never summarised
        far_k, far_v = self.summaries(k[:, :, :seen], v[:, :, :seen])

        def keys(
            far, near
        ):  # every window: [all summaries | its own tokens]; `mask` hides the later ones
            far = far.unsqueeze(2).expand(-1, -1, windows, -1, -1)
            near = near.unflatten(2, (windows, c.window_size))
            return torch.cat([far, near], dim=3).transpose(1, 2).flatten(0, 1)

        q = q.unflatten(2, (windows, c.window_size)).transpose(1, 2).flatten(0, 1)
        out = F.scaled_dot_product_attention(q, keys(far_k, k), keys(far_v, v), attn_mask=mask)
        out = out.unflatten(0, (batch, windows)).transpose(2, 3).reshape(batch, length, -1)
        return self.o_proj(out)


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.input_layernorm = Norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config)
        self.mlp = Mlp(config)

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class EvaByte(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = Norm(config)
        self.lm_head = nn.Linear(
            config.hidden_size, config.num_pred_heads * config.vocab_size, bias=False
        )
        self.apply(self._init)

    def _init(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def window_mask(self, batch: int, length: int) -> torch.Tensor:
        """What each row of each window sees of [summaries | window]: [batch * windows, 1, W, columns]."""
        c = self.config
        windows, per_window = length // c.window_size, c.window_size // c.chunk_size
        far = (
            torch.arange((windows - 1) * per_window)[None]
            < torch.arange(windows)[:, None] * per_window
        )
        near = torch.ones(c.window_size, c.window_size).tril().bool()
        mask = torch.cat(
            [far[:, None].expand(-1, c.window_size, -1), near.expand(windows, -1, -1)], dim=-1
        )
        return mask.repeat(batch, 1, 1).unsqueeze(1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, N], N a multiple of window_size -> logits [B, N, num_pred_heads, vocab]."""
        cos, sin = rope_tables(self.config, ids.shape[1])
        mask = self.window_mask(*ids.shape)
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        logits = self.lm_head(self.model.norm(x))
        return logits.unflatten(-1, (self.config.num_pred_heads, self.config.vocab_size))
