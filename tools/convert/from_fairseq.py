"""The authors' models of text (their folder fairseq/): translation models and their encoders, and
masked and causal language models."""

from typing import Any

from conversion import Conversion, Failure, State, without_prefix
from fairseq_common import Arguments
from fairseq_language_model import language_model
from fairseq_translation import encoder, translation
from from_timm import is_state


def state_of(checkpoint: Any, averaged: bool) -> State:
    data = checkpoint if isinstance(checkpoint, dict) else {}
    if averaged:
        extra = data.get("extra_state")
        state, name = extra.get("ema") if isinstance(extra, dict) else None, "extra_state.ema"
    else:
        state, name = data.get("model"), "model"
    if not is_state(state):
        raise Failure(f"no dictionary of tensors called {name}")
    return without_prefix(state, "module.")


def recognises(state: State) -> bool:
    return any(name.startswith(("encoder.", "decoder.")) for name in state)


def from_fairseq(checkpoint: Any, averaged: bool, settings: dict[str, Any]) -> Conversion:
    state, args = state_of(checkpoint, averaged), Arguments(checkpoint)
    if any(name.startswith("encoder.") for name in state):
        has_decoder = any(name.startswith("decoder.layers.") for name in state)
        if has_decoder and settings.get("model_type") != "eva_encoder":
            return translation(state, args, settings)
        return encoder(state, args, settings)
    return language_model(state, args, settings)
