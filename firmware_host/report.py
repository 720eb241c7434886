"""The HTML report of a run: one file that needs no network; printed, it numbers its pages."""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from html import escape
from importlib import resources
from typing import Any

from firmware_host.inputs import StreamedCase
from firmware_host.mask_volume import MaskVolume
from firmware_host.volumetry import Volumetry, format_numbers, outside_brain_warning, unsure_summary
from glioslice.cases import Case, case_digest
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import SHIPPED_MODELS, Card, read_card, shipped_folder
from glioslice.montage import COLOURS, REGION_TITLES, montage_png
from glioslice.preprocessing import brain_mask
from glioslice.sanity_checks import TRAINED_ON

NOTICE = "Research software, not a medical device: not for diagnosis or treatment."

DASH = "\N{EN DASH}"


def find_card(sha256: str) -> Card | None:
    """Return the card of the shipped model that lists this digest, None if there is none."""
    for name in SHIPPED_MODELS:
        with suppress(GliosliceError):  # a wheel holds one of them only
            card = read_card(shipped_folder(name))
            if any(file["sha256"] == sha256 for file in card.content.get("files", {}).values()):
                return card
    return None


def report_warnings(
    masks: MaskVolume, streamed: StreamedCase, report: Mapping[str, Any]
) -> list[str]:
    """Return what a reader must know before reading the numbers."""
    card = find_card(report["model"]["sha256"])
    found = list(streamed.warnings)
    if not report["complete"]:
        found.append(
            f"The run ended early: {masks.mask_count} of {masks.slice_count} slices have a mask."
        )
    if masks.failed:
        failed = format_numbers([masks.number(index) for index in sorted(masks.failed)])
        found.append(f"The board failed on {failed}: no mask there.")
    if card is None:
        found.append(
            "The model is not one of those shipped with this version; its accuracy is unknown."
        )
    elif streamed.images is not None and card.trained_on:
        case = Case("", streamed.scheme, streamed.images, None, streamed.space)
        if case_digest(case) in card.trained_on:
            found.append(TRAINED_ON)
    if unsure := unsure_summary(report["quality"]):
        advice = "Check there what the mask includes and what it misses."
        found.append(f"{unsure} {advice}")
    if streamed.images is not None:
        outside = outside_brain_warning(masks.labels(), brain_mask(streamed.images))
        found += [outside] if outside else []
    if report["complete"] and not report["volumes_ml"]["WT"]:
        found.append("No tumour was found. That does not prove that there is none.")
    return found


def render_html(
    masks: MaskVolume,
    streamed: StreamedCase,
    report: Mapping[str, Any],
    volumetry: Volumetry,
    picture: bytes | None = None,
) -> str:
    """Return the report as one HTML document without scripts or links to anything outside.

    `picture` is the montage as a PNG; it is made here if it is None.
    """
    title = escape(str(report["case"] or "the case on the board"))
    state = "complete" if report["complete"] else "ENDED EARLY"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = resources.files("firmware_host").joinpath("report.css").read_text()
    most = max((row.voxels[0] for row in volumetry.slices.values()), default=0) / 1000
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
<p><small>glioslice {escape(report["version"])}, {_format_date(report["date"])}, {state}:
{masks.mask_count} of {masks.slice_count} slices</small></p>
<p class="notice">{NOTICE}</p>
{_warnings(report["warnings"])}
{_picture(masks, streamed, picture)}
<div class="sides">
<section><h2>Volumes</h2>{_volumes(report)}
<p><small>Voxels are 1 mm wide. The maximum axial diameter is measured within one slice. Regions are
nested: ET in TC in WT. The mask file uses {escape(report["labels"])} labels.
{_dice_note(report)}</small></p></section>
<section><h2>Run</h2>{_run(report)}</section>
</div>
<figure>{_profile(masks, volumetry, report["quality"]["unsure"])}
<figcaption>Volume of each region by slice, from feet to head; the tallest column is {most:.2f} mL.
{_marks_note(report["quality"]["unsure"])}</figcaption>
</figure>
<h2>Model: {escape(report["model"]["name"])}</h2>
{_model(report["model"]["sha256"])}
</body>
</html>
"""


def _format_date(date: str) -> str:
    return datetime.fromisoformat(date).strftime("%Y-%m-%d %H:%M %Z")


def _dice_note(report: Mapping[str, Any]) -> str:
    return "" if report["dice"] is None else "Dice: against the ground truth of the case."


def _marks_note(unsure: Sequence[int]) -> str:
    return "The numbers 1, 2... mark the slices to look at, the worst first." if unsure else ""


def _warnings(found: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in found)
    return f'<div class="warnings"><ul>{lines}</ul></div>' if lines else ""


def _picture(masks: MaskVolume, streamed: StreamedCase, picture: bytes | None) -> str:
    if streamed.images is None:
        return "<p>No picture, because the images are on the board.</p>"
    data = base64.b64encode(picture or montage_png(streamed.images, masks.labels())).decode()
    caption = "Slices in FLAIR and T1ce with the regions outlined"
    return (
        f'<figure class="picture"><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}; the patient's left is on the right.</figcaption></figure>"
    )


def _volumes(report: Mapping[str, Any]) -> str:
    def score(region: str) -> str:
        return f"<td>{report['dice'][region]:.3f}</td>" if report["dice"] else ""

    rows = "".join(
        f'<tr><th scope="row"><i style="background:rgb{COLOURS[region]}"></i><b>{region}</b> '
        f"{REGION_TITLES[region]}</th><td>{report['volumes_ml'][region]:.1f}</td>"
        f"<td>{report['diameters_mm'][region]:.1f}</td>{score(region)}</tr>"
        for region in REGIONS
    )
    heads = ("Region", "mL", "max. axial diameter, mm", *(["Dice"] if report["dice"] else []))
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>"


def _run(report: Mapping[str, Any]) -> str:
    quality = report["quality"]["mean"]
    ms = {k: DASH if v is None else f"{v:.2f} ms" for k, v in report["device_ms"].items()}
    how = {"serve": "the host sent the slices", "play": "the board read its own case"}
    rows = {
        "Device time per slice, median": ms["p50"],
        "Device time per slice, 90 % / 99 %": f"{ms['p90']} / {ms['p99']}",
        "Total": f"{report['seconds']:.1f} s, {report['slices_per_second']:.1f} slices/s",
        "Over the serial link": f"{report['bytes_up']:,} bytes up, {report['bytes_down']:,} down",
        "Retransmitted": f"{report['retransmits']} frames",
        "Confidence, mean": DASH if quality is None else f"{quality:.0f} of 254",
        "Mode": how[report["mode"]] + _images(report),
        "Post-processing": _postprocessing(report),
    }
    return (
        "<table>"
        + "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
        + "</table>"
    )


def _postprocessing(report: Mapping[str, Any]) -> str:
    """Return what was done to the masks of the network, in one line."""
    changes = report["postprocessing"]
    text = escape(changes["summary"]) if changes else "none: the masks are those of the board"
    return f"{text}; each slice was averaged with its mirror image" if report["mirroring"] else text


def _images(report: Mapping[str, Any]) -> str:
    """Return the image codec and whether it is lossless; empty for a played run."""
    if not report["images"]:
        return ""
    kind = "lossless" if report["lossless"] else "lossy"
    return f", codec {report['images']}" + ("" if report["images"] == kind else f" ({kind})")


def _profile(masks: MaskVolume, volumetry: Volumetry, unsure: Sequence[int]) -> str:
    """Return an SVG of overlaid columns of WT, TC and ET by slice, with ranks at unsure slices."""
    most = max(1, *(row.voxels[0] for row in volumetry.slices.values()), 1)
    width = 800 / masks.slice_count
    bars = []
    for index, row in sorted(volumetry.slices.items()):
        for region, voxels in zip(REGIONS, row.voxels, strict=True):
            if voxels:
                tall = 80 * voxels / most
                bars.append(
                    f'<rect x="{index * width:.1f}" y="{84 - tall:.1f}" width="{width:.1f}" '
                    f'height="{tall:.1f}" fill="rgb{COLOURS[region]}"/>'
                )
    for rank, number in enumerate(unsure, 1):
        middle = (number - masks.number(0) + 0.5) * width
        title = f"<title>slice {number}</title>"
        bars.append(
            f'<text x="{middle:.1f}" y="96" fill="#fff" font-size="11" text-anchor="middle">'
            f"{rank}{title}</text>"
        )
    label = "volume of each region by slice"
    return f'<svg viewBox="0 0 800 99" role="img" aria-label="{label}">{"".join(bars)}</svg>'


def _model(sha256: str) -> str:
    card = find_card(sha256)
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
            f" Mean Dice on {len(held_out['cases'])} patients held out from training: {means}."
        )
    return code + "".join(f'<p class="card">{escape(line)}</p>' for line in lines if line)
