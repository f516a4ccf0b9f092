#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: small good inputs of every kind, and some that are not.

    tests/fuzz/make_seeds.py STUBS      where STUBS is a folder made by client/python/make_stubs.sh
"""

import json
import pathlib
import struct
import sys

from tritonclient.grpc import service_pb2

SEEDS = pathlib.Path(__file__).resolve().parent / "seeds"


def write(target: str, name: str, contents: bytes) -> None:
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(contents)


def bytes_tensor(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def infer_requests() -> None:
    raw = service_pb2.ModelInferRequest(model_name="m", id="1")
    raw.inputs.add(name="text_input", datatype="BYTES", shape=[2])
    raw.raw_input_contents.append(bytes_tensor(b"abc", b"\xff"))
    for output in ("text_output", "embedding", "log_likelihood"):
        raw.outputs.add(name=output)
    write("infer_request", "raw", raw.SerializeToString())

    typed = service_pb2.ModelInferRequest(model_name="m", model_version="1")
    tensor = typed.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"Once upon a time")
    parameters = typed.parameters
    parameters["max_tokens"].int64_param = 5
    parameters["temperature"].double_param = 0.5
    parameters["top_k"].int64_param = 3
    parameters["seed"].uint64_param = 7
    parameters["stop"].string_param = "."
    parameters["ignore_eos"].bool_param = True
    parameters["priority"].uint64_param = 1
    parameters["timeout"].int64_param = 1000
    write("infer_request", "typed", typed.SerializeToString())

    cut = service_pb2.ModelInferRequest()
    cut.inputs.add(name="text_input", datatype="BYTES", shape=[-1, 1 << 62])
    cut.raw_input_contents.append(struct.pack("<I", 0xFFFFFFFF) + b"a")
    write("infer_request", "cut", cut.SerializeToString())


def generate_requests(stubs: str) -> None:
    sys.path.insert(0, stubs)
    from evaserve.v1 import inference_pb2 as pb

    prompt = pb.GenerateRequest(prompt=b"abc", logprobs=True, top_logprobs=3)
    prompt.sampling.temperature = 0.7
    prompt.sampling.logit_bias[65] = -100
    prompt.stopping.stop.extend([b"\n", b"end"])
    write("generate_request", "prompt", prompt.SerializeToString())
    chat = pb.GenerateRequest(priority=3)
    for role, content in (("system", b"Be brief."), ("user", b"<|eot_id|>"), ("assistant", b"a")):
        chat.chat.messages.add(role=role, content=content)
    write("generate_request", "chat", chat.SerializeToString())


def safetensors() -> None:
    def file(header: dict, data: bytes) -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    two = {"dtype": "BF16", "shape": [1, 3], "data_offsets": [8, 14]}
    write("safetensors", "good", file({"__metadata__": {"a": "b"}, "x": one, "y": two}, bytes(14)))
    write("safetensors", "hole", file({"x": one}, bytes(14)))
    huge = {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 8]}
    write("safetensors", "huge", file({"x": huge}, bytes(8)))
    write("safetensors", "long_header", struct.pack("<Q", 1 << 63) + b"{}")


def model_configs() -> None:
    config = {
        "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 96, "vocab_size": 320, "window_size": 32, "chunk_size": 16,
        "max_position_embeddings": 128, "torch_dtype": "bfloat16", "eos_token_id": [2, 11],
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }  # fmt: skip
    write("model_config", "config", json.dumps(config).encode())
    words = {
        "vocab_size": 60, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2,
        "num_hidden_layers": 2, "max_target_positions": 96, "adaptive_input": True,
        "adaptive_cutoff": [20, 40], "adaptive_factor": 4,
        "attn": {"window_size": 16, "chunk_size": 4, "adaptive_proj": "qk", "use_t5_rpe": True},
    }  # fmt: skip
    write("model_config", "words", json.dumps(words).encode())
    serving = {"max_running": 3, "dtype": "float32", "version_policy": {"latest": {"num_versions": 2}}}
    write("model_config", "serving", json.dumps(serving).encode())
    ids = {"name": "ids", "datatype": "INT64", "shape": [-1, -1]}
    hidden = {"name": "hidden", "datatype": "BF16", "shape": [-1, -1, 16]}
    package = {"model_type": "torchscript", "inputs": [ids], "outputs": [hidden]}
    write("model_config", "package", json.dumps(package).encode())
    ragged = {"ragged": {"inputs": ["ids"], "outputs": ["hidden"]}}
    write("model_config", "ragged", json.dumps(ragged).encode())
    write("model_config", "deep", b'{"a":' * 64 + b"1" + b"}" * 64)
    write("model_config", "numbers", b'{"hidden_size": 1e400, "window_size": -0, "chunk_size": 1.5}')


def dictionaries() -> None:
    write("words", "text", b"the 9\ncat 2\n\0 the cat\n\nsat <unk>\xc2\xa0the\xe3\x80\x80\xff\n")
    write("words", "overwrite", b"a 3\n<unk> 1 #fairseq:overwrite\ntwo words 1\n\0a two words <unk>")


if __name__ == "__main__":
    infer_requests()
    generate_requests(sys.argv[1])
    safetensors()
    model_configs()
    dictionaries()
