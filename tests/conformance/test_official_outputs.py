"""The golden models served: what tritonclient gets is what the published code computes."""

import json
import os
import pathlib
import sys

import numpy
import pytest
import tritonclient.grpc as triton
from evaserve_program import Evaserve

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = pathlib.Path(os.environ.get("EVASERVE_GOLDEN_DIR") or ROOT.parent / "shared" / "golden")
sys.path.append(str(ROOT / "tools" / "convert"))

import safetensors_file  # noqa: E402

MODELS = ("eva_encoder_tiny", "eva_vit_tiny", "eva_vit_overlap", "eva_pvt_tiny")


@pytest.fixture(scope="module")
def client(pytestconfig):
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden data in {GOLDEN}")
    models = [f"--model={name}={GOLDEN / name}" for name in MODELS]
    server = Evaserve(pytestconfig.getoption("evaserve"), *models)
    with triton.InferenceServerClient(server.target) as client:
        yield client
    assert server.terminate() == 0


def cases_of(model: str) -> tuple[list[dict], dict[str, numpy.ndarray]]:
    cases = json.loads((GOLDEN / model / "cases.json").read_text())["cases"]
    return cases, safetensors_file.read(GOLDEN / model / "cases.safetensors")


def infer(client, model: str, inputs: dict[str, numpy.ndarray]) -> triton.InferResult:
    types = {"float32": "FP32", "int64": "INT64"}
    tensors = []
    for name, values in inputs.items():
        tensors.append(triton.InferInput(name, values.shape, types[values.dtype.name]))
        tensors[-1].set_data_from_numpy(values)
    return client.infer(model, tensors)


@pytest.mark.parametrize("model", MODELS[1:])
def test_images(client, model):
    for case in cases_of(model)[0]:
        tensors = cases_of(model)[1]
        result = infer(client, model, {"pixel_values": tensors[f"{case['case']}.image"]})
        for output, name in (("logits", "logits"), ("embedding", "features")):
            want = tensors[f"{case['case']}.{name}"]
            error = numpy.abs(result.as_numpy(output) - want).max()
            assert error < case["tol_fp32"][name], output


def test_rows_of_tokens_of_any_length(client):
    """All in one request. The published code gives a row alone, without padding."""
    cases, tensors = cases_of("eva_encoder_tiny")
    rows = [case for case in cases if len(case["lens"]) == 1]
    lengths = numpy.array([case["lens"][0] for case in rows])
    assert len(set(lengths)) > 2
    tokens = numpy.zeros((len(rows), lengths.max()), numpy.int64)
    for row, case in zip(tokens, rows, strict=True):
        row[: case["lens"][0]] = tensors[f"{case['case']}.tokens"][0]
    result = infer(client, "eva_encoder_tiny", {"input_ids": tokens, "lengths": lengths})
    hidden = result.as_numpy("last_hidden_state")
    for row, embedding, case in zip(hidden, result.as_numpy("embedding"), rows, strict=True):
        want = tensors[f"{case['case']}.encoder_out"][0]
        assert numpy.abs(row[: len(want)] - want).max() < case["tol_fp32"]
        assert not row[len(want) :].any()
        assert numpy.abs(embedding - want.mean(axis=0)).max() < case["tol_fp32"]
