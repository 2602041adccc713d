"""One row for real: psubd, its floor and wrk, shortly. No figure is judged."""

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.__main__ import main, rows
from bench.bodies import batch
from psubd.endpoints.frames import FIXED
from tests.integration.bench.needs import need_wrk


class OneRow(SynchronousTestCase):
    def test_it_is_measured_and_written(self) -> None:
        """Every figure of the row is there, of psubd, of the floor and of the storage alone; so are the three files."""
        need_wrk()
        out = Path(self.mktemp()).absolute()
        status = main(["--rounds", "1", "--seconds", "0.3", "--rows", "publish-sqlite-1=", "--out", str(out)])
        self.assertEqual(status, 0)
        written = json.loads((out / "results.json").read_text())
        [row] = written["rows"]
        self.assertEqual(row["missing"], "")
        for part in ("psubd", "floor", "driver"):
            figures = row["parts"][part]
            self.assertTrue(all(figures[name] is not None and figures[name] > 0 for name in ("rate", "p50_us", "p99_us", "rss_kib")), figures)
        self.assertIsNotNone(row["targets"][0]["value"])
        self.assertIn("publish-sqlite-1", (out / "results.md").read_text())
        self.assertTrue((out / "results.svg").exists())
        self.assertEqual(list(out.glob("state-*")), [])


class Rows(SynchronousTestCase):
    def test_names_are_unique(self) -> None:
        names = [row.name for row in rows(())]
        self.assertEqual(len(names), len(set(names)))

    def test_a_row_that_is_not_there(self) -> None:
        """It is told, and nothing starts."""
        self.assertEqual(main(["--rows", "publish-oracle"]), 2)

    def test_peers_need_their_kafka(self) -> None:
        self.assertEqual(main(["--peer", "strimzi=http://127.0.0.1:1"]), 2)


class Bodies(SynchronousTestCase):
    def test_json_and_frames_hold_the_same_records(self) -> None:
        """A hundred records of a hundred bytes, either way."""
        records = json.loads(batch("application/json", 100))["records"]
        self.assertEqual((len(records), {record["value"] for record in records}), (100, {"x" * 100}))
        frames = batch("application/vnd.psubd.frames", 100)
        self.assertEqual(len(frames), 100 * (FIXED.size + 100))
        self.assertEqual(frames[FIXED.size : FIXED.size + 100], b"x" * 100)
