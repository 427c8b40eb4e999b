"""Asking the head of a Ray cluster over the network, before Ray itself is used.

Ray would retry for minutes, print warnings, or end the process where a head is stopped, dead or not ours.
"""

from __future__ import annotations

import os
import socket
import stat
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import read_regular

ANSWER_SECONDS = 5.0
LARGEST_NOTE = 4096  # bytes of a token's or an address's file
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")  # gRPC's names
DEFAULT_TOKEN_FILE = "~/.ray/auth_token"
SET_TOKEN = "set RAY_AUTH_MODE=token, and set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT or ray://HOST:PORT. Raises UsageError if the address has another form."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or not address.isprintable():
        raise UsageError(f"{address!r} is not a Ray address: give auto, local, none, HOST:PORT or ray://HOST:PORT")
    return host, port


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def knock_on_port(host: str, port: int) -> None:
    """Raise OSError if nothing listens there."""
    socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections at this host and port."""
    try:
        knock_on_port(host, port)
    except OSError:
        return False
    return True


def noted_address(file: str) -> str | None:
    """HOST:PORT of the head, as `ray start` noted it in this file; None without such a note.

    A file of another user is passed over: that user's Ray is not meant for this run.
    """
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.getuid()):
            return None
        address = read_regular(Path(file), LARGEST_NOTE).decode().strip()
        host_and_port(address)
    except (OSError, UnicodeDecodeError, UsageError):
        return None
    return address


def refusal(address: str) -> tuple[str, str] | None:
    """Why the head at HOST:PORT cannot be joined, in words that follow its address, and the cure; None if it can be."""
    answer = answer_of_head(address, token_header())
    if answer == "OK":
        return None
    if answer in REFUSALS:
        return "requires another token", SET_TOKEN
    if answer == "UNAVAILABLE":
        return "cannot be reached", "check whether it still runs"
    if answer == "DEADLINE_EXCEEDED":
        return f"does not answer within {ANSWER_SECONDS:g} s", "check whether it is stopped or overloaded"
    return f"is not the head of a Ray cluster (it answered {answer})", "give the address that 'ray start' printed"


def refuse_wrong_head(address: str) -> None:
    """Raise UserError if no Ray head answers at HOST:PORT, or if it refuses our token."""
    if found := refusal(address):
        reason, cure = found
        raise UserError(f"the Ray at {address} {reason}: {cure}, or use --address local to start a new one")


def token_header() -> dict[str, str]:
    """The header that carries our token; empty without one.

    The token comes from the environment variables and the file that Ray documents.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or DEFAULT_TOKEN_FILE).expanduser()
        try:
            token = read_regular(file, LARGEST_NOTE).decode(errors="replace").strip()
        except OSError:
            return {}
    return {"authorization": f"Bearer {token}"}


def lets_anybody_in(gcs: str) -> bool:
    """Whether the head answers a call that carries no token."""
    return answer_of_head(gcs, {}) not in REFUSALS


def answer_of_head(gcs: str, headers: dict[str, str]) -> str:
    """Ask the head whether it is alive, and return gRPC's name for its answer, such as OK or UNAUTHENTICATED."""
    import grpc

    with grpc.insecure_channel(gcs) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=ANSWER_SECONDS, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
