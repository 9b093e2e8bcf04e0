"""What a shared file must not name: this machine."""

import re
import socket


def names_this_host(content: bytes) -> bool:
    """Whether the host's name stands in `content` as a word: a name of two letters is part of many random ids."""
    host = re.escape(socket.gethostname().encode())
    return re.search(rb"(?<![A-Za-z0-9])" + host + rb"(?![A-Za-z0-9])", content) is not None
