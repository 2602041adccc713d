"""What a process costs."""

import os
import socket
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.usage import connections_to, family, thread_times, usage


class Processes(SynchronousTestCase):
    def test_time_and_memory(self) -> None:
        """Processor time grows by what was computed; memory is at least that of the text of Python."""
        before = usage([os.getpid()])
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        after = usage([os.getpid()])
        self.assertGreaterEqual(after.cpu_us - before.cpu_us, 150_000)
        self.assertGreater(after.rss_kib, 4096)
        self.assertGreater(sum(thread_times(os.getpid()).values()), 150_000)

    def test_children_are_family(self) -> None:
        """A child counts, and its child too: workers of a daemon."""
        code = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
        code += "; print(child.pid, flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            grandchild = int(child.stdout.readline())
            self.assertLessEqual({os.getpid(), child.pid, grandchild}, set(family(os.getpid())))
            self.assertNotIn(os.getpid(), family(child.pid))


class Connections(SynchronousTestCase):
    def test_established_ones_to_a_port(self) -> None:
        """Counted are those from the process to the port, not to others."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
            address, port = server.getsockname(), server.getsockname()[1]
            with socket.create_connection(address), socket.create_connection(address), socket.create_connection(other.getsockname()):
                self.assertEqual(connections_to([os.getpid()], [port]), 2)
