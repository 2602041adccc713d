"""Starting: the demonstration, the files that say where psubd is, mistakes, --check."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
from typing import Any

from psubd.testing.daemon import ADMIN_TOKEN, Daemon
from tests.integration.process.case import ProcessCase

TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


class PrintedCase(ProcessCase):
    """Runs the lines that --demo prints."""

    def lines(self, daemon: Daemon) -> list[str]:
        """The curl lines of the last start, as printed."""
        daemon.wait_for(lambda: daemon.output().count("curl ") >= 2, "no curl lines were printed")
        return [line for line in daemon.output().splitlines() if line.strip().startswith("curl ")][-2:]

    def run_line(self, line: str) -> Any:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def assert_works(self, daemon: Daemon, offset: int) -> None:
        publish, read = self.lines(daemon)
        sent = self.run_line(publish)
        self.assertEqual((sent["topic"], sent["offset"]), ("demo", offset))
        (message,) = self.run_line(read)["messages"]
        self.assertEqual((message["value"], message["offset"]), ("hello, world", offset))


class DemoTests(PrintedCase):
    def demo(self) -> Daemon:
        return self.daemon("--demo", environ={"PSUBD_ADMIN_TOKEN": None})

    def test_lines_work(self) -> None:
        """The two printed lines publish and read back, also after a restart, also with another port; the keys stay the same."""
        with self.demo() as daemon:
            self.assert_works(daemon, 0)
            kept = daemon_file(daemon, "demo.json")
            self.assertEqual(mode(daemon.file("demo.json")), 0o600)
            self.assertIn(f"the admin token is in {daemon.file('admin-token')}", daemon.output())
            daemon.stop()
            daemon.start()
            daemon.wait_for(lambda: daemon.output().count("curl ") >= 4, "no curl lines at the second start")
            self.assert_works(daemon, 1)
            self.assertEqual(daemon_file(daemon, "demo.json"), kept)

    def test_file_lost(self) -> None:
        """Lost, or cut off: its keys are made anew, and the former ones end."""
        with self.demo() as daemon:
            former = self.lines(daemon)[0]
            for spoil in (os.unlink, lambda path: os.truncate(path, 20)):
                daemon.stop()
                seen = daemon.output().count("curl ")
                spoil(daemon.file("demo.json"))
                daemon.start()
                daemon.wait_for(lambda seen=seen: daemon.output().count("curl ") >= seen + 2, "no curl lines")  # type: ignore[misc]
                publish, read = self.lines(daemon)
                self.assertEqual(self.run_line(publish)["topic"], "demo")
                self.assertEqual(len(self.run_line(read)["messages"]), 1)
                self.assertEqual(set(json.loads(daemon_file(daemon, "demo.json"))), {"application", "topic", "pubkey", "secret", "subkey"})
                stale = re.sub(r":\d+/", f":{daemon.ports.data}/", former)
                self.assertEqual(self.run_line(stale)["code"], "bad_credentials")

    def test_keys_are_not_logged(self) -> None:
        """The printed lines are for whoever started it; the log has no key."""
        log = os.path.join(self.folder, "twistd.log")
        with self.daemon("--demo", twistd=[TWISTD, "--logfile", log]) as daemon:
            self.lines(daemon)
            with open(log, encoding="utf-8") as file:
                told = file.read()
            kept = json.loads(daemon_file(daemon, "demo.json"))
        for kind in ("pubkey", "secret", "subkey"):
            self.assertNotIn(kept[kind], told)


def daemon_file(daemon: Daemon, name: str) -> str:
    with open(daemon.file(name), encoding="utf-8") as file:
        return file.read()


class FilesTests(ProcessCase):
    def test_admin_token(self) -> None:
        """Made at the first start with mode 0600 in a folder of mode 0700; it opens the manager, and stays over a restart."""
        with self.daemon(environ={"PSUBD_ADMIN_TOKEN": None}) as daemon:
            token = daemon_file(daemon, "admin-token").strip()
            self.assertEqual((mode(daemon.file("admin-token")), mode(self.state)), (0o600, 0o700))
            self.assertEqual(daemon.manager(token).request("GET", "/api/v1/status").status, 200)
            self.assertEqual(daemon.manager(token + "x").request("GET", "/api/v1/status").status, 401)
            daemon.stop()
            daemon.start()
            self.assertEqual(daemon_file(daemon, "admin-token").strip(), token)
            self.assertEqual(daemon.manager(token).request("GET", "/api/v1/status").status, 200)

    def test_admin_token_removed(self) -> None:
        """Who has made a token of their own and removed the first one, with its file, finds neither again after a restart."""
        with self.daemon(environ={"PSUBD_ADMIN_TOKEN": None}) as daemon:
            first = daemon_file(daemon, "admin-token").strip()
            own = daemon.manager(first).send("POST", "/api/v1/tokens", {"name": "alice", "role": "admin"}).json["token"]
            self.assertEqual(daemon.manager(own).request("DELETE", "/api/v1/tokens/admin").status, 204)
            for remove in (False, True):
                daemon.stop()
                if remove:
                    os.unlink(daemon.file("admin-token"))
                daemon.start()
                self.assertEqual(daemon.manager(first).request("GET", "/api/v1/status").status, 401)
                self.assertEqual(daemon.manager(own).request("GET", "/api/v1/status").status, 200)
            self.assertFalse(os.path.exists(daemon.file("admin-token")))

    def test_token_of_the_environment(self) -> None:
        """PSUBD_ADMIN_TOKEN is the admin token, and no file is written."""
        with self.daemon() as daemon:
            self.assertEqual(daemon.manager(ADMIN_TOKEN).request("GET", "/api/v1/status").status, 200)
            self.assertFalse(os.path.exists(daemon.file("admin-token")))

    def test_ports(self) -> None:
        """ports.json names the ports in use, of every listener; one that a killed psubd left is gone before the new one listens."""
        with self.daemon("--listen", "tcp:0:interface=127.0.0.1") as daemon:
            told = json.loads(daemon_file(daemon, "ports.json"))
            self.assertEqual((len(told["data"]), told["peer"], mode(daemon.file("ports.json"))), (2, None, 0o600))
            for port in told["data"]:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    connection.sendall(b"GET /alive HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 200"))
            self.assertIn(f"data port [{told['data'][0]}, {told['data'][1]}], manager port [{told['manager']}]", daemon.output())
            daemon.process.kill()
            daemon.wait()
            with open(daemon.file("ports.json"), "w", encoding="utf-8") as file:
                file.write("stale")
            daemon.spawn()
            daemon.wait_for(
                lambda: os.path.exists(daemon.file("ports.json")) and daemon_file(daemon, "ports.json") != "stale", "a stale ports.json stays"
            )
            self.assertNotEqual(json.loads(daemon_file(daemon, "ports.json"))["data"], "stale")

    def test_modes(self) -> None:
        """Every file in the state folder is for one user."""
        with self.daemon() as daemon:
            self.bound(daemon)
            self.assertEqual({mode(daemon.file(name)) & 0o077 for name in os.listdir(self.state)}, {0})


class MistakesTests(ProcessCase):
    def refused(self, *options: str, environ: dict[str, str] | None = None) -> list[str]:
        """The lines on stderr of a psubd that does not start."""
        done = subprocess.run(
            [TWISTD, "--nodaemon", "--pidfile=", "psubd", "--state", self.state, *options],
            capture_output=True, text=True, timeout=60, cwd=self.folder, env={**os.environ, **(environ or {})},
        )  # fmt: skip
        self.assertEqual(done.returncode, 1, done)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        return done.stderr.splitlines()

    def test_all_at_once(self) -> None:
        """Many mistakes, one run: each a line on stderr, status 1, no traceback, and nothing was made."""
        lines = self.refused("--listen", "tcp:nope", "--storage", "kafkaa://x", "--workers", "0", "--mode", "both", "--peer", "tcp:9092")
        self.assertEqual(len(lines), 5, lines)
        self.assertTrue(all(line.startswith("psubd: --") for line in lines), lines)
        self.assertFalse(os.path.exists(self.state))

    def test_usage(self) -> None:
        """An option that is not there, one without its value, a stray word."""
        for words, said in ((["--lisen", "x"], "lisen"), (["--listen"], "listen"), (["serve"], "serve")):
            (line,) = self.refused(*words)
            self.assertIn(said, line)

    def test_credentials(self) -> None:
        """A URL that holds credentials is refused on the command line, and not repeated."""
        lines = self.refused("--storage", "sqlite://user:hunter2@host")
        self.assertIn("PSUBD_STORAGE", "".join(lines))
        self.assertNotIn("hunter2", "".join(lines))

    def test_port_taken(self) -> None:
        """A port that is taken is told plainly; the state folder can be used at once after that."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            (line,) = self.refused("--listen", endpoint, "--manager", "tcp:0:interface=127.0.0.1")
        self.assertEqual(line, f"psubd: cannot start: listen: '{endpoint}': cannot listen: Address already in use")
        self.assertFalse(os.path.exists(os.path.join(self.state, "ports.json")))
        self.daemon().start().stop()

    def test_not_a_database(self) -> None:
        """A file that is no database is told plainly, and is left as it is."""
        for name in ("storage.sqlite", "registry.sqlite"):
            os.makedirs(self.state, exist_ok=True)
            path = os.path.join(self.state, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write("this is no database. " * 500)
            lines = self.refused("--listen", "tcp:0", "--manager", "tcp:0:interface=127.0.0.1")
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(path, lines[0])
            with open(path, encoding="utf-8") as file:
                self.assertTrue(file.read().startswith("this is no database."))
            os.unlink(path)

    def test_background(self) -> None:
        """Started into the background, a folder that cannot be used still ends the command with 1."""
        done = subprocess.run(
            [TWISTD, f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log", "psubd", "--state", "/dev/null/x"],
            capture_output=True, text=True, timeout=60, cwd=self.folder,
        )  # fmt: skip
        self.assertEqual(done.returncode, 1, done)
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as file:
            self.assertIn("/dev/null/x: cannot be written: Not a directory", file.read())


class CheckTests(ProcessCase):
    def check(self, *options: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [TWISTD, "psubd", "--state", self.state, "--check", *options], capture_output=True, text=True, timeout=60, cwd=self.folder
        )
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        return done.returncode, (done.stdout + done.stderr).splitlines()

    def test_fresh(self) -> None:
        """On a folder that is not there yet: says what it found, ends with 0, and makes nothing."""
        status, lines = self.check()
        self.assertEqual((status, len(lines)), (0, 4), lines)
        self.assertIn("settings: no mistake", lines[0])
        self.assertIn("no psubd has run on it yet", lines[1])
        self.assertEqual([line.endswith("works") for line in lines[2:]], [True, True])
        self.assertEqual(os.listdir(self.folder), [])

    def test_used_and_in_use(self) -> None:
        """On a folder in use it says so and does no harm; on a used one it opens what is there."""
        with self.daemon() as daemon:
            status, lines = self.check()
            self.assertEqual(status, 0, lines)
            self.assertIn(f"another psubd (process {daemon.pid}) runs on it", lines[1])
            self.assertEqual(daemon.manager().request("GET", "/ready").status, 200)
            daemon.stop()
        self.assertEqual(self.check()[0], 0)

    def test_mistakes(self) -> None:
        """What is wrong is told, with 1: in the settings, in the folder, in what the URLs point at."""
        status, lines = self.check("--mode", "both")
        self.assertEqual((status, lines), (1, ["psubd: --mode: write one of pubsub, pub, sub"]))
        os.mkdir(self.state)
        with open(os.path.join(self.folder, "no-database"), "w", encoding="utf-8") as file:
            file.write("this is no database. " * 500)
        status, lines = self.check("--storage", f"sqlite:{self.folder}/no-database")
        self.assertEqual(status, 1)
        self.assertIn(f"{self.folder}/no-database", lines[-1])
        self.state = "/dev/null/x"
        status, lines = self.check()
        self.assertEqual(status, 1)
        self.assertIn("/dev/null/x: cannot be written", lines[-1])


class EndpointTests(PrintedCase):
    """The printed lines work on other kinds of ports, too."""

    def test_unix_socket(self) -> None:
        """A socket in the file system, for one user."""
        path = os.path.join(self.folder, "data.sock")
        daemon = self.daemon("--demo", endpoints=("--listen", f"unix:{path}:mode=600", "--manager", "tcp:0:interface=127.0.0.1"))
        with daemon:
            self.assertEqual(json.loads(daemon_file(daemon, "ports.json"))["data"], [path])
            self.assert_works(daemon, 0)
            self.assertEqual(mode(path), 0o600)

    def test_tls(self) -> None:
        """TLS, with a certificate from the file."""
        pem = os.path.join(self.folder, "both.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-keyout", pem, "-out", f"{pem}.crt"], check=True, capture_output=True,
        )  # fmt: skip
        ssl = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}.crt"
        with self.daemon("--demo", endpoints=("--listen", ssl, "--manager", ssl)) as daemon:
            self.assert_works(daemon, 0)
            self.assertEqual(daemon.stop(), -15)
            self.assertIn("https://127.0.0.1", daemon.output())  # at the end: it is said after ports.json is there
            self.assertNotIn("Traceback", daemon.output())
