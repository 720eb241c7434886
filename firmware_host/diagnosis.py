"""What the doctor can find, and what to do about each."""

from dataclasses import dataclass

ADVICE = {
    "healthy": "stream to it: python firmware_host/stream.py --port {port}{baud} --input CASE",
    "no port": "plug the board in; use a cable that carries data (many only charge), and look at "
    "`dmesg` or the device manager for the adapter's driver",
    "several ports": "name the board's: --doctor --port PORT",
    "no such port": "plug the board in and take one of the ports above; its name may have changed",
    "no permission": "add yourself to the group that owns serial ports and log in again: "
    "sudo usermod -aG dialout $USER (on some systems the group is uucp)",
    "busy": "close the other program: a terminal, another run, ModemManager "
    "(`fuser -v {port}` names it)",
    "unusable": "look at the name: /dev/ttyUSB0, /dev/ttyACM0, COM3, socket://HOST:PORT or sim://",
    "lost": "check cable and power; a board that restarts again and again lacks current",
    "silence": "start the runner on the board: python -m device --port PORT --model FILE; then "
    "check that TX and RX are crossed and the grounds joined",
    "login console": "the board's system owns this line: disable its serial console (on a "
    "Raspberry Pi `sudo raspi-config`, Interface Options, Serial Port: login shell no, hardware "
    "yes), restart it and start the runner there",
    "wrong baud rate": "both ends need the same rate: {rate}",
    "loop-back": "what is sent comes straight back: take the loop-back plug off, part TX and RX, "
    "or switch the echo of the adapter or terminal server off",
    "old protocol": "install the same glioslice on both ends, then restart the runner",
    "mute runner": "the link is up but the runner says nothing: restart it and read its messages",
}


@dataclass(frozen=True)
class Verdict:
    """One finding: its name (a key of ADVICE), what was seen, what to do."""

    name: str
    seen: str
    advice: str

    @property
    def healthy(self) -> bool:
        """Whether a run can begin."""
        return self.name == "healthy"


def verdict(name: str, seen: str, *, port: str = "PORT", baud: str = "", rate: str = "") -> Verdict:
    """Return the finding `name` with its advice filled in."""
    return Verdict(name, seen, ADVICE[name].format(port=port, baud=baud, rate=rate))
