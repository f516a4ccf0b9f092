#!/usr/bin/env python3
"""Compares window_attention_bench with PyTorch's eager operations on one thread, in one run.

    window_attention_peer.py --bench BUILD/bench/kernels/window_attention_bench

The peer is EVA on maps as its published code (HKUNLP/efficient-attention, eval mode) writes it:
partition into windows, einsum, masks, softmax, merge. It begins behind the qkv layer and ends before
the last one, as the kernels do. Both sides take the same numbers and report the processor time of
one thread; runs alternate and the medians count. The answers are compared first.
"""

import argparse
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F

TARGET = 5.0
TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2}
MASKED = -5e4


def partition(x, side, margin, pad_value=0.0):
    """[..., H, W, d] -> [..., windows, places, d]"""
    if margin == 0:
        *lead, height, width, d = x.shape
        x = x.reshape(*lead, height // side, side, width // side, side, d)
        return x.transpose(-4, -3).reshape(*lead, -1, side * side, d)
    x = F.pad(x, (0, 0, margin, margin, margin, margin), value=pad_value)
    x = x.unfold(-3, side + 2 * margin, side).unfold(-3, side + 2 * margin, side)
    *lead, rows, columns, d, a, b = x.shape
    return x.permute(*range(len(lead)), -5, -4, -2, -1, -3).reshape(*lead, rows * columns, a * b, d)


def merge(x, side, height, width):
    *lead, _, _, d = x.shape
    x = x.reshape(*lead, height // side, width // side, side, side, d)
    return x.transpose(-4, -3).reshape(*lead, height * width, d)


class Peer:
    def __init__(self, args):
        self.a = args
        d, heads = args.head_dim, args.heads
        self.margin = max(1, args.window // 2) if args.overlap else 0
        torch.manual_seed(1)
        self.qkv = torch.randn(args.batch, args.side * args.side, 3 * heads * d)
        self.maps = [torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.LayerNorm(d)) for _ in range(2)]
        keys = args.window + 2 * self.margin
        last = 2 * (args.window + self.margin - 1)
        self.table = torch.randn(last * (keys + 1) + 1, heads) * 0.5
        places = torch.arange(args.window)
        q = torch.stack(torch.meshgrid(places, places, indexing="ij")).flatten(1)
        places = torch.arange(keys)
        k = torch.stack(torch.meshgrid(places, places, indexing="ij")).flatten(1)
        row, column = q[:, :, None] - k[:, None, :] + keys - 1
        self.index = row * keys + column
        self.scale = d**-0.5

    def numbers(self):
        """In the order in which the benchmark reads them."""
        parts = [self.qkv]
        for linear, norm in self.maps:
            parts += [linear.weight, linear.bias, norm.weight, norm.bias]
        return torch.cat([p.detach().flatten() for p in parts + [self.table]])

    def bias(self):
        size = self.index.shape
        return self.table[self.index.view(-1)].view(*size, -1).permute(2, 0, 1).unsqueeze(0).unsqueeze(2)

    def run(self):
        a, margin = self.a, self.margin
        batch, n, _ = self.qkv.shape
        q, k, v = self.qkv.reshape(batch, n, 3, a.heads, a.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = (t.reshape(batch, a.heads, a.side, a.side, a.head_dim) for t in (q, k, v))
        mask = torch.zeros(batch, 1, a.side, a.side, 1)
        chunk = math.isqrt(n // a.landmarks)

        w_q = partition(q, a.window, 0)
        w_k, w_v = (partition(t, a.window, margin) for t in (k, v))
        r_mask = partition(mask, chunk, margin, 1.0).bool()
        r_q, r_k, r_v = (partition(t, chunk, margin).masked_fill(r_mask, 0.0) for t in (q, k, v))

        q_bar, k_bar = self.maps[0](r_q.mean(dim=-2)), self.maps[1](r_k.mean(dim=-2))
        mu = 0.5 * (q_bar + k_bar)
        logits = torch.einsum("...jd,...d->...j", r_k, mu) - 0.5 * r_k.square().sum(-1)
        logits = (self.scale * logits).masked_fill(r_mask.squeeze(-1), MASKED)
        beta = torch.einsum("...cj,...cjd->...cd", torch.softmax(logits, -1), r_v)

        far = torch.einsum("...wid,...cd->...wic", w_q, self.scale * k_bar)
        near = torch.einsum("bhwie,bhwje->bhwij", w_q, w_k) * self.scale
        near = near + self.bias()
        near_mask = partition(mask, a.window, margin, 1.0).bool().transpose(-1, -2)
        near = near.masked_fill(near_mask, MASKED)
        weights = torch.softmax(torch.cat([near, far], -1), -1)
        near, far = weights.split([near.shape[-1], far.shape[-1]], -1)
        out = torch.einsum("bhwij,bhwjd->bhwid", near, w_v) + torch.einsum("bhwic,bhcd->bhwid", far, beta)
        return merge(out, a.window, a.side, a.side).permute(0, 2, 1, 3).reshape(batch, n, -1)


def run_bench(args, dtype, folder):
    command = [args.bench, "--dtype", dtype, "--repeats", "5", "--input", str(folder / "in"), "--output", str(folder / "out")]
    for name in ("side", "window", "landmarks", "heads", "head_dim", "batch"):
        command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    if args.overlap:
        command.append("--overlap")
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = text.splitlines()[-1].split()
    return float(row[1]) + float(row[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    for name, value in (("side", 28), ("window", 7), ("landmarks", 49), ("heads", 3), ("head-dim", 64), ("batch", 8)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    torch.set_num_threads(1)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        peer = Peer(args)
        numbers = peer.numbers()
        torch.from_file(str(folder / "in"), shared=True, size=numbers.numel()).copy_(numbers)
        want = peer.run()
        ours, theirs = {"float32": [], "bfloat16": []}, []
        for _ in range(args.rounds):
            for dtype, times in ours.items():
                times.append(run_bench(args, dtype, folder))
                got = torch.from_file(str(folder / "out"), size=want.numel()).view_as(want)
                error = (got - want).abs().max().item()
                if not error <= TOLERANCE[dtype]:
                    raise SystemExit(f"wrong answer in {dtype}: error {error}")
            for _ in range(3):
                begin = time.thread_time()
                peer.run()
                theirs.append((time.thread_time() - begin) * 1e3)
    peer_ms = statistics.median(theirs)
    print(f"PyTorch {torch.__version__}, eager, float32: {peer_ms:.2f} ms")
    for dtype, times in ours.items():
        ms = statistics.median(times)
        print(f"{dtype:8} {ms:8.2f} ms {peer_ms / ms:5.1f}x (we want {TARGET:.0f}x)")


if __name__ == "__main__":
    main()
