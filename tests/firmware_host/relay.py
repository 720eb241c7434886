"""A serial link between two pseudo-terminals that alters bytes on their way.

python -m tests.firmware_host.relay KIND FOLDER   # makes FOLDER/host and FOLDER/board

clean    nothing
xonxoff  0x11 and 0x13 are eaten in both directions (software flow control)
telnet   0xFF is doubled to the host; 0xFF and the byte after it are eaten to the board
parmrk   0xFF is doubled to the host (marked parity errors)
crlf     carriage returns become line feeds (a terminal's ICRNL)
cooked   0x15, 0x1A and 0x7F are eaten on their way to the board
seven    the top bit is lost
nul      bytes of 0 are lost
"""

import os
import select
import sys
import tty
from pathlib import Path


def open_terminal(link: Path) -> tuple[int, int]:
    master, slave = os.openpty()
    tty.setraw(slave)
    tty.setraw(master)
    link.symlink_to(os.ttyname(slave))
    return master, slave


EATEN = {"xonxoff": b"\x11\x13", "nul": b"\0"}


def alter(kind: str, data: bytes, up: bool, escaped: list[bool]) -> bytes:
    if kind == "telnet" and up:
        return take_commands(data, escaped)
    if kind == "cooked" and up:
        return data.translate(None, b"\x15\x1a\x7f")
    if kind in ("telnet", "parmrk") and not up:
        return data.replace(b"\xff", b"\xff\xff")
    if kind == "seven":
        return bytes(byte & 0x7F for byte in data)
    if kind == "crlf":
        return data.replace(b"\r", b"\n")
    return data.translate(None, EATEN.get(kind, b""))


def take_commands(data: bytes, escaped: list[bool]) -> bytes:
    """Take 0xFF and the byte after it, as a telnet server does with what it gets."""
    kept = bytearray()
    for byte in data:
        if escaped[0]:
            escaped[0] = False
        elif byte == 0xFF:
            escaped[0] = True
        else:
            kept.append(byte)
    return bytes(kept)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    host, _kept = open_terminal(folder / "host")
    board, _kept_too = open_terminal(folder / "board")
    print("ready", flush=True)
    escaped = [False]
    while os.getppid() != 1:
        for end in select.select([host, board], [], [], 0.5)[0]:
            data = alter(kind, os.read(end, 4096), end == host, escaped)
            while data:
                data = data[os.write(board if end == host else host, data) :]


if __name__ == "__main__":
    main()
