"""Derives man/psubd.toml.5 and the settings in docs/configuration.md from etc/psubd.toml.

``python docs/derive.py`` (``make docs``) writes them; with ``--check`` it names those that are not as they should be, and ends with 1.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "etc" / "psubd.toml"
PAGE = ROOT / "man" / "psubd.toml.5"
CHAPTER = ROOT / "docs" / "configuration.md"

HEAD = r""".\" Derived from etc/psubd.toml by docs/derive.py: change it there, then make docs.
.TH PSUBD.TOML 5 "2026" "psubd" "File Formats"
.ad l
.SH NAME
psubd.toml \- settings of psubd
.SH DESCRIPTION
"""

TAIL = r""".SH SEE ALSO
.BR psubd (8)
"""

FENCE = re.compile(r"(?<=<!-- etc/psubd.toml -->\n).*?(?=<!-- end -->)", re.DOTALL)
CHAPTER_LINE = re.compile(r"# --- (.+?) -+")
SETTING = re.compile(r"(\w+) = (.+)")
TABLE = re.compile(r"\[([\w.]+)\]")


def roff(text: str) -> str:
    """Text as it stands in a manual page."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", "\\e").replace("-", "\\-"))


def chunks(lines: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """The file's paragraphs: what it begins (a chapter's title, or nothing), its comment, its settings."""
    for paragraph in "\n".join(lines).split("\n\n"):
        rows = paragraph.splitlines()
        title = CHAPTER_LINE.fullmatch(rows[0]) if rows else None
        if title is not None:
            yield title[1], [], []
            continue
        yield "", [row.removeprefix("#").strip() for row in rows if row.startswith("#")], [row for row in rows if row and not row.startswith("#")]


def manual_page(lines: list[str]) -> Iterator[str]:
    """The page's lines."""
    table = ""
    for title, comment, settings in chunks(lines):
        if title:
            yield f'.SH "{title.upper()}"'
        for row in settings:
            begins = TABLE.fullmatch(row)
            table = begins[1] if begins else table
            setting = SETTING.fullmatch(row)
            yield ".TP" if setting is None or row is settings[0] else ".TQ"
            name = row if setting is None else f"{setting[1]}\\fR = {roff(setting[2])}"
            yield f"\\fB{name if setting is None or not table else roff(table) + '.' + name}\\fR"
        if comment and not settings:
            yield ".PP"
        yield from (roff(line) if line else ".PP" for line in comment)


def derived() -> dict[Path, str]:
    """What each file should be."""
    text = SOURCE.read_text()
    page = HEAD + "\n".join(manual_page(text.splitlines())) + "\n" + TAIL
    chapter = FENCE.sub(lambda _: f"\n```toml\n{text}```\n\n", CHAPTER.read_text())
    return {PAGE: page, CHAPTER: chapter}


def main(check: bool) -> int:
    stale = [path for path, text in derived().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} does not follow etc/psubd.toml: make docs", file=sys.stderr)
        else:
            path.write_text(derived()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
