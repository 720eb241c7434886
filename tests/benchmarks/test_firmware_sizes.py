"""The committed figures are those of the page, and within what the firmware promises."""

from benchmarks.firmware_sizes import (
    BOARDS,
    PAGE,
    PARTS,
    costs_table,
    read_costs,
    read_sizes,
    sizes_table,
)

LIMITS = {
    "all, with the compact network": (130_000, 224_000),
    "the link, its smallest window": (8_000, 4_000),
    "lossy images": (12_000, 12_000),
}


def test_the_page_has_the_committed_figures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert sizes_table() in page and costs_table() in page
    assert [cost.board for cost in read_costs()] == list(BOARDS)


def test_no_part_is_larger_than_promised() -> None:
    checked = [size for size in read_sizes() if size.part in LIMITS]
    assert len(checked) == len(BOARDS) + 2 * len(PARTS)
    for size in checked:
        flash, ram = LIMITS[size.part]
        assert size.flash <= flash and size.ram <= ram, size
