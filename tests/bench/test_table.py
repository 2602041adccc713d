"""The results as text."""

import json
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from bench import table
from bench.chart import bars, chart
from bench.house import House
from bench.samples import Sample
from tests.bench.made import FAST, P99, SLOW, document, result

MET = result({"psubd": SLOW, "floor": FAST})
MISSED = result({"psubd": SLOW._replace(rate=400.0), "floor": FAST}, name="publish-missed-128")
ABSENT = result(missing="no Java | here", name="publish-absent-128")


class Figures(SynchronousTestCase):
    def test_three_digits_that_count(self) -> None:
        shown = [table.figure(value) for value in (0.5123, 1.0, 12.345, 999.4, 1234.0, 55_678.0, 0.0, None)]
        self.assertEqual(shown, ["0.51", "1", "12.3", "999", "1,230", "55,700", "0", ""])

    def test_durations_in_their_unit(self) -> None:
        self.assertEqual([table.span(us) for us in (81.0, 1500.0, None)], ["81 us", "1.5 ms", ""])


class Tables(SynchronousTestCase):
    def test_a_row_beside_its_floor(self) -> None:
        """Rates of both, their ratio, the target and whether it was met, p50 and p99 of both, processor and memory."""
        cells = table.lines(MET.document())
        expected = ["publish-made-128", "500", "1,000", "0.50", ">= 0.50", "yes", "1.6 ms", "2.5 ms", "800 us", "2 ms", "72 us", "128 MiB"]
        self.assertEqual(cells, [expected])

    def test_a_line_more_for_each_further_target(self) -> None:
        """A row with two targets tells both, and fails each alone."""
        both = result({"psubd": SLOW, "floor": FAST._replace(p99_us=1000.0)}, targets=(*MET.row.targets, P99))
        cells = table.lines(both.document())
        self.assertEqual([(line[3], line[4], line[5]) for line in cells], [("0.50", ">= 0.50", "yes"), ("2.5", "<= 1.5", "**no**")])
        self.assertIn("p99", cells[1][0])

    def test_a_row_without_target_has_its_ratio(self) -> None:
        [cells] = table.lines(result({"psubd": SLOW, "floor": FAST}, targets=()).document())
        self.assertEqual(cells[3:6], ["0.50", "", ""])

    def test_a_target_of_something_else_has_its_own_line(self) -> None:
        """The first line's ratio is that of the rates, whatever the target is about."""
        cells = table.lines(result({"psubd": SLOW, "floor": FAST}, targets=(P99,)).document())
        self.assertEqual([line[3:6] for line in cells], [["0.50", "", ""], ["1.25", "<= 1.5", "yes"]])

    def test_a_driver_alone_has_a_line(self) -> None:
        """What a row's target takes in beside the floor is shown, without a ratio."""
        driver = result({"psubd": SLOW, "floor": FAST, "driver": FAST}, parts={**MET.row.parts, "driver": never})
        self.assertEqual(table.lines(driver.document())[1][:4], ["  beside driver", "", "1,000", ""])

    def test_other_proxies_have_a_line(self) -> None:
        """What was put beside psubd has its own figures, and the ratio of psubd to it."""
        beside = result({"psubd": SLOW, "floor": FAST, "strimzi at h:1": Sample(250.0, 9.0, 99.0)}, parts={**MET.row.parts, "strimzi at h:1": never})
        cells = table.lines(beside.document())[1]
        self.assertEqual((cells[0], cells[2], cells[3], cells[8]), ("  beside strimzi at h:1", "250", "2", "9 us"))

    def test_a_row_that_was_not_measured_says_why(self) -> None:
        [cells] = table.lines(ABSENT.document())
        self.assertEqual(cells[1], "not measured: no Java | here")

    def test_the_terminal_has_all_rows_in_columns(self) -> None:
        """Columns are aligned, without marks of Markdown."""
        shown = table.plain(document(MET, MISSED, ABSENT)).splitlines()
        self.assertEqual(len(shown), 4)
        self.assertNotIn("*", shown[2])
        self.assertEqual(shown[1].index("1,000"), shown[2].index("1,000"))

    def test_markdown_is_one_table(self) -> None:
        """Every line of the table has the same number of cells, whatever a reason holds; machine and versions stand above."""
        text = table.markdown(document(MET, MISSED, ABSENT))
        lines = [line for line in text.splitlines() if line.startswith("|")]
        self.assertEqual({line.replace("\\|", "").count("|") for line in lines}, {len(table.COLUMNS) + 1})
        self.assertIn("cores 2", text)

    def test_the_summary_counts(self) -> None:
        """What was met, missed and not measured."""
        self.assertEqual(table.summary(document(MET, MISSED, ABSENT)), "1 of 3 targets met, 1 missed, 1 not measured")


class Files(SynchronousTestCase):
    def test_three_files(self) -> None:
        """JSON that reads back the same, Markdown and a picture."""
        folder, made = Path(self.mktemp()), document(MET, ABSENT)
        names = [path.name for path in table.write(made, folder)]
        self.assertEqual(names, ["results.json", "results.md", "results.svg"])
        self.assertEqual(json.loads((folder / "results.json").read_text()), json.loads(json.dumps(made)))

    def test_the_figures_of_a_page_are_replaced(self) -> None:
        """What stands around the marks stays; a second time gives the same."""
        page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
        once = table.into_docs(page, "new\n", table.BEGIN, table.END)
        self.assertEqual(once, f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n")
        self.assertEqual(table.into_docs(once, "new\n", table.BEGIN, table.END), once)

    def test_a_page_without_marks_is_left_alone(self) -> None:
        self.assertRaises(ValueError, table.into_docs, "a page", "figures", table.BEGIN, table.END)

    def test_the_page_has_its_marks(self) -> None:
        """docs/benchmarks.md takes both the figures and the profile."""
        page = table.DOCS.read_text()
        self.assertIn("new", table.into_docs(page, "new", table.BEGIN, table.END))
        self.assertIn("new", table.into_docs(page, "new", table.PROFILE_BEGIN, table.PROFILE_END))


class Chart(SynchronousTestCase):
    def test_a_bar_for_each_ratio(self) -> None:
        """Rows that were not measured have none; the verdict is that of the table."""
        made = document(MET, MISSED, ABSENT)
        self.assertEqual(bars(made), [("publish-made-128", 0.5, 0.5, True), ("publish-missed-128", 0.4, 0.5, False)])

    def test_it_is_svg(self) -> None:
        """It can be parsed, and names its rows."""
        root = ElementTree.fromstring(chart(document(MET, MISSED)))
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        self.assertIn("publish-missed-128", [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")])


def never(house: House, seconds: float) -> Sample:
    raise AssertionError("it is not measured")
