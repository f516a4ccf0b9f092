"""evaserve-ops as its wheel is installed: the paper's attention against the published code's outputs,
its operators' laws and errors, and torch.export and AOTInductor."""

import pathlib
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/tools"), str(ROOT / "tools/convert")]

import evaserve_ops as eva  # noqa: E402
import golden  # noqa: E402

HEADS, HEAD_DIM = 2, 16
DIM = HEADS * HEAD_DIM
# Of values near 1: another order of sums in float32, another maximum in bfloat16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}


def cases(name: str) -> list[dict]:
    """Those in which no sequence is padded: padding is not what the operators compute."""
    if not golden.FOLDER.is_dir():
        return []
    return [c for c in golden.read_json(f"{name}.json")["cases"] if c["lens"] is None]


def load(module: torch.nn.Module, name: str, case: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives the module the case's parameters, all of them; returns x and the output."""
    prefix = case["case"] + "."
    tensors = {
        key.removeprefix(prefix): torch.from_numpy(tensor)
        for key, tensor in golden.read_tensors(f"{name}.safetensors").items()
        if key.startswith(prefix)
    }
    parameters = {
        key.removeprefix("param."): tensor
        for key, tensor in tensors.items()
        if key.startswith("param.")
    }
    module.load_state_dict(parameters)
    return tensors["x"], tensors["out"]


@pytest.mark.parametrize("case", cases("eva_noncausal"), ids=lambda c: c["case"])
def test_agrees_with_the_published_attention(case):
    module = eva.EvaAttention2d if case["attn_2d"] else eva.EvaAttention1d
    options = ("overlap_window", "adaptive_proj", "use_rpe", "use_t5_rpe")
    sizes = (case["dim"], case["num_heads"], case["window_size"], case["num_landmarks"])
    layer = module(*sizes, **{name: case[name] for name in options})
    x, want = load(layer, "eva_noncausal", case)
    with torch.inference_mode():
        out = layer(x)
    torch.testing.assert_close(out, want, rtol=0, atol=case["tol_fp32"]["out"])


@pytest.mark.parametrize("case", cases("eva_causal"), ids=lambda c: c["case"])
def test_agrees_with_the_published_causal_attention(case):
    chunk = case["chunk_size"] or case["N"] // case["num_chunks"]
    options = ("overlap_window", "adaptive_proj", "use_t5_rpe")
    sizes = (case["dim"], case["num_heads"], case["window_size"], chunk)
    layer = eva.CausalEvaAttention(*sizes, **{name: case[name] for name in options})
    x, want = load(layer, "eva_causal", case)
    with torch.inference_mode():
        out = layer(x)
    torch.testing.assert_close(out, want, rtol=0, atol=case["tol_fp32"]["out"])


def make(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    layer = {
        "1d": lambda: eva.EvaAttention1d(DIM, HEADS, 4, 3, overlap_window=True, use_t5_rpe=True),
        "2d": lambda: eva.EvaAttention2d(DIM, HEADS, 4, 4, use_rpe=True),
        "causal": lambda: eva.CausalEvaAttention(DIM, HEADS, 8, 2, use_t5_rpe=True),
    }[kind]()
    return layer.requires_grad_(False).eval()


def tokens(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, DIM, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["1d", "2d", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_batch_equals_its_items(kind, dtype):
    layer, x = make(kind).to(dtype), tokens(3, *((8, 12) if kind == "2d" else (24,))).to(dtype)
    together = layer(x)
    assert together.dtype == dtype
    alone = torch.cat([layer(one) for one in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    in_float = make(kind)(x.float())
    torch.testing.assert_close(together.float(), in_float, rtol=0, atol=TOLERANCE[dtype])


MATRIX = torch.eye(HEAD_DIM)


def heads(*sizes: int) -> torch.Tensor:
    return torch.randn(1, HEADS, *sizes, HEAD_DIM, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["window", "causal"])
def test_sequences_in_one_call_equal_each_alone_to_the_bit(kind):
    maps = {"map_q": (MATRIX, MATRIX[0]), "map_k": (MATRIX, MATRIX[1])}

    def attend(x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        qkv = (x, x.flip(1), 2 * x)
        if kind == "window":
            sizes = {"window": 4, "num_landmarks": 3, "overlap": True}
            return eva.window_attention(*qkv, **sizes, **maps, lengths=lengths)
        return eva.causal_attention(*qkv, window=8, chunk=2, **maps, lengths=lengths)

    lengths = [5, 17, 40, 5]
    x = heads(sum(lengths))
    together = attend(x, torch.tensor(lengths))
    alone = [attend(part) for part in x.split(lengths, dim=2)]
    assert torch.equal(together, torch.cat(alone, dim=2))


@pytest.mark.parametrize("kind", ["window", "causal"])
def test_threads_change_nothing(kind):
    maps = {"map_q": (MATRIX, MATRIX[0]), "map_k": (MATRIX, MATRIX[1])}
    chunk, landmarks = 32, 1024
    q = heads(chunk * landmarks)
    # The multiply-adds of the landmarks, and what is too few to share (kernels/cpu/parallel.h).
    assert HEADS * HEAD_DIM * landmarks * (4 * chunk + 2 * HEAD_DIM) > 2 * 2**20

    def attend() -> torch.Tensor:
        if kind == "window":
            return eva.window_attention(q, q, q, window=8, num_landmarks=landmarks, **maps)
        lengths = torch.tensor([3000, 768, 29000])
        return eva.causal_attention(q, q, q, window=64, chunk=chunk, **maps, lengths=lengths)

    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            results.append(attend())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_where_the_tokens_lie_does_not_matter():
    """Parts of one projection are read in place, others are copied; neither changes them."""
    q, k, v = heads(8, 12), heads(8, 12).flip(2), heads(8, 12) * 2
    together = torch.stack([x.movedim(1, -2) for x in (q, k, v)], dim=-3)
    options = {"window": 4, "num_landmarks": 6, "map_k": (torch.eye(HEAD_DIM), q.new_zeros(HEAD_DIM))}
    want = eva.window_attention(q, k, v, **options)
    before = together.clone()
    got = eva.window_attention(*(x.movedim(-2, 1) for x in together.unbind(-3)), **options)
    assert torch.equal(got, want)
    assert torch.equal(together, before)


def test_one_window_and_chunks_of_one_token_are_softmax_attention():
    q, k, v = heads(24), heads(24).flip(2), heads(24) * 2
    identity = (torch.eye(HEAD_DIM), torch.zeros(HEAD_DIM))
    out = eva.window_attention(q, k, v, window=24, num_landmarks=24, map_k=identity)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-5)


Q = heads(8)
MAP = [MATRIX, MATRIX[0]]
WRONG = {
    r"k is \[1, 2, 7, 16\]": {"k": Q[:, :, 1:]},
    r"v is BFloat16": {"v": Q.bfloat16()},
    r"q has 3 dimensions": {"q": Q[0]},
    r"window is 0": {"window": 0},
    r"num_landmarks is -1": {"num_landmarks": -1},
    r"map_q has 1 tensors": {"map_q": [MATRIX]},
    r"map_k has 0 tensors": {"map_k": []},
    r"map_k.bias is \[3\]": {"map_k": [MATRIX, MATRIX[0, :3]]},
    r"bias is \[2, 4, 5\], must be .* = \[2, 4, 4\]": {"bias": torch.zeros(2, 4, 5)},
    r"lengths is Int with 1": {"lengths": torch.ones(2, dtype=torch.int32)},
    r"the sum of lengths is 7": {"lengths": torch.tensor([3, 4])},
    r"lengths has 0": {"lengths": torch.tensor([0, 8])},
    r"num_landmarks is 9": {"num_landmarks": 9},
    r"scale is 0, must be positive": {"scale": 0.0},
    r"scale is nan": {"scale": float("nan")},
}


@pytest.mark.parametrize("message", WRONG)
def test_errors_name_the_argument(message):
    arguments = {"q": Q, "k": Q, "v": Q, "window": 4, "num_landmarks": 2, "map_q": [], "map_k": MAP}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.eva.window_attention(**arguments | WRONG[message])


@pytest.mark.parametrize("overlap", [False, True])
def test_windows_without_a_t5_bucket_for_each_pair_are_refused(overlap):
    def layer(window: int) -> eva.EvaAttention2d:
        return eva.EvaAttention2d(DIM, HEADS, window, 4, overlap_window=overlap, use_t5_rpe=True)

    for window in (2, 3) if overlap else (3, 4):
        with pytest.raises(ValueError, match=f"window_size is {window}, too short for use_t5_rpe"):
            layer(window)
    window = 4 if overlap else 5
    assert layer(window)(tokens(1, 2 * window, 2 * window)).isfinite().all()


def test_errors_of_the_causal_form_name_the_argument():
    with pytest.raises(RuntimeError, match="window is 5, must be a multiple of chunk = 2"):
        eva.causal_attention(Q, Q, Q, window=5, chunk=2, map_k=MAP)
    with pytest.raises(RuntimeError, match=r"bias is \[8, 8\], must be .* = \[8, 16\]"):
        options = {"overlap": True, "bias": torch.zeros(8, 8)}
        eva.causal_attention(Q, Q, Q, window=8, chunk=2, map_k=MAP, **options)


def test_going_backward_is_an_error():
    q = Q.clone().requires_grad_()
    out = eva.window_attention(q, Q, Q, window=4, num_landmarks=2, map_k=MAP)
    with pytest.raises(RuntimeError, match="eva::window_attention is not implemented"):
        out.sum().backward()


@pytest.mark.parametrize("sizes", [(9,), (8, 8)], ids=str)
def test_shape_functions_agree_with_the_kernels(sizes):
    q = heads(*sizes).movedim(1, -2).contiguous().movedim(-2, 1)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    maps = ([MATRIX, MATRIX[0]], [MATRIX, MATRIX[0], MATRIX[0], MATRIX[0]])
    options = {"overlap": True}
    window = torch.ops.eva.window_attention.default
    torch.library.opcheck(window, (q, q, q, 4, 4, *maps), options, test_utils=checks)
    if len(sizes) == 1:
        causal = torch.ops.eva.causal_attention.default
        torch.library.opcheck(causal, (q, q, q, 4, 2, *maps), options, test_utils=checks)


@pytest.mark.parametrize("kind", ["1d", "2d", "causal"])
def test_runs_from_torchscript_and_an_aot_inductor_package(kind, tmp_path, monkeypatch):
    """With batches and lengths that were not the example's."""
    layer = make(kind)
    sizes = ((2, 8, 8), (5, 8, 8), (1, 8, 8)) if kind == "2d" else ((2, 33), (4, 70), (1, 40))
    inputs = [tokens(*size) for size in sizes]
    script = torch.jit.freeze(torch.jit.trace(layer, (inputs[0],)))
    dynamic = dict.fromkeys([0] if kind == "2d" else [0, 1], torch.export.Dim.DYNAMIC)
    program = torch.export.export(layer, (inputs[0],), dynamic_shapes=(dynamic,))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    path = torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(tmp_path / "layer.pt2"),
        # Otherwise it compiles a program for each to see whether it runs.
        inductor_configs={"cpp.vec_isa_ok": True},
    )
    package = torch._inductor.aoti_load_package(path)
    for x in inputs:
        want = layer(x)
        torch.testing.assert_close(script(x), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(package(x), want, rtol=1e-5, atol=1e-5)
