#!/usr/bin/env python3
"""Writes official_translations.json beside this file: what the authors' fairseq makes of the random
models that the tests use.

    EVASERVE_WRITE_MODELS=FOLDER eva_translation_test --gtest_filter='*TheOfficialCode*'
    python3 official_translations.py FOLDER --checkout CHECKOUT      # PyTorch, einops

CHECKOUT is HKUNLP/efficient-attention. Of fairseq its encoder, decoder and generator are imported, one
by one, since the whole of it does not run on a current Python. Sentences are translated one at a time,
in float64.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import random
import struct
import sys
import types
from unittest import mock

import numpy
import torch

HERE = pathlib.Path(__file__).parent


def package(name: str, folder: pathlib.Path) -> types.ModuleType:
    """A package without what its __init__.py does."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    put(name, module)
    return module


def put(name: str, module: types.ModuleType) -> None:
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


def take(into: types.ModuleType, name: str, *names: str) -> None:
    module = importlib.import_module(name)
    for one in names:
        setattr(into, one, getattr(module, one))


def import_fairseq(checkout: pathlib.Path) -> types.SimpleNamespace:
    sys.path.insert(0, str(checkout / "efficient-attention"))
    source = checkout / "fairseq" / "fairseq"
    names = ("models", "modules", "data", "distributed", "dataclass", "models.transformer")
    for name in ("timm", "timm.models", "timm.models.layers"):  # for what is not used here
        put(name, mock.MagicMock())
    fairseq = package("fairseq", source)
    parts = {n: package(f"fairseq.{n}", source.joinpath(*n.split("."))) for n in names}
    models, modules, transformer = parts["models"], parts["modules"], parts["models.transformer"]
    for name in ("data.data_utils", "distributed.utils", "token_generation_constraints"):
        put(f"fairseq.{name}", mock.MagicMock())
    parts["distributed"].fsdp_wrap = lambda module, **_: module
    fairseq.utils = importlib.import_module("fairseq.utils")
    parts["dataclass"].FairseqDataclass = type("FairseqDataclass", (), {})
    take(parts["dataclass"], "fairseq.dataclass.constants", "ChoiceEnum")
    for name, cls in (("fairseq_decoder", "FairseqDecoder"), ("fairseq_encoder", "FairseqEncoder"),
                      ("fairseq_incremental_decoder", "FairseqIncrementalDecoder")):  # fmt: skip
        take(models, f"fairseq.models.{name}", cls)
    for name, cls in (("fairseq_dropout", "FairseqDropout"), ("layer_norm", "LayerNorm"),
                      ("layer_drop", "LayerDropModuleList"),
                      ("learned_positional_embedding", "LearnedPositionalEmbedding"),
                      ("sinusoidal_positional_embedding", "SinusoidalPositionalEmbedding"),
                      ("positional_embedding", "PositionalEmbedding"),
                      ("multihead_attention", "MultiheadAttention"),
                      ("efficient_attention", "EfficientAttention")):  # fmt: skip
        take(modules, f"fairseq.modules.{name}", cls)
    take(modules, "fairseq.modules.gelu", "gelu", "gelu_accurate")
    modules.AdaptiveSoftmax = modules.BaseLayer = None
    is_config = types.SimpleNamespace(is_config=lambda _: False)
    put("omegaconf", types.SimpleNamespace(II=str, OmegaConf=is_config))
    real = dataclasses.dataclass
    # Their defaults are objects, which Python takes since 3.11 if they have a hash.
    dataclasses.dataclass = lambda cls: real(cls, unsafe_hash=True)
    take(transformer, "fairseq.models.transformer.transformer_config", "TransformerConfig",
         "DEFAULT_MIN_PARAMS_TO_WRAP")  # fmt: skip
    dataclasses.dataclass = real
    take(transformer, "fairseq.models.transformer.transformer_decoder", "TransformerDecoderBase")
    take(transformer, "fairseq.models.transformer.transformer_encoder", "TransformerEncoderBase")
    generator = importlib.import_module("fairseq.sequence_generator").SequenceGenerator
    return types.SimpleNamespace(
        Config=transformer.TransformerConfig,
        Encoder=transformer.TransformerEncoderBase,
        Decoder=transformer.TransformerDecoderBase,
        Generator=generator,
    )


class Vocabulary(list):
    """What the generator asks of a dictionary."""

    bos, pad, eos, unk = (lambda self, i=i: i for i in range(4))


class Model(torch.nn.Module):
    def __init__(self, encoder: torch.nn.Module, decoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def max_decoder_positions(self) -> int:
        return self.decoder.max_positions()

    def get_normalized_probs(self, *args, **options) -> torch.Tensor:
        return self.decoder.get_normalized_probs(*args, **options)


def read_tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {
        name: torch.from_numpy(
            numpy.frombuffer(body[slice(*told["data_offsets"])], "<f4").reshape(told["shape"]).copy()
        )
        for name, told in header.items()
        if name != "__metadata__"
    }


def build(fairseq: types.SimpleNamespace, folder: pathlib.Path) -> tuple[Model, dict]:
    config = json.loads((folder / "config.json").read_text())
    tensors = read_tensors(folder / "model.safetensors")
    cfg = fairseq.Config()
    cfg.dropout = cfg.attention_dropout = cfg.activation_dropout = 0.0
    for side in ("encoder", "decoder"):
        told, part = config[side], getattr(cfg, side)
        part.embed_dim, part.ffn_embed_dim = told["hidden_size"], told["intermediate_size"]
        part.layers, part.attention_heads = told["num_hidden_layers"], told["num_attention_heads"]
        part.normalize_before = told["normalize_before"]
        part.learned_pos = told.get("positions") == "learned"
    cfg.decoder.input_dim = cfg.decoder.output_dim = config["decoder"]["hidden_size"]
    cfg.max_source_positions = config["encoder"]["max_source_positions"]
    cfg.max_target_positions = config["decoder"]["max_target_positions"]
    cfg.share_decoder_input_output_embed = config["share_decoder_input_output_embed"]
    cfg.attn_name_encoder, cfg.attn_name_decoder = "eva", "softmax"
    cfg.attn_args_encoder = types.SimpleNamespace(**config["encoder"]["attn"])
    embeddings = {}
    for side in ("encoder", "decoder"):
        shape = (config[side]["vocab_size"], config[side]["hidden_size"])
        embeddings[side] = torch.nn.Embedding(*shape, padding_idx=1)
    if config.get("share_all_embeddings"):
        embeddings["decoder"] = embeddings["encoder"]
        tensors["decoder.embed_tokens.weight"] = tensors["encoder.embed_tokens.weight"]
    if cfg.share_decoder_input_output_embed:
        tensors["decoder.output_projection.weight"] = tensors["decoder.embed_tokens.weight"]
    words = Vocabulary(range(config["decoder"]["vocab_size"]))
    model = Model(
        fairseq.Encoder(cfg, Vocabulary(range(config["encoder"]["vocab_size"])), embeddings["encoder"]),
        fairseq.Decoder(cfg, words, embeddings["decoder"]),
    )
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    markers = ("version", "_float_tensor", "relative_position_index")
    if unexpected or [name for name in missing if not name.endswith(markers)]:
        raise SystemExit(f"{folder}: missing {missing}, unexpected {unexpected}")
    return model.double().eval(), config


def sources(vocabulary: int) -> list[list[int]]:
    numbers = random.Random(1)
    lengths = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 31]
    return [[numbers.randrange(4, vocabulary) for _ in range(n)] + [2] for n in lengths]


def translate(fairseq: types.SimpleNamespace, folder: pathlib.Path) -> list[dict]:
    model, config = build(fairseq, folder)
    words = Vocabulary(range(config["decoder"]["vocab_size"]))
    usual = config["generation"]
    cases = []
    for options in (
        {"beam_size": 1, "len_penalty": 1.0},
        {"beam_size": 4, "len_penalty": 0.6},
        {"beam_size": 5, "len_penalty": 2.0},
    ):
        generator = fairseq.Generator(
            [model], words, max_len_a=usual["max_len_a"], max_len_b=usual["max_len_b"],
            no_repeat_ngram_size=usual["no_repeat_ngram_size"], **options,
        )  # fmt: skip
        for source in sources(config["encoder"]["vocab_size"]):
            net_input = {
                "src_tokens": torch.tensor([source]),
                "src_lengths": torch.tensor([len(source)]),
            }
            best = generator.generate([model], {"net_input": net_input})[0][0]
            cases.append(
                {
                    **options,
                    "source": source[:-1],
                    "target": best["tokens"].tolist()[:-1],
                    "score": float(best["score"]),
                }
            )
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="of the models")
    parser.add_argument("--checkout", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float32)
    fairseq = import_fairseq(args.checkout)
    with torch.no_grad():
        cases = {p.name: translate(fairseq, p) for p in sorted(args.folder.iterdir())}
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, some)) + "\n]"
        for name, some in cases.items()
    )
    (HERE / "official_translations.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
