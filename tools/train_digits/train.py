"""Trains the demo classifier on scikit-learn's handwritten digits and writes its directory.

    python3 train.py --out ../../demo/digits

The seed, the split and the schedule are fixed: the same versions of PyTorch and Pillow on the same
kind of processor give the same model. Held-out images are used once, after the last step.
"""

import argparse
import json
import math
import pathlib
import time

import numpy
import PIL.Image
import safetensors.torch
import sklearn.datasets
import sklearn.model_selection
import torch
import torch.nn.functional as F

import images
from model import EvaVit

NUM_CLASSES, SIDE, LEVELS = 10, 8, 16  # an image of the data set: 8 x 8, values 0 .. 16
HELDOUT, VALIDATION = 360, 240
INPUT_SIZE = 32
# The published recipe for images (windows, landmarks of 2 x 2 patches, learned relative positions)
# on a map of 8 x 8 patches: 4 windows and 16 landmarks.
CONFIG = {
    "model_type": "eva_vit",
    "num_classes": NUM_CLASSES,
    "in_chans": 3,
    "mlp_ratio": 4,
    "qkv_bias": True,
    "layer_norm_eps": 1e-6,
    "adaptive_mu_layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "attn": {
        "fp32": False,
        "use_rpe": True,
        "window_size": 4,
        "attn_2d": True,
        "overlap_window": False,
        "adaptive_proj": "default",
        "num_landmarks": 16,
        "use_t5_rpe": False,
    },
    "input_size": INPUT_SIZE,
    "patch_size": 4,
    "embed_dim": 48,
    "num_heads": 3,
    "depth": 4,
    "use_glu": False,
    "id2label": {str(i): str(i) for i in range(NUM_CLASSES)},
    "label2id": {str(i): i for i in range(NUM_CLASSES)},
}
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": INPUT_SIZE, "width": INPUT_SIZE},
    "resample": int(PIL.Image.Resampling.BICUBIC),
    "do_center_crop": False,
    "crop_size": {"height": INPUT_SIZE, "width": INPUT_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.3, 0.3, 0.3],
    "image_std": [0.35, 0.35, 0.35],
}


def split(seed: int) -> dict[str, tuple[numpy.ndarray, numpy.ndarray]]:
    """train, validation, heldout -> images [n, 8, 8] uint8 and labels [n]. Stratified: each has the
    same share of every class."""
    digits = sklearn.datasets.load_digits()
    pixels = (digits.images * 255 / LEVELS).round().astype(numpy.uint8)
    rest, heldout = sklearn.model_selection.train_test_split(
        numpy.arange(len(pixels)), test_size=HELDOUT, stratify=digits.target, random_state=seed
    )
    train, validation = sklearn.model_selection.train_test_split(
        rest, test_size=VALIDATION, stratify=digits.target[rest], random_state=seed
    )
    parts = {"train": train, "validation": validation, "heldout": heldout}
    return {name: (pixels[i], digits.target[i]) for name, i in parts.items()}


def tint(image: PIL.Image.Image, rng: numpy.random.Generator) -> PIL.Image.Image:
    """Coloured ink on black."""
    colour = rng.uniform(0.5, 1.0, 3)
    x = numpy.asarray(image)[..., None] * (colour / colour.max())
    return PIL.Image.fromarray(x.round().astype(numpy.uint8))


def client_image(pixels: numpy.ndarray, rng: numpy.random.Generator) -> PIL.Image.Image:
    """The image as some client might send it: another size, other proportions, maybe a colour."""
    image = PIL.Image.fromarray(pixels)
    kind = rng.integers(4)
    if kind != 0:
        size = tuple(int(n) for n in rng.integers(SIDE, 5 * SIDE, 2, endpoint=True))
        image = image.resize(size, resample=PIL.Image.Resampling.BICUBIC)
    return tint(image, rng) if kind == 3 else image


def augmented(pixels: numpy.ndarray, rng: numpy.random.Generator) -> PIL.Image.Image:
    """Turned by up to 12 degrees, shifted by up to 1.2 of the 8 pixels, scaled by up to 12 %."""
    big = PIL.Image.fromarray(pixels).resize((32, 32), resample=PIL.Image.Resampling.BICUBIC)
    angle, zoom = numpy.radians(rng.uniform(-12, 12)), 1 / rng.uniform(0.88, 1.12)
    cos, sin = zoom * numpy.cos(angle), zoom * numpy.sin(angle)
    x, y = 16 + rng.uniform(-4.8, 4.8, 2)
    about_centre = (cos, sin, 16 - cos * x - sin * y, -sin, cos, 16 + sin * x - cos * y)
    moved = big.transform(
        (32, 32), PIL.Image.Transform.AFFINE, about_centre, resample=PIL.Image.Resampling.BICUBIC
    )
    if rng.random() < 0.5:  # as coarse as the originals
        moved = moved.resize((SIDE, SIDE), resample=PIL.Image.Resampling.BICUBIC)
    size = tuple(int(n) for n in rng.integers(SIDE, 5 * SIDE, 2, endpoint=True))
    moved = moved.resize(size, resample=PIL.Image.Resampling.BICUBIC)
    return tint(moved, rng) if rng.random() < 0.25 else moved


def inputs(pictures: list[PIL.Image.Image]) -> torch.Tensor:
    """What the model sees, [n, 3, INPUT_SIZE, INPUT_SIZE]."""
    return torch.from_numpy(numpy.stack([images.preprocess(p, PREPROCESSOR) for p in pictures]))


@torch.no_grad()
def logits_of(model: EvaVit, x: torch.Tensor) -> torch.Tensor:
    model.eval()
    return torch.cat([model(batch) for batch in x.split(60)])


def accuracy(logits: torch.Tensor, labels: numpy.ndarray) -> float:
    return (logits.argmax(-1) == torch.from_numpy(labels)).float().mean().item()


def train(args: argparse.Namespace, data: dict) -> EvaVit:
    """The weights' moving average of the epoch with the least validation loss."""
    torch.manual_seed(args.seed)
    rng = numpy.random.default_rng(args.seed)
    model = EvaVit(CONFIG)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95))
    pixels, labels = data["train"]
    validation = inputs([client_image(p, rng) for p in data["validation"][0]])
    validation_labels = torch.from_numpy(data["validation"][1])
    steps = args.epochs * (len(pixels) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, steps, pct_start=0.1)
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters, {len(pixels)} images, {steps} steps")

    best, best_loss, start = None, float("inf"), time.monotonic()
    for epoch in range(args.epochs):
        model.train()
        order = rng.permutation(len(pixels))[: len(pixels) // args.batch * args.batch]
        for chosen in order.reshape(-1, args.batch):
            x = inputs([augmented(pixels[i], rng) for i in chosen])
            y = torch.from_numpy(labels[chosen])
            F.cross_entropy(model(x), y, label_smoothing=0.05).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            average.update_parameters(model)
        logits = logits_of(average.module, validation)
        loss = F.cross_entropy(logits, validation_labels).item()
        if loss < best_loss:
            best_loss = loss
            best = {name: t.clone() for name, t in average.module.state_dict().items()}
        minutes = (time.monotonic() - start) / 60
        right = accuracy(logits, data["validation"][1])
        print(f"{epoch + 1}\t{minutes:.1f} min\tloss {loss:.4f}\taccuracy {right:.4f}", flush=True)
    model.load_state_dict(best)
    return model.eval()


def heldout_pngs(pixels: numpy.ndarray, seed: int) -> list[bytes]:
    rng = numpy.random.default_rng(seed)
    return [images.encode(client_image(p, rng)) for p in pixels]


def save_heldout(model: EvaVit, data: dict, seed: int, out: pathlib.Path) -> torch.Tensor:
    """heldout.safetensors: the PNG files one behind the other, and what this model says of them."""
    pixels, labels = data["heldout"]
    pngs = heldout_pngs(pixels, seed)
    x = inputs([images.decode(png) for png in pngs])
    logits = logits_of(model, x)
    ends = numpy.cumsum([0] + [len(png) for png in pngs])
    tensors = {
        "png": torch.frombuffer(bytearray(b"".join(pngs)), dtype=torch.uint8),
        "png_offset": torch.from_numpy(ends.astype(numpy.int32)),
        "label": torch.from_numpy(labels.astype(numpy.int32)),
        "logits": logits,
        "input": x[:8].contiguous(),
    }
    safetensors.torch.save_file(tensors, out / "heldout.safetensors")
    sevens = [png for png, label in zip(pngs, labels, strict=True) if label == 7]
    largest = max(sevens, key=lambda png: math.prod(images.decode(png).size))
    (out / "seven.png").write_bytes(largest)
    return logits


def save(model: EvaVit, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items()}
    safetensors.torch.save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name, content in (("config", CONFIG), ("preprocessor_config", PREPROCESSOR)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="model directory to write")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--batch", type=int, default=32, help="images in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = split(args.seed)
    model = train(args, data)
    save(model, args.out)
    logits = save_heldout(model, data, args.seed, args.out)
    labels = data["heldout"][1]
    wrong = int((logits.argmax(-1).numpy() != labels).sum())
    print(f"held out: {accuracy(logits, labels):.4f}, {wrong} of {len(labels)} wrong")


if __name__ == "__main__":
    main()
