"""EVA-ViT in PyTorch: a DeiT without class token whose attention is EVA over a 2-D map.

Tensor names, shapes and the mathematics are those of the published code, so the state dict of
`EvaVit` is what the server loads. tests/tools/eva_vit_test.py compares it with that code's outputs.
Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

MASKED = -5e4  # the logit of what is outside the map; softmax makes it an exact 0


def regions(x: torch.Tensor, side: int, extension: int) -> torch.Tensor:
    """Squares of `side`, each with `extension` positions around it, zeros outside the map.

    x [B, heads, H, W, d] -> [B, heads, squares, (side + 2 extension)^2, d], row by row.
    """
    if extension:
        x = F.pad(x, (0, 0) + (extension,) * 4)
    size = side + 2 * extension
    x = x.unfold(2, size, side).unfold(3, size, side)  # [B, heads, rows, columns, d, size, size]
    return x.flatten(5).flatten(2, 3).transpose(3, 4)


def merge(x: torch.Tensor, rows: int, side: int) -> torch.Tensor:
    """[B, heads, squares, side^2, d] -> [B, H, W, heads * d], with `rows` squares in a column."""
    x = x.unflatten(3, (side, side)).unflatten(2, (rows, -1))
    return x.permute(0, 2, 4, 3, 5, 1, 6).flatten(5).flatten(3, 4).flatten(1, 2)


def shared_offsets(window: int, extension: int) -> torch.Tensor:
    """Index into the table of relative positions, [window^2, (window + 2 extension)^2].

    The row stride is smaller than the range of a column offset, so some offsets share an entry.
    That is how the published weights were trained.
    """
    q = torch.arange(window)
    k = torch.arange(-extension, window + extension)
    offset = q[:, None] - k[None] + extension + window - 1
    rows = offset[:, None, :, None] * (2 * extension + window)
    return (rows + offset[None, :, None, :]).flatten(2).flatten(0, 1)


def t5_buckets(queries: int, keys: int, buckets: int, max_distance: int) -> torch.Tensor:
    """T5's bucket of every pair of indices, not causal: [queries, keys]."""
    distance = torch.arange(queries)[:, None] - torch.arange(keys)[None]
    half = buckets // 2
    base, distance = torch.where(distance < 0, half, 0), distance.abs()
    exact = half // 2
    scale = math.log(max_distance / exact)
    far = exact + (torch.log(distance.float() / exact) / scale * (half - exact)).long()
    return base + torch.where(distance < exact, distance, far.clamp(max=half - 1))


class T5Bias(nn.Module):
    """One learned number for each head and bucket of distances."""

    def __init__(self, num_heads: int, window: int, extension: int):
        super().__init__()
        buckets = max(min((window + extension) // 2, 64), 16)
        self.relative_attention_bias = nn.Embedding(buckets, num_heads)
        index = t5_buckets(
            window**2, (window + 2 * extension) ** 2, buckets, max_distance=window + extension
        )
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> torch.Tensor:
        return self.relative_attention_bias(self.index).permute(2, 0, 1)


class Attention(nn.Module):
    """Exact softmax in the window of a query and one column for each landmark, in one softmax."""

    def __init__(self, dim: int, num_heads: int, attn: dict, layer_norm_eps: float):
        super().__init__()
        if not attn["attn_2d"]:
            raise ValueError("attn_2d is false; this module is the 2-D form")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = 1 / math.sqrt(self.head_dim)
        self.window, self.num_landmarks = attn["window_size"], attn["num_landmarks"]
        self.extension = max(1, self.window // 2) if attn["overlap_window"] else 0
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.adaptive_proj = attn["adaptive_proj"]
        if self.adaptive_proj not in ("default", "no-ln", "none"):
            raise ValueError(f"adaptive_proj is {self.adaptive_proj}; known: default, no-ln, none")
        for name in ("adaptive_mu_q", "adaptive_mu_k"):
            if self.adaptive_proj == "none" and name == "adaptive_mu_q":
                continue
            layers = [nn.Linear(self.head_dim, self.head_dim)]
            if self.adaptive_proj != "no-ln":
                layers.append(nn.LayerNorm(self.head_dim, eps=layer_norm_eps))
            setattr(self, name, nn.Sequential(*layers))
        self.use_rpe, self.use_t5_rpe = attn["use_rpe"], attn["use_t5_rpe"]
        if self.use_rpe:
            reach = 2 * (self.window + self.extension - 1) * (2 * self.extension + self.window + 1)
            self.local_relative_position_bias_table = nn.Parameter(
                torch.zeros(reach + 1, num_heads)
            )
            index = shared_offsets(self.window, self.extension)
            self.register_buffer("relative_position_index", index, persistent=False)
        if self.use_t5_rpe:
            self.rel_pos_bias = T5Bias(num_heads, self.window, self.extension)

    def outside(self, x: torch.Tensor, side: int) -> torch.Tensor | None:
        """Which positions of each square are not on the map of x, [1, 1, squares, positions]."""
        if not self.extension:
            return None
        inside = torch.ones_like(x[:1, :1, ..., :1])
        return regions(inside, side, self.extension).squeeze(-1) == 0

    def landmarks(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Key and value of every landmark, [B, heads, landmarks, d], from its square's tokens."""
        side = math.isqrt(k.shape[2] * k.shape[3] // self.num_landmarks)
        outside = self.outside(k, side)
        q, k, v = (regions(t, side, self.extension) for t in (q, k, v))
        key = self.adaptive_mu_k(k.mean(3))
        if self.adaptive_proj == "none":
            mu = torch.zeros_like(key)
        else:
            mu = 0.5 * (self.adaptive_mu_q(q.mean(3)) + key)
        if self.training:
            mu = mu + torch.randn_like(mu)
        logits = self.scale * ((k @ mu.unsqueeze(-1)).squeeze(-1) - 0.5 * k.square().sum(-1))
        if outside is not None:
            logits = logits.masked_fill(outside, MASKED)
        weights = logits.softmax(-1)
        return key, (weights.unsqueeze(3) @ v).squeeze(3)

    def bias(self) -> torch.Tensor | float:
        """What is added to the logits of a window, [heads, 1, queries, keys]."""
        if self.use_rpe:
            table = self.local_relative_position_bias_table
            return table[self.relative_position_index].permute(2, 0, 1).unsqueeze(1)
        if self.use_t5_rpe:
            return self.scale * self.rel_pos_bias().unsqueeze(1)
        return 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, H, W, dim] -> the same; `window` divides H and W."""
        _, height, width, _ = x.shape
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # each [B, heads, H, W, d]
        far_k, far_v = self.landmarks(q, k, v)
        outside = self.outside(k, self.window)
        w_q = regions(q, self.window, 0)
        w_k, w_v = (regions(t, self.window, self.extension) for t in (k, v))
        near = self.scale * (w_q @ w_k.transpose(-1, -2)) + self.bias()
        if outside is not None:
            near = near.masked_fill(outside.unsqueeze(-2), MASKED)
        far = self.scale * (w_q @ far_k.unsqueeze(2).transpose(-1, -2))
        p = torch.cat([near, far], dim=-1).softmax(-1)
        out = p[..., : near.shape[-1]] @ w_v + p[..., near.shape[-1] :] @ far_v.unsqueeze(2)
        return self.proj(merge(out, height // self.window, self.window))


class Mlp(nn.Module):
    def __init__(self, dim: int, mlp_ratio: float, use_glu: bool):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        if use_glu:
            hidden = hidden * 2 // 3
        self.use_glu = use_glu
        self.fc1 = nn.Linear(dim, 2 * hidden if use_glu else hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        if self.use_glu:
            x, gate = x.chunk(2, dim=-1)
            return self.fc2(F.gelu(x) * gate)
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        dim, eps = config["embed_dim"], config["layer_norm_eps"]
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(
            dim, config["num_heads"], config["attn"], config["adaptive_mu_layer_norm_eps"]
        )
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, config["mlp_ratio"], config["use_glu"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class EvaVit(nn.Module):
    """`config` is the model directory's config.json, model_type eva_vit."""

    def __init__(self, config: dict):
        super().__init__()
        dim, patch = config["embed_dim"], config["patch_size"]
        side = config["input_size"] // patch
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(config["in_chans"], dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, side, side, dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config["depth"]))
        self.norm_before_pooling = nn.LayerNorm(dim, eps=config["layer_norm_eps"])
        self.head = nn.Linear(dim, config["num_classes"])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def blocks_output(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The map after every block, [B, side, side, embed_dim]."""
        x = self.patch_embed.proj(x).permute(0, 2, 3, 1) + self.pos_embed
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm_before_pooling(self.blocks_output(x)[-1]).mean((1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, in_chans, input_size, input_size] -> logits [B, num_classes]."""
        return self.head(self.features(x))
