"""tools/convert: checkpoints of every published model become what the golden models are."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import OrderedDict

import numpy
import pytest
import torch

import convert
import golden
import published
import safetensors_file

MODELS = {
    "eva_vit_tiny": published.image_classifier,
    "eva_vit_overlap": published.image_classifier,
    "eva_pvt_tiny": published.image_classifier,
    "eva_encoder_tiny": published.translation,
    "eva_lm_adaptive": published.language_model,
    "eva_lm_plain": published.language_model,
}
VIT, PVT, ENCODER, LM = "eva_vit_tiny", "eva_pvt_tiny", "eva_encoder_tiny", "eva_lm_plain"
ADAPTIVE = "eva_lm_adaptive"
OUTPUT = "decoder.output_projection.weight"

# A translation model has a decoder, too.
ENCODER_ALONE = ["--set", "model_type=eva_encoder"]


def options_for(name: str) -> list[str]:
    return ENCODER_ALONE if MODELS[name] is published.translation else []


class Run:
    """convert.py on `checkpoint`, saved by torch, in this process."""

    def __init__(self, folder, checkpoint, *options: str, zipped: bool = True) -> None:
        path = folder / "checkpoint.pt"
        if isinstance(checkpoint, bytes):
            path.write_bytes(checkpoint)
        else:
            torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        self.out = folder / "model"
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            self.status = convert.main([str(path), "--out", str(self.out), *options])
        self.stdout, self.stderr = stdout.getvalue(), stderr.getvalue()

    @property
    def config(self) -> dict:
        assert self.status == 0, self.stderr
        return json.loads((self.out / "config.json").read_text())

    @property
    def tensors(self) -> dict:
        assert self.status == 0, self.stderr
        return safetensors_file.read(self.out / "model.safetensors")

    def expect_refused(self, *words: str) -> None:
        """By a check of ours, not by the net below them."""
        assert convert.UNFORESEEN_WORD not in self.stderr
        self.expect_ended(*words)

    def expect_ended(self, *words: str) -> None:
        assert self.status == 2, self.stdout
        for word in ("checkpoint.pt", *words):
            assert word in self.stderr
        assert not self.out.exists()


def expect_equal(tensors: dict, want: dict) -> None:
    assert tensors.keys() == want.keys()
    for name, tensor in tensors.items():
        numpy.testing.assert_array_equal(tensor, want[name], err_msg=name)


def without(state: dict, name: str) -> OrderedDict:
    return OrderedDict((key, t) for key, t in state.items() if key != name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", MODELS)
def test_gives_the_golden_directory(tmp_path, name, zipped):
    run = Run(tmp_path, MODELS[name](name), *options_for(name), zipped=zipped)
    assert run.config == golden.read_json(f"{name}/config.json")
    expect_equal(run.tensors, golden.read_tensors(f"{name}/model.safetensors"))


@pytest.mark.parametrize("name", ["eva_vit_tiny", "eva_encoder_tiny", "eva_lm_adaptive"])
def test_takes_weights_of_distributed_training(tmp_path, name):
    checkpoint = MODELS[name](name)
    checkpoint["model"] = {f"module.{key}": t for key, t in checkpoint["model"].items()}
    run = Run(tmp_path, checkpoint, *options_for(name))
    expect_equal(run.tensors, golden.read_tensors(f"{name}/model.safetensors"))


def test_takes_the_averaged_weights_when_asked(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny"), "--averaged")
    weights = golden.read_tensors("eva_vit_tiny/model.safetensors")
    expect_equal(run.tensors, {name: t + 1 for name, t in weights.items()})


def test_without_averaged_weights_says_so(tmp_path):
    checkpoint = published.image_classifier("eva_vit_tiny") | {"model_ema": None}
    Run(tmp_path, checkpoint, "--averaged").expect_refused("averaged")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}], ids=["bare", "timm"])
def test_takes_weights_alone_with_what_they_do_not_tell(tmp_path, wrap):
    weights = wrap(published.image_classifier("eva_vit_tiny")["model"])
    settings = ["window_size=7", "num_landmarks=49", "attn_2d=true", "overlap_window=false"]
    options = [part for s in settings for part in ("--set", f"attn.{s}")]
    run = Run(tmp_path, weights, *options)
    assert run.config == golden.read_json("eva_vit_tiny/config.json")


def test_asks_for_what_the_weights_do_not_tell(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny")["model"])
    run.expect_refused("--set attn.window_size", "--set attn.num_landmarks")


def test_a_setting_that_the_config_does_not_have_is_an_error(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny"), "--set", "attn.windows=7")
    run.expect_refused("attn.windows")


def test_reads_omegaconf_without_it(tmp_path):
    checkpoint = published.language_model("eva_lm_adaptive")
    checkpoint["cfg"] = published.DictConfig(checkpoint["cfg"])
    run = Run(tmp_path, checkpoint)
    assert run.config == golden.read_json("eva_lm_adaptive/config.json")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_widens_or_rounds_to_float32(tmp_path, dtype):
    checkpoint = published.image_classifier("eva_vit_tiny")
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in checkpoint["model"].items()}
    run = Run(tmp_path, checkpoint | {"model": state})
    want = {k: t.float().numpy() for k, t in state.items() if t.is_floating_point()}
    expect_equal(run.tensors, want)


def test_takes_tensors_that_are_views(tmp_path):
    checkpoint = published.image_classifier("eva_vit_tiny")
    state = checkpoint["model"]
    for name in [n for n in state if n.endswith("fc1.weight")]:
        state[name] = torch.cat([state[name], state[name]]).t().contiguous().t()[: len(state[name])]
    weights = golden.read_tensors("eva_vit_tiny/model.safetensors")
    expect_equal(Run(tmp_path, checkpoint).tensors, weights)


def test_renames_the_norms_of_old_checkpoints(tmp_path):
    checkpoint = published.translation("eva_encoder_tiny")
    old = {"self_attn_layer_norm": "layer_norms.0", "final_layer_norm": "layer_norms.1"}
    state = {}
    for name, tensor in checkpoint["model"].items():
        for new, before in old.items():
            name = name.replace(new, before)
        state[name] = tensor
    run = Run(tmp_path, checkpoint | {"model": state}, *ENCODER_ALONE)
    expect_equal(run.tensors, golden.read_tensors("eva_encoder_tiny/model.safetensors"))
    assert "renamed" in run.stdout


def test_masked_language_model_keeps_its_head_and_positions(tmp_path):
    checkpoint = published.masked_language_model("eva_encoder_tiny")
    run = Run(tmp_path, checkpoint)
    kept = {"positions": "learned", "max_source_positions": 40, "embed_scale": 1}
    kept |= {"layernorm_embedding": True, "masked_lm_head": True, "hidden_act": "gelu"}
    assert kept.items() <= run.config.items()
    want = {
        name.removeprefix("encoder.").removeprefix("sentence_encoder."): t.numpy()
        for name, t in checkpoint["model"].items()
        if name != "encoder.lm_head.weight"
    }
    expect_equal(run.tensors, want)


def test_a_language_model_that_begins_with_a_token_of_its_own_says_so(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    checkpoint["cfg"]["task"]["add_bos_token"] = True
    assert Run(tmp_path, checkpoint).config["bos_token_id"] == 0


def test_reports_the_fate_of_every_tensor(tmp_path):
    checkpoint = published.language_model("eva_lm_adaptive")
    run = Run(tmp_path, checkpoint)
    lines = run.stdout.splitlines()
    assert len(lines) == len(checkpoint["model"]) + 2  # the sums, and that it lacks dict.txt
    assert sum(line.startswith("kept") for line in lines) == len(run.tensors)
    tied = [line for line in lines if "adaptive_softmax.tail.1.2.weight" in line]
    assert tied[0].startswith("dropped") and "tied to embed_tokens.embeddings.2.0.weight" in tied[0]


@pytest.mark.parametrize("name", [VIT, PVT])
def test_a_classifier_may_have_no_bias_of_queries(tmp_path, name):
    checkpoint = MODELS[name](name)
    state = checkpoint["model"]
    checkpoint["model"] = {n: t for n, t in state.items() if not n.endswith(".qkv.bias")}
    Run(tmp_path, checkpoint).expect_refused("qkv_bias = True")
    del checkpoint["args"].qkv_bias
    run = Run(tmp_path, checkpoint)
    assert run.config["qkv_bias"] is False
    assert not [n for n in run.tensors if n.endswith(".qkv.bias")]


def test_the_command_needs_no_torch_and_ends_with_2_on_bad_input(tmp_path):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save(published.translation("eva_encoder_tiny"), good)
    bad.write_bytes(good.read_bytes()[:1000])
    # In front of the real one, if there is one.
    (tmp_path / "torch.py").write_text("raise ImportError('convert.py imports torch')\n")
    for path, status in ((good, 0), (bad, 2)):
        command = [sys.executable, "-B", convert.__file__, path, "--out", tmp_path / "out"]
        command += ENCODER_ALONE
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert run.returncode == status, run.stderr
        assert "Traceback" not in run.stderr
