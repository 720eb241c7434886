"""Links and commands of the documents exist, and figures quoted in prose are in the tables."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from glioslice import __version__
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("models/*/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^ {4}.*$", re.MULTILINE)
FIGURES = re.compile(r"<!-- figures: (\w+) -->.*?<!-- end of \1 -->", re.DOTALL)
QUOTED = re.compile(r"\b0\.\d{3,4}\b|\b\d\.\d\d(?= mL)")
"""A Dice or a volume as the tables have it."""

SOURCE = re.compile(
    r"`((?:benchmarks|convert|device|docs|firmware_host|glioslice|scanner|tests|tools|training)"
    r"/[\w/.-]+\.(?:bin|csv|json|log|md|py|toml))`"
)
COMMAND = re.compile(r"\bglioslice ([a-z]+)\b")
PROGRAM = re.compile(r"(?:\bglioslice|\bpython|/python|\btorchrun|\bpytest|\bmake) .*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FOREIGN_OPTIONS = {"--help", "--version", "--nproc-per-node"}
GENERATED = {"benchmarks/boards", "benchmarks/folds"}
"""A command writes their files; not all of them are committed."""


def links(page: Path) -> Iterator[str]:
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        yield match[1] or match[2]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown viewer makes of headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_a_page_names_exist(page: Path) -> None:
    for name in SOURCE.findall(page.read_text(encoding="utf-8")):
        if str(Path(name).parent) not in GENERATED:
            assert (ROOT / name).is_file(), name


def code(page: Path) -> Iterator[str]:
    """Yield each indented or quoted piece of code, without the comment after it."""
    text = FIGURES.sub("", page.read_text(encoding="utf-8"))
    for line in [*CODE.findall(text), *re.findall(r"`([^`\n]+)`", CODE.sub("", text))]:
        yield line.partition(" # ")[0].strip()


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option that a parser of ours has."""
    folders = [
        "benchmarks",
        "convert",
        "device",
        "firmware_host",
        "glioslice",
        "scanner",
        "tools",
        "training",
        "tests",
    ]
    sources = [path.read_text() for name in folders for path in (ROOT / name).rglob("*.py")]
    return {match for text in sources for match in re.findall(r'"(--[a-z][a-z-]+)"', text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_shows_exist(page: Path, options: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    commands = project["project"]["entry-points"]["glioslice.commands"]
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for piece in code(page):
        for program in PROGRAM.findall(piece):
            if name := COMMAND.match(program):
                assert name[1] in commands, piece
            if program.startswith("make "):
                assert set(program.split()[1:]) <= set(targets), piece
            else:
                assert set(OPTION.findall(program)) <= options | FOREIGN_OPTIONS, piece


def test_the_index_leads_to_every_page() -> None:
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    files = {path for path in DOCS.iterdir() if path.suffix in {".md", ".json"}}
    assert files - {DOCS / "README.md"} <= listed


def test_a_long_page_has_contents() -> None:
    for page in DOCS.glob("*.md"):
        if page.read_text(encoding="utf-8").count("\n") > 100:
            assert any(link.startswith("#") for link in links(page)), page.name


@pytest.mark.parametrize("name", ["README.md", "docs/accuracy.md"])
def test_figures_in_prose_are_those_of_the_tables(name: str) -> None:
    """Gains of the ablation study, which have four digits, are quoted with three."""
    parts = {
        match[1]: match[0]
        for page in ("accuracy.md", "accuracy-appendix.md")
        for match in FIGURES.finditer((DOCS / page).read_text(encoding="utf-8"))
    }
    ablation = re.findall(r"\b0\.\d{4}\b", parts.pop("ablation"))
    del parts["patients"]  # so many figures that any would be among them
    known = set(re.findall(r"\b\d+\.\d+\b", " ".join(parts.values())))
    known |= {f"{float(figure):.3f}" for figure in ablation}
    prose = FIGURES.sub("", (ROOT / name).read_text(encoding="utf-8"))
    quoted = set(QUOTED.findall(prose)) - {"0.001"}
    assert quoted
    assert quoted - known == set()


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
