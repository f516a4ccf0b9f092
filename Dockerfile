# evaserve in a container: the programs and the libraries that they load, nothing else. No shell.
#
#   docker build -t evaserve .                   for the CPU
#   docker build -t evaserve:cuda --target cuda . with the GPU's kernels
#   docker build -t evaserve:torch --target torch . for the CPU, with LibTorch: it can run packages
#   docker build -t evaserve:demo --target demo . for the CPU, with the demo model inside
#
# BASE is what is built on and where the libraries come from. A tag with a date stays what it is: take
# a newer one for Debian's security updates. A digest cannot even be pushed again:
#   --build-arg BASE=debian:12-slim@sha256:...
#   (docker buildx imagetools inspect debian:12-slim tells the digest)
# VERSION and REVISION become labels. docs/operations.md shows how to run the image, and
# deploy/image/check.sh tries it.
ARG BASE=debian:bookworm-20251229-slim

FROM ${BASE} AS tools
WORKDIR /src
COPY scripts/setup.sh scripts/requirements-*.txt scripts/
RUN scripts/setup.sh

FROM tools AS build
COPY . .
RUN scripts/build.sh release evaserve eva \
  && deploy/image/collect.sh /image build/release/bin/evaserve build/release/bin/eva

FROM tools AS build-cuda
RUN scripts/setup.sh --cuda
COPY . .
RUN scripts/build.sh cuda evaserve eva \
  && LIBRARIES=.deps/cublas/nvidia/cu13/lib/libcublasLt.so.13 \
     deploy/image/collect.sh /image build/cuda/bin/evaserve build/cuda/bin/eva

FROM tools AS build-torch
RUN scripts/setup.sh --torch
COPY . .
RUN scripts/build.sh release evaserve eva evaserve_torch_models \
  && LIBRARIES=build/release/lib/libevaserve_torch_models.so \
     deploy/image/collect.sh /image build/release/bin/evaserve build/release/bin/eva \
  && install -D -m 644 -t /image/usr/share/doc/libtorch .deps/site/torch-*.dist-info/licenses/LICENSE

# What all images have in common.
FROM scratch AS runtime
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="evaserve" \
  org.opencontainers.image.description="Serves EVA-attention models over gRPC" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
USER 1000:1000
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
  CMD ["/usr/bin/eva", "--timeout", "4", "health"]
ENTRYPOINT ["/usr/bin/evaserve"]

# The driver's libcuda.so.1 comes from the host (NVIDIA's container toolkit).
FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /image /

# Packages run with --allow-packages alone; those of AOTInductor need a /tmp.
FROM runtime AS torch
COPY --from=build-torch /image /

FROM runtime AS demo
ENV EVASERVE_MODEL=demo=/models/demo
COPY --from=build /image /
COPY demo/model /models/demo

FROM runtime AS cpu
COPY --from=build /image /
