"""An ssh server on loopback with its own keys and known hosts; host keys are checked."""

import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "/usr/sbin/sshd"
CONFIGURATION = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
"""


@dataclass(frozen=True)
class SshServer:
    """An ssh server: `command` starts it, ssh reaches it with `options`."""

    port: int
    command: list[str]
    options: tuple[str, ...]
    reserved: socket.socket
    """Bound to the port, so that no other program gets it; sshd may bind to it again."""


def wait_until_listening(server: SshServer, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the server accepts connections."""
    while True:
        assert process.poll() is None, "the ssh server has ended"
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port)).close()
            return
        time.sleep(0.05)


def make_key(path: Path) -> None:
    """Write a private key, and its public half beside it."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


def make_server(folder: Path, *more: str) -> SshServer:
    """Return a server with its files in `folder`; `more` are lines of its configuration."""
    make_key(folder / "host")
    make_key(folder / "user")
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    text = CONFIGURATION.format(port=port, folder=folder)
    (folder / "sshd").write_text("\n".join([text, *more, ""]))
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    Path("/run/sshd").mkdir(exist_ok=True)
    return SshServer(
        port,
        [PROGRAM, "-D", "-E", f"{folder}/sshd.log", "-f", f"{folder}/sshd"],
        (f"UserKnownHostsFile={folder}/known", f"IdentityFile={folder}/user", "IdentitiesOnly=yes"),
        reserved,
    )
