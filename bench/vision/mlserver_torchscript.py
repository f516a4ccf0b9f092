"""MLServer with a TorchScript model: mlserver_torchscript.py MODEL.pt THREADS BATCH.

Over gRPC, on 127.0.0.1 at a free port that it prints. As fast as it gets on a few cores: the model
in the server's own process, uvloop, neither metrics nor access log, and its adaptive batching of up
to BATCH requests unless that is 1.
"""

import asyncio
import pathlib
import sys

import torch
from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.codecs import NumpyCodec
from mlserver.utils import install_uvloop_event_loop

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "overhead/peers"))

import listen  # noqa: E402

MODEL, THREADS, BATCH = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
BATCH_SECONDS = 0.01


class TorchScript(MLModel):
    async def load(self) -> bool:
        torch.set_num_threads(THREADS)
        self.module = torch.jit.load(MODEL)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        pixels = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]))
        with torch.inference_mode():
            logits = self.module(pixels)
        output = NumpyCodec.encode_output("logits", logits.numpy())
        return types.InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


async def serve() -> None:
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=0, metrics_endpoint=None, parallel_workers=0
    )
    model = ModelSettings(name="model", implementation=TorchScript)
    if BATCH > 1:
        model = model.model_copy(update={"max_batch_size": BATCH, "max_batch_time": BATCH_SECONDS})
    await MLServer(settings).start([model])


if __name__ == "__main__":
    listen.on_free_port()
    install_uvloop_event_loop()
    asyncio.run(serve())
