"""tools/convert/verify.py with a checkout of the published code: EVASERVE_PUBLISHED_CODE names it,
which needs timm and einops, that are in no environment of ours. Of translation models also with
stand_in/, which has what verify.py needs of it."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest
import torch

import convert
import published
import safetensors_file
import verify
from test_convert import MODELS, options_for

STAND_IN = pathlib.Path(__file__).with_name("stand_in")
PUBLISHED = os.environ.get("EVASERVE_PUBLISHED_CODE")
NEEDS_IT = pytest.mark.skipif(not PUBLISHED, reason="EVASERVE_PUBLISHED_CODE is not set")
TRANSLATION = "translation"


def convert_to(folder: pathlib.Path, checkpoint: dict, *options: str) -> tuple:
    path, out = folder / "checkpoint.pt", folder / "model"
    torch.save(checkpoint, path)
    assert convert.main([str(path), "--out", str(out), *options]) == 0
    return path, out


def convert_model(folder: pathlib.Path, name: str) -> tuple:
    if name == TRANSLATION:
        return convert_to(folder, published.whole_translation("eva_encoder_tiny"))
    return convert_to(folder, MODELS[name](name), *options_for(name))


def verify_alone(path, out) -> subprocess.CompletedProcess:
    """With the published code, which wants a process of its own."""
    command = [sys.executable, "-B", verify.__file__, path, out, "--checkout", PUBLISHED]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def verify_here(monkeypatch, capsys):
    """With the stand-in, in this process, where a module of ours has the published one's name."""

    def run(path, out, checkout=STAND_IN) -> subprocess.CompletedProcess:
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "efficient_attention")
            patch.setattr(sys, "path", sys.path[:])
            capsys.readouterr()
            status = verify.main([str(path), str(out), "--checkout", str(checkout)])
        return subprocess.CompletedProcess("verify.py", status, *capsys.readouterr())

    return run


@pytest.fixture(
    params=[
        *(pytest.param((name, True), marks=NEEDS_IT, id=name) for name in (*MODELS, TRANSLATION)),
        pytest.param((TRANSLATION, False), id=f"{TRANSLATION}-stand-in"),
    ]
)
def converted(request, tmp_path, verify_here):
    """The converted directory, and what verifies it."""
    name, is_published = request.param
    path, out = convert_model(tmp_path, name)
    return out, functools.partial(verify_alone if is_published else verify_here, path, out)


def expect_refused(run: subprocess.CompletedProcess, *words: str) -> None:
    assert run.returncode == 2, run.stdout
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in run.stderr


def change_attention(out: pathlib.Path, key: str, value: int) -> None:
    config = json.loads((out / "config.json").read_text())
    config.get("encoder", config)["attn"][key] = value
    (out / "config.json").write_text(json.dumps(config))


def test_the_published_code_computes_the_same(converted):
    out, run = converted
    result = run()
    assert result.returncode == 0, result.stderr
    assert "the same to the last bit: " in result.stdout
    if (out / "cases.json").exists():
        tensors = safetensors_file.read(out / "cases.safetensors")
        assert numpy.isfinite(tensors["c0.logits"]).all()


def test_another_window_is_noticed(converted):
    out, run = converted
    attn = json.loads((out / "config.json").read_text())
    attn = attn.get("encoder", attn)["attn"]
    if "chunk_size" in attn:
        change_attention(out, "chunk_size", 2)
    else:
        change_attention(out, "num_landmarks", 1)
    expect_refused(run(), "differs by up to")


def test_another_weight_is_noticed(converted):
    out, run = converted
    tensors = safetensors_file.read(out / "model.safetensors")
    name = next(n for n in tensors if n.endswith("adaptive_mu_k.0.bias"))
    tensors[name] = tensors[name] + numpy.float32(1)
    safetensors_file.write(out / "model.safetensors", tensors)
    expect_refused(run(), "differs by up to")


def test_a_translation_model_is_verified_layer_by_layer(tmp_path, verify_here):
    path, out = convert_model(tmp_path, TRANSLATION)
    assert "the attention of 2 layers of the encoder" in verify_here(path, out).stdout
    tensors = safetensors_file.read(out / "model.safetensors")
    name = "encoder.layers.1.self_attn.attn.proj.bias"
    safetensors_file.write(out / "model.safetensors", tensors | {name: tensors[name] + 1})
    expect_refused(verify_here(path, out), "layer 1: the converted model differs by up to")
    del tensors[name]
    safetensors_file.write(out / "model.safetensors", tensors)
    expect_refused(verify_here(path, out), "the tensors of", "differ in ['proj.bias']")


def test_a_translation_model_without_arguments_is_not_verified(tmp_path, verify_here):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    attn = {"attn_2d": "false", "window_size": 8, "num_landmarks": 8, "overlap_window": "true"}
    values = [f"encoder.attn.{key}={value}" for key, value in attn.items()]
    values.append("decoder.num_attention_heads=2")
    options = [part for value in values for part in ("--set", value)]
    path, out = convert_to(tmp_path, {"model": checkpoint["model"]}, *options)
    expect_refused(verify_here(path, out), "no attn_args_encoder")


def test_a_folder_that_is_no_checkout_is_named(tmp_path, verify_here):
    path, out = convert_model(tmp_path, TRANSLATION)
    run = verify_here(path, out, tmp_path)
    expect_refused(run, f"{tmp_path} has no folder efficient-attention")
