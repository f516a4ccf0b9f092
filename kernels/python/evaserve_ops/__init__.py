"""EVA attention for PyTorch: the operators of evaserve, and modules with the published names.

Importing it loads torch.ops.eva. For inference on the CPU: there are no gradients, and CUDA tensors
need a library that was built for CUDA.
Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542).
"""

from ._library import LIBRARY
from .modules import CausalEvaAttention, EvaAttention1d, EvaAttention2d
from .ops import attention, causal_attention, summarize, window_attention

__all__ = [
    "LIBRARY",
    "CausalEvaAttention",
    "EvaAttention1d",
    "EvaAttention2d",
    "attention",
    "causal_attention",
    "summarize",
    "window_attention",
]
