"""Packages of anybody's: the example of demo/package from PyTorch to the client, batches with and
without rows of one length, and packages that are not what they declare.

EVASERVE_TORCH_PYTHON is a Python with PyTorch, EVASERVE_OPS_SITE the folder where evaserve-ops is
installed."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

import numpy
import pytest
import tritonclient.grpc as triton
from evaserve_program import Evaserve
from tritonclient.utils import InferenceServerException

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON, SITE = (os.environ.get(name) for name in ("EVASERVE_TORCH_PYTHON", "EVASERVE_OPS_SITE"))
if not (PYTHON and SITE):
    pytest.skip("EVASERVE_TORCH_PYTHON or EVASERVE_OPS_SITE is not set", allow_module_level=True)

TOLERANCE = 1e-4  # of values near 1: float32, sums in another order
NUMPY_TYPES = {"FP32": numpy.float32, "FP16": numpy.float16, "INT64": numpy.int64, "BOOL": bool}


def make(script: pathlib.Path, folder: pathlib.Path) -> str:
    environment = os.environ | {"PYTHONPATH": SITE, "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    run = subprocess.run(
        [PYTHON, "-B", script, folder], env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    assert "EVA instead of softmax" in make(ROOT / "demo/package/export.py", folder)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    make(pathlib.Path(__file__).with_name("make_packages.py"), folder)
    return folder


@pytest.fixture(scope="module")
def server(pytestconfig, example, packages):
    models = [*example.glob("vit-*")]
    models += [packages / n for n in ("ragged", "double", "types", "wrong-output", "aot-shape")]
    options = [f"--model={path}" for path in models]
    evaserve = pytestconfig.getoption("evaserve")
    server = Evaserve(evaserve, "--allow-packages", "--threads=2", *options)
    yield server
    assert server.terminate() == 0


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.target) as client:
        yield client


def tensor(name, array):
    datatype = next(k for k, v in NUMPY_TYPES.items() if numpy.dtype(v) == array.dtype)
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def together(client, model, requests):
    """The results, or errors, of requests that are in flight at the same time."""

    def infer(request):
        try:
            return client.infer(model, [tensor(*request)])
        except InferenceServerException as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(infer, requests))


@pytest.mark.parametrize("model", ["vit-torchscript", "vit-aot"])
def test_the_example_gives_what_pytorch_gives(server, example, model):
    call = ROOT / "demo/package/call.py"
    command = [sys.executable, "-B", call, server.target, model, example / "example.npz"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "8 images" in run.stdout


@pytest.mark.parametrize("model", ["vit-torchscript", "vit-aot"])
def test_batches_of_any_size_give_the_same(client, example, model):
    arrays = numpy.load(example / "example.npz")
    cuts = [0, 1, 3, 4, 8]
    parts = [slice(*cut) for cut in zip(cuts[:-1], cuts[1:], strict=True)]
    requests = [("pixel_values", arrays["pixel_values"][part]) for part in parts]
    for part, result in zip(parts, together(client, model, requests), strict=True):
        assert not isinstance(result, InferenceServerException), result
        numpy.testing.assert_allclose(
            result.as_numpy("logits"), arrays["logits"][part], rtol=0, atol=TOLERANCE
        )


@pytest.mark.parametrize("model", ["vit-torchscript", "vit-aot"])
def test_one_row_alone_is_answered(client, example, model):
    """Of vit-aot too, whose code refuses it: torch.export took batches to be of 2 or more."""
    arrays = numpy.load(example / "example.npz")
    for row in range(2):
        part = slice(row, row + 1)
        result = client.infer(model, [tensor("pixel_values", arrays["pixel_values"][part])])
        numpy.testing.assert_allclose(
            result.as_numpy("logits"), arrays["logits"][part], rtol=0, atol=TOLERANCE
        )


def test_a_package_tells_what_it_takes(client):
    metadata = client.get_model_metadata("vit-aot", as_json=True)
    assert metadata["inputs"] == [
        {"name": "pixel_values", "datatype": "FP32", "shape": ["-1", "3", "32", "32"]}
    ]
    assert metadata["platform"].endswith("aot_inductor")


def test_rows_of_different_lengths_run_in_one_batch_without_padding(client, packages):
    arrays = numpy.load(packages / "ragged.npz")
    ends = numpy.cumsum(arrays["lengths"])
    rows = numpy.split(arrays["ids"], ends[:-1])
    results = together(client, "ragged", [("ids", row[None]) for row in rows])
    hidden = [result.as_numpy("hidden") for result in results]
    assert [h.shape for h in hidden] == [(1, len(row), 16) for row in rows]
    want = numpy.split(arrays["hidden"], ends[:-1])
    for got, expected in zip(hidden, want, strict=True):
        numpy.testing.assert_allclose(got[0], expected, rtol=0, atol=TOLERANCE)
    means = numpy.concatenate([result.as_numpy("mean") for result in results])
    numpy.testing.assert_allclose(means, arrays["mean"], rtol=0, atol=TOLERANCE)
    statistics = client.get_inference_statistics("ragged", as_json=True)["model_stats"][0]
    assert int(statistics["execution_count"]) < int(statistics["inference_count"]) == len(rows)


def test_the_package_refuses_what_its_declaration_cannot_say(client):
    with pytest.raises(InferenceServerException, match="the package: index out of range") as error:
        client.infer("ragged", [tensor("ids", numpy.array([[1, 77]]))])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_batch_with_a_bad_request_serves_the_others_right(client):
    """The batch runs again in halves."""
    good, bad = numpy.array([[1, 2, 3]]), numpy.array([[1, 77]])
    alone = client.infer("ragged", [tensor("ids", good)]).as_numpy("mean")
    results = together(client, "ragged", [("ids", ids) for ids in (good, bad, good)])
    assert "index out of range" in str(results[1])
    for result in (results[0], results[2]):
        numpy.testing.assert_allclose(result.as_numpy("mean"), alone, rtol=0, atol=TOLERANCE)


def test_inputs_are_the_requests_own(client):
    x = numpy.arange(8, dtype=numpy.float32).reshape(2, 4)
    for _ in range(2):
        y = client.infer("double", [tensor("x", x)]).as_numpy("y")
        numpy.testing.assert_array_equal(y, 2 * x)


def test_other_types(client):
    b = numpy.array([[1.5, -2.0]], dtype=numpy.float16)
    inputs = [tensor("a", numpy.array([[True, False]])), tensor("b", b)]
    result = client.infer("types", inputs)
    numpy.testing.assert_array_equal(result.as_numpy("a"), [[False, True]])
    numpy.testing.assert_array_equal(result.as_numpy("b"), b + 1)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", numpy.zeros((1, 5), numpy.float32), r"x: got shape \[1,5\], allowed is \[-1,4\]"),
        ("x", numpy.zeros((1, 4), numpy.int64), r"x: got datatype INT64, allowed is FP32"),
        ("z", numpy.zeros((1, 4), numpy.float32), r"inputs: got 'z', allowed are x"),
    ],
)
def test_wrong_inputs_are_named(client, name, array, message):
    with pytest.raises(InferenceServerException, match=message) as error:
        client.infer("double", [tensor(name, array)])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_outputs_are_held_against_the_declaration(client):
    message = r"output y of the package is FP32 \[1,4\], .* FP32 \[1,5\]"
    with pytest.raises(InferenceServerException, match=message) as error:
        client.infer("wrong-output", [tensor("x", numpy.zeros((1, 4), numpy.float32))])
    assert error.value.status() == "StatusCode.INTERNAL"


def test_compiled_code_does_not_read_past_a_tensor_that_is_declared_too_small(client):
    with pytest.raises(InferenceServerException, match="the package: its code failed") as error:
        client.infer("aot-shape", [tensor("x", numpy.zeros((1, 3), numpy.float32))])
    assert error.value.status() == "StatusCode.INTERNAL"


def error_of(evaserve, *options):
    with pytest.raises(RuntimeError) as error:
        Evaserve(evaserve, *options)
    return str(error.value)


@pytest.fixture(scope="module")
def image(pytestconfig, example, tmp_path_factory):
    """The image with LibTorch as a root directory, with the example in /models: a program that runs
    its evaserve there."""
    folder = tmp_path_factory.mktemp("image")
    enter = ["unshare", "--user", "--map-root-user", "chroot"]
    if subprocess.run([*enter, "/", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us change the root directory")
    evaserve = pathlib.Path(pytestconfig.getoption("evaserve"))
    library = evaserve.parents[1] / "lib" / "libevaserve_torch_models.so"
    collect, root = ROOT / "deploy/image/collect.sh", folder / "root"
    environment = os.environ | {"LIBRARIES": str(library)}
    subprocess.run([collect, root, evaserve], env=environment, check=True)
    (root / "tmp").mkdir()
    for model in example.glob("vit-*"):
        shutil.copytree(model, root / "models" / model.name)
    program = folder / "evaserve"
    program.write_text(f'#!/bin/sh\nexec {" ".join(enter)} {root} /usr/bin/evaserve "$@"\n')
    program.chmod(0o755)
    yield program
    shutil.rmtree(root)  # half a gigabyte


def test_the_image_with_libtorch_has_all_that_packages_need(image, example):
    models = [f"--model=/models/{model.name}" for model in example.glob("vit-*")]
    server = Evaserve(image, "--allow-packages", *models)
    call = ROOT / "demo/package/call.py"
    try:
        for model in ("vit-torchscript", "vit-aot"):
            command = [sys.executable, "-B", call, server.target, model, example / "example.npz"]
            subprocess.run(command, check=True)
    finally:
        assert server.terminate() == 0


def test_without_libtorch_the_error_tells_what_is_missing(image):
    (library,) = image.parent.glob("root/usr/lib/*/libc10.so")
    elsewhere = library.rename(image.parent / library.name)
    try:
        error = error_of(image, "--allow-packages", "--model=/models/vit-aot")
    finally:
        elsewhere.rename(library)
    assert "packages need libevaserve_torch_models.so and LibTorch 2.11: libc10.so: " in error


def test_packages_must_be_allowed(pytestconfig, packages):
    evaserve = pytestconfig.getoption("evaserve")
    assert "--allow-packages" in error_of(evaserve, "--model", packages / "double")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong-inputs", "forward takes 1 tensors, config.json declares 2 inputs"),
        ("aot-inputs", "the program takes 1 tensors, config.json declares 2 inputs"),
        ("no-package", "model.pt: "),
    ],
)
def test_packages_that_cannot_run_are_not_loaded(pytestconfig, packages, name, message):
    evaserve, model = pytestconfig.getoption("evaserve"), packages / "bad" / name
    assert message in error_of(evaserve, "--allow-packages", "--model", model)
