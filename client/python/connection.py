"""The examples' flags for a server with TLS or tokens, as those of `eva`."""

import argparse
import os
import pathlib
import re
import sys

import grpc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", default="localhost:8001")
    parser.add_argument("--tls", action="store_true", help="encrypt, and check the certificate")
    parser.add_argument("--tls-ca", help="PEM file of authorities to trust; implies --tls")
    parser.add_argument("--tls-cert", help="PEM file of the client's own certificate; implies --tls")
    parser.add_argument("--tls-key", help="PEM file of its key")
    parser.add_argument("--token-file", help="file with the token to show; else it is EVA_TOKEN")
    parser.add_argument(
        "--token-without-tls", action="store_true", help="send it to another machine in the clear"
    )


def _read(path: str | None) -> bytes | None:
    return pathlib.Path(path).read_bytes() if path else None


def _uses_tls(args: argparse.Namespace) -> bool:
    return bool(args.tls or args.tls_ca or args.tls_cert)


def headers(args: argparse.Namespace) -> dict[str, str]:
    """What goes with every call: the token, if there is one. Ends the program where it could be
    overheard."""
    if args.token_file:
        token = pathlib.Path(args.token_file).read_text().strip()
    else:
        token = os.environ.get("EVA_TOKEN", "").strip()
    if not token:
        return {}
    stays_here = re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\]):\d+", args.server)
    if not (_uses_tls(args) or args.token_without_tls or stays_here):
        sys.exit(f"a token sent to {args.server} without TLS could be overheard")
    return {"authorization": f"Bearer {token}"}


def credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """None for a connection that is not encrypted."""
    if not _uses_tls(args):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(args.tls_ca),
        private_key=_read(args.tls_key),
        certificate_chain=_read(args.tls_cert),
    )


def channel(args: argparse.Namespace) -> grpc.Channel:
    tls = credentials(args)
    return grpc.secure_channel(args.server, tls) if tls else grpc.insecure_channel(args.server)
