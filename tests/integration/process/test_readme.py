"""The README's five minutes, as they stand there, against the real daemon."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.process.case import ProcessCase

README = Path(__file__).resolve().parents[3] / "README.md"
CHANGING = re.compile(r'"(?:timestamp|version)":\d+|"(?:pk|ps|sk)_[^"]*"')
"""Times, keys, and versions, which count all that was registered before: they differ from the printed ones."""


class ReadmeTests(ProcessCase):
    def run_blocks(self, *titles: str) -> tuple[list[str], list[str]]:
        """The lines that the shell blocks of these chapters write, and the lines that the README shows for them."""
        text = "".join(README.read_text().partition(f"## {title}")[2].partition("\n## ")[0] for title in titles)
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        shown = [line for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        with self.daemon(state=os.path.join(self.folder, "psubd-state"), environ={"PSUBD_ADMIN_TOKEN": None}) as daemon:
            script = "set -euo pipefail\n" + "".join(blocks)
            for port, free in (("9090", daemon.ports.data), ("9091", daemon.ports.manager)):
                script = script.replace(f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{free}/")
            done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=120, cwd=self.folder)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return [line for line in done.stdout.splitlines() if line], shown

    def test_five_minutes(self) -> None:
        """Each command works when pasted, and what the README shows is what comes, but for times, keys and versions."""
        written, shown = self.run_blocks("Five minutes")
        self.assertEqual([line for line in written if line.startswith("{") and json.loads(line).get("code")], [], "a command was refused")
        plain = [CHANGING.sub("…", line) for line in written]
        for line in shown:
            self.assertIn(CHANGING.sub("…", line), plain)
        messages = [self.messages(line) for line in written if line.startswith('{"messages"')]
        self.assertEqual(messages[0], messages[2], "a group and a replay read different messages")
        self.assertEqual([len(batch) for batch in messages], [3, 2, 3])
        self.assertIn("HTTP/1.1 204 No Content", "\n".join(written))

    def test_confluents_clients(self) -> None:
        """The commands of Confluent's API work when pasted after the five minutes: what was published is read, and committed."""
        written, _ = self.run_blocks("Five minutes", "Clients of Confluent's REST proxy")
        self.assertEqual([line for line in written if 'error_code":4' in line or 'error_code":5' in line], [])
        *_, read, committed = written
        self.assertEqual((len(json.loads(read)), committed), (4, "[]"))

    def messages(self, line: str) -> list[Any]:
        """The values in an answer, sorted: partitions come in any order."""
        return sorted(message["value"] for message in json.loads(line)["messages"])
