"""The results as text: for the terminal, as Markdown, as JSON, and into docs/benchmarks.md (`python -m bench.table --docs`)."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.chart import chart

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
DOCS = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PROFILE_BEGIN, PROFILE_END = "<!-- profile: begin -->", "<!-- profile: end -->"

Document = Mapping[str, Any]
"""What is written as JSON: `bench.rounds.Result.document` for each row, beside the machine and the versions."""

COLUMNS = ("row", "psubd", "floor", "ratio", "target", "met", "p50", "p99", "floor's p50", "floor's p99", "CPU", "RSS")


def figure(value: float | None, digits: int = 3) -> str:
    """So many digits that count: 0.512, 12.3, 1,230."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{round(value, digits - len(str(int(value)))):,.0f}"
    return f"{value:.{digits}g}" if value >= 1 or value == 0 else f"{value:.{digits - 1}f}"


def span(us: float | None) -> str:
    """A duration in the unit that suits it."""
    if us is None:
        return ""
    return f"{figure(us)} us" if us < 1000 else f"{figure(us / 1000)} ms"


def size(kib: float | None) -> str:
    return "" if kib is None else f"{kib / 1024:.0f} MiB"


def bound(target: Document) -> str:
    return f"{'>=' if target['least'] else '<='} {figure(target['bound'])}"


def verdict(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: ""}[met]


def lines(row: Document) -> list[list[str]]:
    """A row's cells: first the rates and their ratio, then a line for each target that is about something else, and for each further part."""
    if not row["parts"]:
        return [[row["name"], f"not measured: {row['missing']}", *[""] * (len(COLUMNS) - 2)]]
    rate = rate_target(row)
    others = [target for target in row["targets"] if target is not rate]
    more = [part_line(name, sample, row["parts"]["psubd"]) for name, sample in row["parts"].items() if name not in ("psubd", "floor")]
    return [first_line(row, rate), *map(target_line, others), *more]


def rate_target(row: Document) -> Document | None:
    """The target that is about the rate, as a share of the floor's."""
    return next((target for target in row["targets"] if target["what"].startswith("rate")), None)


def first_line(row: Document, rate: Document | None) -> list[str]:
    psubd, floor = row["parts"]["psubd"], row["parts"].get("floor", {})
    value = compared(psubd, floor) if rate is None else rate["value"]
    cells = [row["name"], figure(psubd["rate"]), figure(floor.get("rate")), figure(value), *judged(rate)]
    cells += [span(sample.get(name)) for sample in (psubd, floor) for name in ("p50_us", "p99_us")]
    return [*cells, span(psubd["cpu_us"]), size(psubd["rss_kib"])]


def judged(target: Document | None) -> tuple[str, str]:
    """The bound, and whether it was met."""
    return ("", "") if target is None or target["bound"] is None else (bound(target), verdict(target["met"]))


def target_line(target: Document) -> list[str]:
    cells = [f"  {target['what']}", "", "", figure(target["value"]), *judged(target)]
    return cells + [""] * (len(COLUMNS) - len(cells))


def part_line(name: str, sample: Document, psubd: Document) -> list[str]:
    """A further part, in the floor's columns: another proxy, with psubd's rate of its own, or a driver alone."""
    cells = [""] * len(COLUMNS)
    cells[0], cells[2] = f"  beside {name}", figure(sample["rate"])
    cells[3] = figure(compared(psubd, sample)) if " at " in name else ""
    cells[8:10] = [span(sample["p50_us"]), span(sample["p99_us"])]
    return cells


def compared(psubd: Document, floor: Document) -> float | None:
    return psubd["rate"] / floor["rate"] if psubd.get("rate") and floor.get("rate") else None


def plain(document: Document) -> str:
    """For a terminal."""
    table = [list(COLUMNS), *(cells for row in document["rows"] for cells in lines(row))]
    wide = [cells for cells in table if not cells[1].startswith("not measured")]
    widths = [max(len(cells[at]) for cells in wide) for at in range(len(COLUMNS))]
    widths[0] = max(len(cells[0]) for cells in table)
    shown = []
    for cells in table:
        if cells[1].startswith("not measured"):
            shown.append(f"{cells[0]:<{widths[0]}}  {cells[1]}")
        else:
            rest = (f"{cell.replace('*', ''):>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
            shown.append("  ".join([f"{cells[0]:<{widths[0]}}", *rest]).rstrip())
    return "\n".join(shown)


def markdown(document: Document) -> str:
    """The same as Markdown, with what was run on what."""
    table = ["| " + " | ".join(name.strip() for name in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    table += ["| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |" for row in document["rows"] for cells in lines(row)]
    what = [f"- `{row['name']}`: {row['what']}; beside {row['floor']}." + (f" {row['note']}" if row["note"] else "") for row in document["rows"]]
    return "\n".join([about(document), "", *table, "", "What the rows are:", "", *what, ""])


def about(document: Document) -> str:
    machine = "; ".join(f"{name} {value}" for name, value in document["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    taken = f"{document['rounds']} rounds of {document['seconds']:g} s a part, medians"
    return f"`{document['command']}`, {document['began']}: {taken}.\nMachine: {machine}.\nVersions: {versions}."


def summary(document: Document) -> str:
    """One line. A target of a row that was not measured is neither met nor missed."""
    met = [target["met"] for row in document["rows"] for target in row["targets"] if target["bound"] is not None]
    return f"{met.count(True)} of {len(met)} targets met, {met.count(False)} missed, {met.count(None)} not measured"


def write(document: Document, folder: Path) -> list[Path]:
    """results.json, results.md and results.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"results.json": json.dumps(document, indent=1) + "\n", "results.md": markdown(document), "results.svg": chart(document)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def into_docs(page: str, text: str, begin: str, end: str) -> str:
    """The page with what stands between two marks replaced. :raises ValueError: where it has no such marks."""
    head, found, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no {begin} ... {end}")
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}"


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m bench.table", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--results", type=Path, default=BUILD / "results.json", help="what make bench wrote")
    options.add_argument("--docs", action="store_true", help=f"write the figures into {DOCS.relative_to(ROOT)}")
    args = options.parse_args(arguments)
    document = json.loads(args.results.read_text(encoding="utf-8"))
    if args.docs:
        document_it(document, args.results.with_name("profile.md"))
    else:
        sys.stdout.write(plain(document) + "\n")


def document_it(document: Document, profile: Path) -> None:
    """The figures, the chart, and the profile where there is one, into docs."""
    page = into_docs(DOCS.read_text(encoding="utf-8"), markdown(document), BEGIN, END)
    if profile.exists():
        page = into_docs(page, profile.read_text(encoding="utf-8"), PROFILE_BEGIN, PROFILE_END)
    DOCS.write_text(page, encoding="utf-8")
    DOCS.with_suffix(".svg").write_text(chart(document), encoding="utf-8")


if __name__ == "__main__":
    main()
