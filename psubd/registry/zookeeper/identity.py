"""This node's id: made once, kept in the state folder."""

import os
import re
import secrets
import socket

from psubd.errors import ConfigError

FILE = "node-id"
ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def node_id(state: str) -> str:
    """The id that the folder holds; made from the host's name and some random digits where it holds none: two nodes of one host have two.

    :raises ConfigError: it cannot be read or written, or is none.
    """
    path = os.path.join(state, FILE)
    try:
        if not os.path.exists(path):
            _write(path, f"{re.sub('[^A-Za-z0-9.-]', '-', socket.gethostname())[:60]}-{secrets.token_hex(4)}")
        with open(path, encoding="ascii", errors="replace") as kept:
            text = kept.read().strip()
    except OSError as refused:
        raise ConfigError([f"registry: {path}: {refused.strerror}"]) from refused
    if ID.fullmatch(text) is None:
        raise ConfigError([f"registry: {path} holds no node's id (letters, digits, dots, dashes); remove it, and psubd makes one"])
    return text


def _write(path: str, text: str) -> None:
    """Whole or not at all."""
    fresh = f"{path}.{os.getpid()}"
    made = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(made, text.encode() + b"\n")
        os.fsync(made)
    finally:
        os.close(made)
    os.replace(fresh, path)
