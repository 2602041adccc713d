"""Load: wrk, with a Lua script that is written for each run.

wrk sends a script's requests over so many connections, each the next one as soon as the former is answered, from one thread.
"""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.samples import Sample
from bench.usage import family, usage

MARK = "measured: "
"""Begins the line that the script prints when wrk is done."""

DONE = f"""
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{MARK}{{"requests": %d, "us": %d, "p50": %d, "p99": %d, "broken": %d, "refused": %d}}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.timeout, e.status))
end
"""

LONGEST_S = 20.0


class LoadFailed(Exception):
    """wrk did not run, or what it sent was refused: its figures would say nothing."""


class Request(NamedTuple):
    """What each connection sends again and again."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


def quoted(text: str | bytes) -> str:
    """A Lua string of these bytes."""
    data = text.encode() if isinstance(text, str) else text
    plain = range(32, 127)
    return '"' + "".join(chr(byte) if byte in plain and byte not in b'"\\' else f"\\{byte:03d}" for byte in data) + '"'


def same(request: Request) -> str:
    """The script that sends one request, byte for byte, each time: wrk formats it once."""
    lines = [f"wrk.method = {quoted(request.method)}", f"wrk.path = {quoted(request.target)}"]
    if request.body:
        lines.append(f"wrk.body = {quoted(request.body)}")
    lines += [f"wrk.headers[{quoted(name)}] = {quoted(value)}" for name, value in request.headers.items()]
    return "\n".join(lines) + DONE


def differing(request: Request, key: str = "key", keys: int = 10**9, traced: bool = True) -> str:
    """The script whose every request has another key (``k1``, ``k2``, ... up to ``keys``, then again) in the header ``key``, and
    another ``traceparent``, as tracing clients send it."""
    trace = "string.format('00-%016x%016x-%016x-01', math.random(2^52), n, n)" if traced else "nil"
    return f"""
local n, place = 0, 0
local headers = {table(request.headers)}
local method, target, body = {quoted(request.method)}, {quoted(request.target)}, {quoted(request.body)}
request = function()
  n = n + 1
  headers[{quoted(key)}] = "k" .. (n % {keys})
  headers["traceparent"] = {trace}
  return wrk.format(method, target, headers, body)
end
{DONE}"""


def rotating(requests: Sequence[Request]) -> str:
    """The script that sends these in turn: wrk formats each once."""
    made = ",\n".join(f"  {{{quoted(one.method)}, {quoted(one.target)}, {table(one.headers)}, {quoted(one.body)}}}" for one in requests)
    return f"""
local n, made, all = 0, {{}}, {{
{made}
}}
init = function(args)
  for i, one in ipairs(all) do made[i] = wrk.format(one[1], one[2], one[3], one[4]) end
end
request = function()
  n = n % #made + 1
  return made[n]
end
{DONE}"""


def read_and_ack(read: Request, ack: Request, token: str) -> str:
    """The script that reads, and sends each token that an answer holds (``token``: a Lua pattern with one capture) to be acked: two requests a
    message. ``%s`` in the ack's body stands for the token."""
    return f"""
local tokens, first, last = {{}}, 1, 0
local reading
local head = {table(ack.headers)}
init = function(args)
  reading = wrk.format({quoted(read.method)}, {quoted(read.target)}, {table(read.headers)})
end
request = function()
  if first > last then return reading end
  local token = tokens[first]
  tokens[first], first = nil, first + 1
  return wrk.format({quoted(ack.method)}, {quoted(ack.target)}, head, string.format({quoted(ack.body)}, token))
end
response = function(status, headers, body)
  local token = body:match({quoted(token)})
  if token then
    last = last + 1
    tokens[last] = token
  end
end
{DONE}"""


def table(headers: Mapping[str, str]) -> str:
    """A Lua table."""
    return "{" + ", ".join(f"[{quoted(name)}] = {quoted(value)}" for name, value in headers.items()) + "}"


def run(script: str, port: int, connections: int, seconds: float, pid: int, host: str = "127.0.0.1") -> Sample:
    """Send it for so many seconds to what listens there, and tell what came of it, with the cost of process ``pid`` and its children.

    :raises LoadFailed: where one request was refused or broken, or none was answered.
    """
    pids = family(pid) if pid else []
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", "-d3600s", "--timeout", "30s", "-s", file.name, f"http://{host}:{port}/"]
        before = usage(pids)
        told = drive(command, seconds)
        while nothing(told) and seconds < LONGEST_S:
            seconds *= 2
            told = drive(command, seconds)
        after = usage(pids)
    requests = told["requests"]
    if told["refused"] or told["broken"] or not requests:
        raise LoadFailed(f"of {requests} requests {told['refused']} were refused and {told['broken']} connections broke")
    cost = (after.cpu_us - before.cpu_us) / requests
    return Sample(requests * 1e6 / told["us"], told["p50"], told["p99"], cost if pids else None, after.rss_kib if pids else None)


def nothing(told: Mapping[str, int]) -> bool:
    """Whether nothing came back at all: a busy machine may need longer for the first answer."""
    return not any(told[what] for what in ("requests", "refused", "broken"))


def drive(command: Sequence[str], seconds: float) -> dict[str, int]:
    """Run wrk and end it after so many seconds (its own ``-d`` knows whole ones only). :raises LoadFailed:"""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as wrk:
        time.sleep(seconds)
        wrk.send_signal(signal.SIGINT)
        try:
            output = wrk.communicate(timeout=60)[0].decode()
        except subprocess.TimeoutExpired:
            wrk.kill()
            raise LoadFailed("wrk does not end") from None
    return told_by(output)


def told_by(output: str) -> dict[str, int]:
    """What the script printed. :raises LoadFailed: with wrk's words, where it did not."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found: dict[str, int] = json.loads(line[len(MARK) :])
            return found
    raise LoadFailed(f"wrk: {output.strip()[-500:]}")
