"""The committed sizes are those of the page, and within what the firmware promises."""

import csv

from benchmarks.firmware_sizes import PAGE, SIZES_FILE, Size, sizes_table

KB = 1024
LIMITS = {
    "all, with the compact network": (512 * KB, 224 * KB),
    "the link, its smallest window": (8 * KB, 4 * KB),
    "lossy images": (12 * KB, 12 * KB),
}


def committed() -> list[Size]:
    with SIZES_FILE.open(encoding="utf-8", newline="") as file:
        return [
            Size(row["board"], row["part"], int(row["flash"]), int(row["ram"]))
            for row in csv.DictReader(file)
        ]


def test_the_page_has_the_committed_sizes() -> None:
    assert sizes_table(committed()) in PAGE.read_text(encoding="utf-8")


def test_no_part_is_larger_than_promised() -> None:
    checked = [size for size in committed() if size.part in LIMITS]
    assert len(checked) == 2 * len(LIMITS)
    for size in checked:
        flash, ram = LIMITS[size.part]
        assert size.flash <= flash and size.ram <= ram, size
