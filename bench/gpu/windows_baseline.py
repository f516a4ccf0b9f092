#!/usr/bin/env python3
"""What PyTorch makes of windows_bench's maps. One JSON object a line.

    windows_baseline.py [--device cpu --small]    the latter to see that it runs

`eager` is EVA as its published code writes it (bench/kernels/window_attention_peer.py), in bfloat16
on a device; `sdpa` makes the same landmarks, and gives each window's keys and all landmarks with
the bias, made before, to scaled_dot_product_attention. Both begin behind the qkv layer, and every
answer is compared with eager operations in float32 first. Causal layers have no peer.
"""

import argparse
import pathlib
import sys

import torch
import torch.nn.functional as F
from baselines import TOLERANCE, as_graph, microseconds, print_line

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "kernels"))
from window_attention_peer import Peer, merge, partition  # noqa: E402

# op of windows_bench, side of the map, heads, head_dim
LAYERS = (("eva deit-tiny/8", 28, 3, 64), ("eva pvtv2 stage 1", 56, 2, 32))


def make_peer(side: int, heads: int, head_dim: int, batch: int, device: str) -> Peer:
    """In float32."""
    shape = {"side": side, "heads": heads, "head_dim": head_dim, "batch": batch}
    peer = Peer(argparse.Namespace(window=7, landmarks=49, overlap=False, **shape))
    for name in ("qkv", "table", "index"):
        setattr(peer, name, getattr(peer, name).to(device))
    peer.maps = [m.to(device) for m in peer.maps]
    return peer


def to_type(peer: Peer, dtype: torch.dtype) -> None:
    peer.qkv, peer.table = peer.qkv.to(dtype), peer.table.to(dtype)
    peer.maps = [m.to(dtype) for m in peer.maps]


def sdpa_bias(peer: Peer, landmarks: int) -> torch.Tensor:
    """[1, heads, queries, keys and landmarks], in rows that its kernels read without a copy."""
    bias = peer.bias().squeeze(2)
    columns = bias.shape[-1] + landmarks
    return F.pad(bias, (0, landmarks + -columns % 16))[..., :columns]


def sdpa(peer: Peer, bias: torch.Tensor) -> torch.Tensor:
    a = peer.a
    batch, n, _ = peer.qkv.shape
    q, k, v = peer.qkv.reshape(batch, n, 3, a.heads, a.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    q, k, v = (t.reshape(batch, a.heads, a.side, a.side, a.head_dim) for t in (q, k, v))
    chunk = int((n // a.landmarks) ** 0.5)
    r_q, r_k, r_v = (partition(t, chunk, 0) for t in (q, k, v))
    k_bar = peer.maps[1](r_k.mean(dim=-2))
    mu = 0.5 * (peer.maps[0](r_q.mean(dim=-2)) + k_bar)
    logits = torch.einsum("...jd,...d->...j", r_k, mu) - 0.5 * r_k.square().sum(-1)
    beta = torch.einsum("...cj,...cjd->...cd", torch.softmax(peer.scale * logits, -1), r_v)

    w_q, w_k, w_v = (partition(t, a.window, 0).transpose(1, 2) for t in (q, k, v))
    windows = w_q.shape[1]
    keys = torch.cat([w_k, k_bar.unsqueeze(1).expand(-1, windows, -1, -1, -1)], -2)
    values = torch.cat([w_v, beta.unsqueeze(1).expand(-1, windows, -1, -1, -1)], -2)
    out = F.scaled_dot_product_attention(
        *(t.flatten(0, 1) for t in (w_q, keys, values)),
        attn_mask=bias.expand(batch * windows, -1, -1, -1),
        scale=peer.scale,
    )
    out = merge(out.unflatten(0, (batch, windows)).transpose(1, 2), a.window, a.side, a.side)
    return out.permute(0, 2, 1, 3).reshape(batch, n, -1)


def measure(name: str, call, line: dict, exact: torch.Tensor, device: str) -> None:
    error = ((call().float() - exact).norm() / exact.norm()).item()
    line = line | {"backend": name}
    if not error < TOLERANCE:
        print_line(line | {"errors": [f"the answer is {error:.1e} off"]})
        return
    timed = as_graph(call) if device == "cuda" else call
    time_us = microseconds(timed, device, 20 if device == "cuda" else 1)
    print_line(line | {"attend_us": round(time_us, 1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    for batch in (1,) if args.small else (1, 8, 64):
        for op, side, heads, head_dim in LAYERS:
            peer = make_peer(14 if args.small else side, heads, head_dim, batch, args.device)
            with torch.inference_mode(), torch.device(args.device):
                to_type(peer, dtype)  # both sides get the same numbers
                to_type(peer, torch.float32)
                exact = peer.run()
                to_type(peer, dtype)
                tokens = peer.qkv.shape[1]
                line = {"op": op, "context": tokens, "sequences": batch}
                measure("eager", peer.run, line, exact, args.device)
                bias = sdpa_bias(peer, peer.a.landmarks)
                measure("sdpa", lambda p=peer, b=bias: sdpa(p, b), line, exact, args.device)
    print_line({"no peer": "eva wiki103, eva wiki103 step", "why": "no eager form of them is here"})


if __name__ == "__main__":
    main()
