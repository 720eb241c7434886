"""The findings of the doctor, and what to do about each."""

from dataclasses import dataclass

from glioslice.inventory import last_deployment

ADVICE = {
    "healthy": "stream to it: glioslice stream CASE --port {port}{baud}",
    "no port": "plug the board in; use a cable that carries data (many only charge), and look at "
    "`dmesg` or the device manager for the adapter's driver",
    "several ports": "name the board's port: --port PORT",
    "no such port": "plug the board in and choose one of the ports above; names can change",
    "no permission": "add yourself to the group that owns serial ports and log in again: "
    "sudo usermod -aG dialout $USER (on some systems the group is uucp)",
    "busy": "close the other program: a terminal, another run, ModemManager "
    "(`fuser -v {port}` names it)",
    "unusable port": "check the name; examples: /dev/ttyUSB0, /dev/ttyACM0, COM3, "
    "socket://HOST:PORT, sim://",
    "connection lost": "check cable and power; a board that keeps restarting lacks current",
    "silence": "{service}; then check that TX and RX are crossed, that the grounds are connected, "
    "and that the link has 8 data bits, no parity and no flow control",
    "login console": "the board's operating system uses this port: disable its serial console (on "
    "a Raspberry Pi `sudo raspi-config`, Interface Options, Serial Port: login shell no, hardware "
    "yes), reboot it and start the server there",
    "wrong baud rate": "both ends need the same rate: {rate}",
    "loop-back": "every byte that is sent comes straight back: remove the loop-back plug, separate "
    "TX and RX, or switch off the echo of the adapter or terminal server",
    "bytes altered": "make the link transparent: raw mode at a terminal server (no telnet), 8 data "
    "bits, no parity, no marked parity errors (PARMRK), no software flow control (XON/XOFF)",
    "check failed": "see what the board was doing: {service}",
    "protocol mismatch": "install the same glioslice on both ends, then restart the server; flash "
    "a microcontroller with the firmware of this version",
    "no hello": "the link is up but the server sends nothing: {service}",
    "firmware fault": "the board resets itself after this; if it happens again, find the line with "
    "`arm-none-eabi-addr2line -e firmware.elf {place}` and report it",
}

START = (
    "start the server on the board, or restart it: python -m device --port PORT (after `glioslice "
    "deploy`: systemctl status glioslice)"
)

FIRMWARE = (
    "reset the microcontroller, or flash its firmware again (docs/firmware.md); it has no log, and "
    "its baud rate is fixed when the firmware is built: pass it as --baud"
)


@dataclass(frozen=True)
class Diagnosis:
    """One finding: its name (a key of ADVICE), what was found, what to do."""

    name: str
    finding: str
    advice: str

    @property
    def healthy(self) -> bool:
        """Whether a run can start."""
        return self.name == "healthy"


def diagnosis(
    name: str,
    finding: str,
    *,
    port: str = "PORT",
    baud: str = "",
    rate: str = "",
    place: str = "",
    firmware: bool = False,
) -> Diagnosis:
    """Return the diagnosis `name` with its advice filled in.

    With `firmware` the board is known to be a microcontroller, which has no service to look at.
    """
    service = FIRMWARE if firmware else service_advice()
    advice = ADVICE[name].format(port=port, baud=baud, rate=rate, place=place, service=service)
    return Diagnosis(name, finding, advice)


def service_advice() -> str:
    """Return how to look at the board's server: at the service, where one was deployed.

    Otherwise the board may be a microcontroller as well.
    """
    deployed = last_deployment()
    if deployed is None:
        return f"{START}; or {FIRMWARE}"
    return (
        f"see why the service on {deployed.board} does not reply (deployed on {deployed.date}, "
        f"port {deployed.port}): ssh {deployed.board} systemctl status glioslice"
    )
