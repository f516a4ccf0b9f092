#!/usr/bin/env python3
"""Compares evaserve with the official EvaByte code on one CPU thread, in one run.

    compare_official.py --official DIR --bench BUILD/bench/model/evabyte_bench

DIR is a checkout of https://github.com/OpenEvaByte/evabyte. Needs torch, transformers 4.47 and
safetensors. Both sides load the same random model of size S, and both report the CPU time of one
thread; the runs alternate and the table shows medians.

The official code has two paths. Its static-cache path has two kernels in Triton, which run on a
GPU alone: here they are replaced by torch operations, one call of scaled_dot_product_attention for
each window, the fastest form that torch offers. Its fallback runs as it is. Each case is compared
with the faster of the two, and the table has both.
"""

import argparse
import contextlib
import importlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

DECODE_STEPS = 256  # as evabyte_bench

# (operation, bytes of context, the least ratio that we hold ourselves to)
CASES = [
    ("prefill", 1024, 2.0),
    ("prefill", 8192, 2.0),
    ("prefill", 32768, 3.5),
    ("decode", 1024, 5.0),
    ("decode", 8192, 5.0),
]
BATCHED_TARGET = 1.6  # bytes per second of eight streams over those of one


@contextlib.contextmanager
def fake_triton():
    """A module that lets files with Triton kernels be imported, not run."""

    def decorator(*args, **_kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) else lambda fn: fn

    def module(name):
        fake = types.ModuleType(name)
        fake.__getattr__ = lambda _: decorator
        return fake

    names = ["triton", "triton.language"]
    saved = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = module(name)
    sys.modules["triton"].language = sys.modules["triton.language"]
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del sys.modules[name]
            else:
                sys.modules[name] = value


def fold_chunks(torch, k, v, mu, phi, scale, chunk):
    """What the official kernel for summaries computes."""
    shape = (*k.shape[:2], -1, chunk, k.shape[-1])
    k, v = k.reshape(shape), v.reshape(shape)
    a = torch.softmax((mu * k).sum(-1, keepdim=True).float(), -2).to(k.dtype)
    b = (phi * k).sum(-1, keepdim=True).float() - 0.5 * (k * k).sum(-1, keepdim=True).float()
    b = torch.softmax(scale * b, -2).to(v.dtype)
    return (a * k).sum(-2), (b * v).sum(-2)


def attend_windows(torch, q, k, v, rfa_k, rfa_v, scale, window, chunks_per_window):
    """What the official kernel for the prefill's attention computes, window by window."""
    out = torch.empty_like(q)
    for begin in range(0, q.shape[-2], window):
        rows = slice(begin, begin + window)
        keys, values = k[..., rows, :], v[..., rows, :]
        size = keys.shape[-2]
        far = begin // window * chunks_per_window
        if far:
            keys = torch.cat([rfa_k[..., :far, :], keys], -2)
            values = torch.cat([rfa_v[..., :far, :], values], -2)
        mask = torch.ones(size, far + size, dtype=torch.bool).tril(far)
        out[..., rows, :] = torch.nn.functional.scaled_dot_product_attention(
            q[..., rows, :], keys, values, attn_mask=mask, scale=scale
        )
    return out


class Official:
    """The official model on one of its paths."""

    def __init__(self, checkout, model_dir, dtype, static_cache):
        import torch
        import transformers.modeling_utils  # before Triton is replaced, which torch looks at
        from safetensors.torch import load_file

        self.torch = torch
        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        for name in [name for name in sys.modules if name.startswith("evabyte_hf")]:
            del sys.modules[name]
        sys.path.insert(0, str(checkout))
        with fake_triton():
            modeling = importlib.import_module("evabyte_hf.modeling_evabyte")
            fallback = importlib.import_module("evabyte_hf.eva_pt_ref")
        sys.path.pop(0)
        if static_cache:
            self.replace_kernels(sys.modules["evabyte_hf.eva"])
        else:
            modeling.USE_TRITON_IMPL = False
            modeling.EvaAttention = fallback.EvaAttention
        config = modeling.EvaByteConfig(**json.loads((model_dir / "config.json").read_text()))
        self.model = modeling.EvaByteForCausalLM(config).eval()
        self.model.load_state_dict(load_file(model_dir / "model.safetensors"))
        self.model.to(getattr(torch, dtype))

    def replace_kernels(self, eva):
        torch = self.torch

        def prep_kv(k, v, mu, phi, mask, scale, chunk):
            assert mask is None
            return fold_chunks(torch, k, v, mu, phi, scale, chunk)

        def aggregate(q, k, v, rfa_k, rfa_v, window_mask, chunk_mask, scale, window, per_window):
            assert window_mask is None and chunk_mask is None
            return attend_windows(torch, q, k, v, rfa_k, rfa_v, scale, window, per_window)

        eva.eva_prep_kv_func_triton = prep_kv
        eva.eva_agg_func_triton = aggregate

    def step(self, ids, position, cache):
        torch = self.torch
        positions = torch.arange(position, position + ids.shape[1]).unsqueeze(0)
        logits, cache = self.model(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True
        )[:2]
        return logits[:, -1:].argmax(-1), cache

    def run(self, op, length):
        """Bytes per second."""
        torch = self.torch
        generator = torch.Generator().manual_seed(1)
        prompt = torch.randint(64, 320, (1, length), generator=generator)
        with torch.inference_mode():
            begin = time.process_time()
            token, cache = self.step(prompt, 0, None)
            if op == "prefill":
                return length / (time.process_time() - begin)
            begin = time.process_time()
            for i in range(DECODE_STEPS):
                token, cache = self.step(token, length + i, cache)
            return DECODE_STEPS / (time.process_time() - begin)

    def logits(self, ids):
        torch = self.torch
        ids = torch.tensor([ids])
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        with torch.inference_mode():
            return self.model(input_ids=ids, position_ids=positions, use_cache=True)[0][0]


def run_bench(bench, model_dir, op, dtype, length, batch):
    command = [bench, "--model", model_dir, "--op", op, "--dtype", dtype, "--length", str(length)]
    command += ["--batch", str(batch), "--repetitions", "1"]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(line)["bytes_per_s"]


def compare(args, model_dir, dtype, rows):
    peers = {
        "static cache": Official(args.official, model_dir, dtype, static_cache=True),
        "fallback": Official(args.official, model_dir, dtype, static_cache=False),
    }
    sample = list(range(64, 320)) * 2
    first, second = (peer.logits(sample).float() for peer in peers.values())
    difference = (first - second).abs().max().item()
    print(f"{dtype}: the two official paths differ by at most {difference:.2g} in a logit")
    for op, length, target in CASES:
        if args.op not in (None, op) or args.length not in (None, length):
            continue
        runs = {name: [] for name in [*peers, "evaserve"]}
        for _ in range(args.repetitions):
            for name, peer in peers.items():
                runs[name].append(peer.run(op, length))
            runs["evaserve"].append(run_bench(args.bench, model_dir, op, dtype, length, 1))
        medians = {name: statistics.median(values) for name, values in runs.items()}
        best = max(peers, key=medians.get)
        rows.append(
            {
                "op": op,
                "dtype": dtype,
                "length": length,
                "official_bytes_per_s": {name: round(medians[name]) for name in peers},
                "evaserve_bytes_per_s": round(medians["evaserve"]),
                "ratio": round(medians["evaserve"] / medians[best], 2),
                "target": target,
            }
        )
        print(json.dumps(rows[-1]), flush=True)


def compare_batched(args, model_dir, dtype, rows):
    for length in (1024, 8192):
        runs = {1: [], 8: []}
        for _ in range(args.repetitions):
            for batch, values in runs.items():
                values.append(run_bench(args.bench, model_dir, "decode", dtype, length, batch))
        one, eight = (statistics.median(runs[batch]) for batch in (1, 8))
        row = {"op": "8 streams over 1", "dtype": dtype, "length": length, "one": round(one)}
        row |= {"eight": round(eight), "ratio": round(eight / one, 2), "target": BATCHED_TARGET}
        rows.append(row)
        print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=pathlib.Path, required=True, help="the checkout")
    parser.add_argument("--bench", type=pathlib.Path, required=True, help="evabyte_bench")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="only this type")
    parser.add_argument("--op", choices=["prefill", "decode"], help="only this operation")
    parser.add_argument("--length", type=int, help="only this many bytes of context")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="write the rows here as JSON")
    args = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as directory:
        model_dir = pathlib.Path(directory)
        subprocess.run([args.bench, "--write-model", model_dir], check=True)
        for dtype in [args.dtype] if args.dtype else ["float32", "bfloat16"]:
            compare(args, model_dir, dtype, rows)
            if args.op != "prefill" and args.length is None:
                compare_batched(args, model_dir, dtype, rows)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")
    missed = [row for row in rows if row["ratio"] < row["target"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} targets reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
