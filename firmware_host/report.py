"""The report of a run for people: one HTML file that needs no network, and prints on one page."""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from importlib import resources
from typing import Any

from firmware_host.confidence import unsure_line
from firmware_host.inputs import Source
from firmware_host.mask_volume import Run
from firmware_host.volumetry import Tally
from glioslice.cases import Case, digest
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import SHIPPED, Card, read_card, shipped
from glioslice.montage import COLOURS, TITLES, montage_png

NOTICE = "Research software, no medical device: not for diagnosis or treatment."

DASH = "\N{EN DASH}"


def card_of(sha256: str) -> Card | None:
    """Return the card of the shipped model of which a file has this digest, if there is one."""
    for name in SHIPPED:
        with suppress(GliosliceError):  # a checkout may hold one of them only
            card = read_card(shipped(name))
            if any(file["sha256"] == sha256 for file in card.content.get("files", {}).values()):
                return card
    return None


def warnings_of(run: Run, source: Source, report: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before the numbers."""
    card = card_of(report["model"]["sha256"])
    found = list(source.oddities)
    if not report["complete"]:
        found.append(f"The run ended early: {run.masks} of {run.slices} slices have a mask.")
    if run.failed:
        slices = ", ".join(str(run.crop.z[0] + index) for index in sorted(run.failed))
        found.append(f"The board failed on the slices Z {slices}: they hold no mask.")
    if card is None:
        found.append("The model is not one that ships with this version: nothing is known of it.")
    elif source.images is not None and card.trained_on:
        case = Case("", source.scheme, source.images, None, source.space)
        if digest(case) in card.trained_on:
            found.append(
                "The model was trained on this very case: its mask says nothing of others."
            )
    if unsure := unsure_line(report["quality"]):
        what = "Look there at what the mask holds and what it leaves out."
        found.append(f"{unsure[0].upper()}{unsure[1:]}. {what}")
    if report["complete"] and not report["volumes_ml"]["WT"]:
        found.append("No tumour was found. That does not mean that there is none.")
    return found


def html_of(
    run: Run,
    source: Source,
    report: Mapping[str, Any],
    tally: Tally,
    picture: bytes | None = None,
) -> str:
    """Return the report as one HTML document without scripts or links to anything outside.

    `picture` is the montage as a PNG; it is drawn here where there is none yet.
    """
    title = escape(str(report["case"] or "the case on the board"))
    state = "complete" if report["complete"] else "ENDED EARLY"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = resources.files("firmware_host").joinpath("report.css").read_text()
    most = max((row.voxels[0] for row in tally.rows.values()), default=0) / 1000
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} {DASH} glioslice</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p><small>glioslice, {state}: {run.masks} of {run.slices} slices</small></p>
<p class="notice">{NOTICE}</p>
{_warnings(report["warnings"])}
{_picture(run, source, picture)}
<div class="sides">
<section><h2>Volumes</h2>{_volumes(report)}
<p><small>Voxels of 1 mm. Across: the largest diameter in one axial slice. Regions nest: ET in TC in
WT. The mask file holds {escape(report["labels"])} labels.</small></p></section>
<section><h2>Run</h2>{_run(report)}</section>
</div>
<figure>{_profile(run, tally, report["quality"]["unsure"])}
<figcaption>Regions of each slice, feet to head; the tallest column is {most:.2f} mL. A triangle
marks a slice of which the network is unsure.</figcaption>
</figure>
<h2>Model: {escape(report["model"]["name"])}</h2>
{_model(report["model"]["sha256"])}
</body>
</html>
"""


def _warnings(found: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in found)
    return f'<div class="warnings"><ul>{lines}</ul></div>' if lines else ""


def _picture(run: Run, source: Source, picture: bytes | None) -> str:
    if source.images is None:
        return "<p>No picture: the images are on the board.</p>"
    data = base64.b64encode(picture or montage_png(source.images, run.labels())).decode()
    words = "Slices in FLAIR and T1ce with the regions outlined"
    return (
        f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}; the '
        "patient's left is on the right.</figcaption></figure>"
    )


def _volumes(report: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><i style="background:rgb{COLOURS[region]}"></i><b>{region}</b> '
        f"{TITLES[region]}</th><td>{report['volumes_ml'][region]:.1f}</td>"
        f"<td>{report['diameters_mm'][region]:.1f}</td></tr>"
        for region in REGIONS
    )
    return f"<table><tr><th>Region</th><th>mL</th><th>mm across</th></tr>{rows}</table>"


def _run(report: Mapping[str, Any]) -> str:
    quality = report["quality"]["mean"]
    ms = {k: DASH if v is None else f"{v:.2f} ms" for k, v in report["device_ms"].items()}
    how = {"serve": "the host sent the slices", "play": "the board read the case"}
    rows = {
        "Device, median a slice": ms["p50"],
        "Device, 90 % / 99 %": f"{ms['p90']} / {ms['p99']}",
        "In all": f"{report['seconds']:.1f} s, {report['slices_per_second']:.1f} slices/s",
        "Over the line": f"{report['bytes_up']:,} bytes up, {report['bytes_down']:,} down",
        "Sent again": f"{report['retransmits']} frames",
        "Quality of masks, mean": DASH if quality is None else f"{quality:.0f} of 254",
        "Mode": how[report["mode"]] + _images(report),
    }
    return (
        "<table>"
        + "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
        + "</table>"
    )


def _images(report: Mapping[str, Any]) -> str:
    """Return in which codec slices crossed, if any did."""
    if not report["images"]:
        return ""
    return f", as {report['images']}, " + ("exactly" if report["lossless"] else "not exactly")


def _profile(run: Run, tally: Tally, unsure: Sequence[int]) -> str:
    """Return columns of WT, TC and ET, one over the other, in each slice; marks of unsure Z."""
    most = max(1, *(row.voxels[0] for row in tally.rows.values()), 1)
    width = 800 / run.slices
    bars = []
    for index, row in sorted(tally.rows.items()):
        for region, voxels in zip(REGIONS, row.voxels, strict=True):
            if voxels:
                tall = 80 * voxels / most
                bars.append(
                    f'<rect x="{index * width:.1f}" y="{84 - tall:.1f}" width="{width:.1f}" '
                    f'height="{tall:.1f}" fill="rgb{COLOURS[region]}"/>'
                )
    for z in unsure:
        middle = (z - run.crop.z[0] + 0.5) * width
        corners = f"{middle:.1f},88 {middle - 3:.1f},94 {middle + 3:.1f},94"
        title = f"<title>Z {z}: unsure</title>"
        bars.append(f'<polygon points="{corners}" fill="#fff">{title}</polygon>')
    return f'<svg viewBox="0 0 800 96" role="img" aria-label="profile">{"".join(bars)}</svg>'


def _model(sha256: str) -> str:
    card = card_of(sha256)
    code = f"<p>SHA-256 <code>{escape(sha256)}</code></p>"
    if card is None:
        return code
    content = card.content
    name, file = next((n, f) for n, f in content["files"].items() if f["sha256"] == sha256)
    held_out = content.get("held_out", {})
    scores = held_out.get("dice", {}).get(name, {}).get("mean")
    lines = [
        f"{content['network']['parameters']:,} parameters, {file['precision']}, "
        f"{file['bytes']:,} bytes.",
        content.get("intended_use", ""),
        content.get("licence", ""),
        " ".join(content.get("credits", [])),
    ]
    if scores:
        means = ", ".join(f"{region} {scores[region]:.2f}" for region in REGIONS)
        lines[0] += (
            f" Mean Dice on {len(held_out['cases'])} patients left out of training: {means}."
        )
    return code + "".join(f'<p class="card">{escape(line)}</p>' for line in lines if line)
