"""Trains the demo model on two CPU cores and writes it as a Hugging Face directory.

    python3 train.py --text DIR --out DIR --minutes 90

The learning rate follows the clock, so the run ends in time on any machine. `DIR/curve.tsv` gets
the loss curve, held-out bits per byte included.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import time

import numpy
import safetensors.torch
import torch
import torch.nn.functional as F

from model import Config, EvaByte

BYTE_OFFSET = 64  # token id of byte 0
BOS, PAD, EOS = 1, 0, 2
# The first head is the language model; the others only have to be good at guessing ahead.
HEAD_WEIGHTS = torch.tensor([1.0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.2, 0.2])


def read_ids(path: pathlib.Path) -> torch.Tensor:
    data = numpy.frombuffer(path.read_bytes(), dtype=numpy.uint8)
    return torch.from_numpy(data.astype(numpy.int64)) + BYTE_OFFSET


def sample(ids: torch.Tensor, starts: torch.Tensor, length: int, heads: int):
    """Inputs [B, length], starting with bos, and targets [B, length, heads]."""
    span = ids[starts[:, None] + torch.arange(length + heads - 1)]
    inputs = torch.cat([torch.full((len(starts), 1), BOS), span[:, : length - 1]], dim=1)
    return inputs, span.unfold(1, heads, 1)


def losses(model: EvaByte, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each head, in nats: [heads]."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    nll = F.cross_entropy(logits.float().flatten(0, 2), targets.flatten(), reduction="none")
    return nll.view(-1, targets.shape[-1]).mean(0)


def heldout_bits_per_byte(model: EvaByte, ids: torch.Tensor, length: int) -> list[float]:
    heads = model.config.num_pred_heads
    starts = torch.arange(0, len(ids) - length - heads, length)
    model.eval()
    with torch.no_grad():
        nats = torch.stack(
            [losses(model, *sample(ids, s, length, heads)) for s in starts.split(4)]
        ).mean(0)
    model.train()
    return (nats / math.log(2)).tolist()


def optimizers(model: EvaByte) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(progress: float) -> float:
    """Warm up over 2 %, hold, decay linearly over the last 60 %."""
    return min(progress / 0.02, 1.0, (1.0 - progress) / 0.6)


def save(model: EvaByte, out: pathlib.Path) -> None:
    c = model.config
    config = dataclasses.asdict(c) | {
        "architectures": ["EvaByteForCausalLM"],
        "model_type": "evabyte",
        "attention_bias": False,
        "attention_class": "eva",
        "hidden_act": "silu",
        "norm_add_unit_offset": True,
        "fp32_ln": False,
        "fp32_logits": True,
        "fp32_skip_add": True,
        "mixedp_attn": True,
        "num_chunks": None,
        "num_key_value_heads": c.num_attention_heads,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "use_cache": True,
    }
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    generation = special | {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    out.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.detach().to(torch.bfloat16).contiguous() for n, t in model.state_dict().items()}
    safetensors.torch.save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = EvaByte(Config())
    heads = model.config.num_pred_heads
    train_ids, heldout_ids = read_ids(args.text / "train.txt"), read_ids(args.text / "heldout.txt")
    optims = optimizers(model)
    base_rates = [o.param_groups[0]["lr"] for o in optims]
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_ids):,} bytes of text"
    )

    args.out.mkdir(parents=True, exist_ok=True)
    curve = (args.out / "curve.tsv").open("w", buffering=1)
    curve.write(
        "step\tminutes\tbytes_seen\ttrain_bits\t"
        + "\t".join(f"heldout_bits_{h}" for h in range(heads))
        + "\n"
    )
    start, last_report, step, seen, average = time.monotonic(), 0.0, 0, 0, None
    while (minutes := (time.monotonic() - start) / 60) < args.minutes:
        progress = minutes / args.minutes
        # Long sequences at the end only: most of what they teach is in the short ones.
        length = args.length if progress < 0.8 else 2 * args.length
        starts = torch.randint(len(train_ids) - length - heads, (args.batch_bytes // length,))
        for o, rate in zip(optims, base_rates):
            o.param_groups[0]["lr"] = rate * schedule(progress)
        per_head = losses(model, *sample(train_ids, starts, length, heads))
        (per_head * HEAD_WEIGHTS).sum().backward()
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + args.batch_bytes
        bits = per_head[0].item() / math.log(2)
        average = bits if average is None else 0.95 * average + 0.05 * bits
        if minutes - last_report > args.report_minutes:
            last_report = minutes
            held = heldout_bits_per_byte(model, heldout_ids, args.length)
            curve.write(
                f"{step}\t{minutes:.1f}\t{seen}\t{average:.4f}\t"
                + "\t".join(f"{b:.4f}" for b in held)
                + "\n"
            )
            save(model, args.out)
    save(model, args.out)
    held = heldout_bits_per_byte(model, heldout_ids, 2 * args.length)
    print(
        f"{step} steps, {seen:,} bytes, held-out bits per byte by head: "
        + " ".join(f"{b:.4f}" for b in held)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text", type=pathlib.Path, required=True, help="folder of train.txt and heldout.txt"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="model directory to write")
    parser.add_argument("--minutes", type=float, default=90, help="length of the run")
    parser.add_argument(
        "--report-minutes", type=float, default=4, help="time between two lines of the curve"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=2048, help="bytes in a training sequence")
    parser.add_argument("--batch-bytes", type=int, default=8192, help="bytes in a step")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
