# SPDX-License-Identifier: BSD-2-Clause
"""Metrics for Prometheus: the page of one filter, and the admin daemon's about
the fleet. Each is read by a strict parser of the text format, and by promtool
where there is one. H2, H14, H26, H27."""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import test_http
from labkit import PORTS, Lab, LabTestCase, make_message, wait_until

HEAD = "text/plain; version=0.0.4; charset=utf-8"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
NUMBER = r"[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|Inf)|NaN"


class Malformed(AssertionError):
    pass


def parse(text):
    """The page as {(name, ((label, value), ..)): number}, or Malformed: each
    line is a HELP, its TYPE, or a sample of that family; no family and no
    sample comes twice; counters end in _total; histograms are whole and grow."""
    families, samples, family = {}, {}, None

    def need(truth, why):
        if not truth:
            raise Malformed(f"{why}: {line!r}")

    line = text[-20:]
    need(text.endswith("\n"), "the last line has no end")
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            what = re.fullmatch(rf"# (HELP|TYPE) ({NAME}) (.+)", line)
            need(what, "neither HELP nor TYPE")
            word, name, rest = what.groups()
            if word == "HELP":
                need(name not in families, "a family comes twice")
                need(family is None or families[family], "no TYPE before the next HELP")
                families[name], family = None, name
                need(rest.strip() == rest and "\\" not in rest, "HELP")
            else:
                need(name == family and families[name] is None, "TYPE without its HELP")
                need(rest in ("counter", "gauge", "histogram"), "TYPE")
                families[name] = rest
                need((rest == "counter") == name.endswith("_total"), "a counter is named _total, and nothing else")
                need(not name.endswith(("_count", "_sum", "_bucket")), "a reserved ending")
                need(name.startswith("chaosmilter_"), "a name that is not ours")
            continue
        sample = re.fullmatch(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ({NUMBER})", line)
        need(sample, "no sample")
        name, labels, number = sample[1], tuple(re.findall(LABEL, sample[2] or "")), float(sample[sample.lastindex])
        need(family and families[family], "a sample before its TYPE")
        base = name
        if families[family] == "histogram":
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            need(base != name, "a histogram's sample without ending")
        need(base == family, "a sample of another family")
        need(len({key for key, _ in labels}) == len(labels), "a label comes twice")
        need((name, labels) not in samples, "a sample comes twice")
        need(families[family] != "counter" or number >= 0, "a counter below 0")
        samples[name, labels] = number
    check_histograms(families, samples)
    return samples


def check_histograms(families, samples):
    for family, kind in families.items():
        if kind != "histogram":
            continue
        series = {}
        for (name, labels), number in samples.items():
            if name == family + "_bucket":
                le = float(dict(labels)["le"].replace("+Inf", "inf"))
                rest = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(rest, []).append((le, number))
        for rest, buckets in series.items():
            if buckets != sorted(buckets) or buckets != sorted(buckets, key=lambda pair: pair[1]):
                raise Malformed(f"{family}: buckets do not grow: {buckets}")
            if buckets[-1][0] != float("inf") or buckets[-1][1] != samples[family + "_count", rest]:
                raise Malformed(f"{family}: +Inf and _count differ")
            if (family + "_sum", rest) not in samples:
                raise Malformed(f"{family}: no sum")


def promtool(text):
    """What promtool has to say, "" when it is content or not there."""
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not tool:
        return ""
    done = subprocess.run([tool, "check", "metrics"], input=text, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.stdout


class Parser(unittest.TestCase):
    """The judge is judged first."""

    once = True
    FAMILY = "# HELP chaosmilter_a Help.\n# TYPE chaosmilter_a gauge\n"

    def test_what_is_right_passes(self):
        parsed = parse(self.FAMILY + 'chaosmilter_a 1\nchaosmilter_a{x="\\"\\\\\\n"} -2.5e-07\n')
        self.assertEqual(parsed["chaosmilter_a", ()], 1)
        self.assertEqual(parsed["chaosmilter_a", (("x", '\\"\\\\\\n'),)], -2.5e-07)

    def test_what_is_wrong_does_not(self):
        wrong = ["", "\n", "chaosmilter_a 1\n", self.FAMILY + "chaosmilter_a 1",
                 self.FAMILY + "chaosmilter_b 1\n", self.FAMILY + "chaosmilter_a 1 \n",
                 self.FAMILY + "chaosmilter_a one\n", self.FAMILY + "chaosmilter_a{} 1\n",
                 self.FAMILY + 'chaosmilter_a{x="\n"} 1\n', self.FAMILY + 'chaosmilter_a{x="""} 1\n',
                 self.FAMILY + 'chaosmilter_a{x="\\x"} 1\n', self.FAMILY + 'chaosmilter_a{x="1",x="2"} 1\n',
                 self.FAMILY + "chaosmilter_a 1\nchaosmilter_a 1\n", self.FAMILY * 2,
                 "# TYPE chaosmilter_a gauge\n", "# HELP chaosmilter_a x\nchaosmilter_a 1\n",
                 self.FAMILY.replace("gauge", "counter"), self.FAMILY.replace("gauge", "histogram") +
                 'chaosmilter_a_bucket{le="1"} 2\nchaosmilter_a_bucket{le="+Inf"} 1\nchaosmilter_a_sum 1\n'
                 "chaosmilter_a_count 1\n"]
        for text in wrong:
            with self.assertRaises(Malformed, msg=text):
                parse(text)


# ---------------------------------------------------------------- one filter

class Filter(LabTestCase):
    @classmethod
    def make_lab(cls):
        cls.port = PORTS.take()
        lab = Lab(LAB_METRICS_PORT=str(cls.port))
        lab.up()
        return lab

    def ask(self, head, half_close=False):
        """Bytes in, and all bytes out."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.settimeout(8)
            client.sendall(head)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while (piece := client.recv(65536)):
                    answer += piece
            except ConnectionResetError:
                pass
            return answer

    def page(self):
        answer = self.ask(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % self.port)
        head, _, body = answer.decode().partition("\r\n\r\n")
        self.assertEqual(head.split("\r\n")[0], "HTTP/1.1 200 OK")
        self.assertIn("Content-Type: " + HEAD, head)
        self.assertIn(f"Content-Length: {len(body)}", head)
        return body

    def metric(self, name, **labels):
        return parse(self.page()).get((name, tuple(labels.items())), 0)

    def test_the_page_is_well_formed(self):
        """H26"""
        page = self.page()
        samples = parse(page)
        self.assertEqual(promtool(page), "")
        for name in ("chaosmilter_armed", "chaosmilter_redis_up"):
            self.assertEqual(samples[name, ()], 1, name)
        for name in ("chaosmilter_rules_stale", "chaosmilter_sequence_lag", "chaosmilter_events_dropped_total",
                     "chaosmilter_alarms", "chaosmilter_held_replies"):
            self.assertEqual(samples[name, ()], 0, name)
        self.assertEqual(samples["chaosmilter_drop_available", (("how", "rst"),)], 1)
        self.assertAlmostEqual(samples["chaosmilter_start_time_seconds", ()], time.time(), delta=120)

    def test_no_address_is_in_it(self):
        """H26: a million inboxes are no more lines than one."""
        inbox = self.inbox("label")
        lines, before = len(self.page().splitlines()), self.metric("chaosmilter_inboxes")
        for i in range(50):
            self.lab.set_chaos(f"x{i}-{inbox}", randomError={"enabled": True})
        self.lab.settle()
        self.assertEqual(self.metric("chaosmilter_inboxes"), before + 50)
        self.assertNotIn("example.com", self.page())
        self.assertLessEqual(len(self.page().splitlines()), lines + 2)
        for i in range(50):
            self.lab.http("DELETE", self.lab.chaos_path(f"x{i}-{inbox}"))
        self.lab.settle()

    def test_faults_by_kind_stage_and_outcome(self):
        inbox = self.inbox("fault")
        self.lab.set_chaos(inbox, randomError={"enabled": True, "errorRate": 1, "errorTypes": ["permanent"]})
        self.lab.settle()
        before = self.metric("chaosmilter_faults_total", kind="error", stage="rcpt", outcome="applied")
        sessions = self.metric("chaosmilter_sessions_total")
        for _ in range(3):
            self.send(inbox)
        self.assertEqual(self.metric("chaosmilter_faults_total", kind="error", stage="rcpt", outcome="applied"),
                         before + 3)
        self.assertGreater(self.metric("chaosmilter_sessions_total"), sessions)

    def test_times_are_histograms(self):
        inbox = self.inbox("slow")
        self.lab.set_chaos(inbox, latency={"enabled": True, "minDelayMs": 300, "maxDelayMs": 300, "jitter": False})
        self.lab.settle()
        before = {name: self.metric(f"chaosmilter_{name}_seconds_count") for name in ("decision", "delay_error")}
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        client.command("DATA")
        client.send_message(make_message())
        wait_until("the reply to be held", lambda: self.metric("chaosmilter_held_replies") == 1, 5)
        client.read_reply()
        wait_until("it to be measured", lambda: self.metric("chaosmilter_held_replies") == 0, 5)
        samples = parse(self.page())
        self.assertEqual(samples["chaosmilter_delay_error_seconds_count", ()], before["delay_error"] + 1)
        self.assertEqual(samples["chaosmilter_decision_seconds_count", ()], before["decision"] + 2)
        mean = samples["chaosmilter_decision_seconds_sum", ()] / samples["chaosmilter_decision_seconds_count", ()]
        self.assertLess(mean, 0.1)
        self.assertGreater(mean, 0)

    def test_redis_away_is_told(self):
        self.lab.redis("CONFIG", "SET", "timeout", "0")
        os.kill(self.lab.pid("redis-server"), 19)
        try:
            wait_until("the filter to notice", lambda: self.metric("chaosmilter_redis_up") == 0, 10)
            self.assertGreaterEqual(self.metric("chaosmilter_alarms"), 1)
        finally:
            os.kill(self.lab.pid("redis-server"), 18)
        wait_until("the filter to come back", lambda: self.metric("chaosmilter_redis_up") == 1, 10)
        wait_until("the alarm to go", lambda: self.metric("chaosmilter_alarms") == 0, 10)

    def test_only_the_page_is_served(self):
        host = b"Host: localhost\r\n\r\n"
        cases = (
            (b"GET / HTTP/1.1\r\n" + host, b"404"), (b"GET /metrics/ HTTP/1.1\r\n" + host, b"404"),
            (b"GET /metrics?x HTTP/1.1\r\n" + host, b"404"), (b"GET  /metrics HTTP/1.1\r\n" + host, b"404"),
            (b"GET http://localhost/metrics HTTP/1.1\r\n" + host, b"404"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n" + host + b"12345", b"405"),
            (b"HEAD /metrics HTTP/1.1\r\n" + host, b"405"), (b"get /metrics HTTP/1.1\r\n" + host, b"405"),
            (b"GET /metrics HTTP/2.0\r\n" + host, b"400"), (b"GET /metrics\r\n" + host, b"400"),
            (b"\r\n\r\n", b"400"), (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /metrics HTTP/1.1\r\nHost:\r\n\r\n", b"400"),
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + host, b"400"),
            (b"GET /metrics HTTP/1.1\r\nX: \0\r\n" + host, b"400"), (b"\0" * 100 + b"\r\n\r\n", b"400"),
            (b"x" * 5000, b"431"), (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 5000 + b"\r\n" + host, b"431"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"))
        for head, status in cases:
            answer = self.ask(head)
            self.assertEqual(answer[9:12], status, head[:60])
            self.assertIn(b"Connection: close", answer)
        for head in (b"GET /metrics HTTP/1.0\r\n" + host, b"GET /metrics HTTP/1.1\r\nhost:   [::1]:9 \r\nX: y\r\n\r\n"):
            self.assertEqual(self.ask(head)[9:12], b"200")
        self.assertEqual(self.ask(b"GET /metrics HTTP/1.1\r\n" + host, half_close=True)[9:12], b"200")

    def test_a_name_that_points_here_is_refused(self):
        """H14"""
        for host, status in ((b"evil.example", b"421"), (b"evil.example:9125", b"421"), (b"127.0.0.1.evil", b"421"),
                             (b"[::1]x", b"421"), (b"[evil]", b"421"), (b"localhost.evil", b"421"),
                             (b"127.0.0.1", b"200"), (b"LOCALHOST:1", b"200"), (b"[::1]", b"200")):
            answer = self.ask(b"GET /metrics HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            self.assertEqual(answer[9:12], status, host)

    def test_those_who_linger_keep_nobody_out(self):
        """H2: half a head, a byte now and then, silence; a hundred of each."""
        lingering = []
        for i in range(100):
            client = socket.create_connection(("127.0.0.1", self.port), 5)
            lingering.append(client)
            client.sendall((b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nX: ")[i % 3])
            if i % 10 == 0:
                self.assertIn("chaosmilter_info", self.page())
        stop = threading.Event()

        def drip():
            while not stop.wait(0.2):
                for client in lingering:
                    try:
                        client.sendall(b"x")
                    except OSError:
                        pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            began = time.monotonic()
            while time.monotonic() - began < 6:
                asked = time.monotonic()
                self.assertIn("chaosmilter_info", self.page())
                self.assertLess(time.monotonic() - asked, 0.5)
                time.sleep(0.1)
        finally:
            stop.set()
            thread.join()
        # Each was let go, at the latest when its time was over.
        for client in lingering:
            client.settimeout(1)
            try:
                while client.recv(65536):
                    pass
            except ConnectionResetError:
                pass
            client.close()

    def test_a_client_that_reads_nothing_is_let_go(self):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", self.port))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            began = time.monotonic()
            while time.monotonic() - began < 6:
                self.assertIn("chaosmilter_info", self.page())
                time.sleep(0.5)

    def test_mail_flows_while_the_page_is_asked_for(self):
        stop = threading.Event()

        def scrape():
            while not stop.is_set():
                self.page()

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            for _ in range(5):
                self.assert_passes(self.inbox("flow"))
        finally:
            stop.set()
            thread.join()


class Port(unittest.TestCase):
    """The setting, without a mail server."""

    once = True

    def run_filter(self, address, wait=True):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        conf = os.path.join(folder.name, "c.conf")
        with open(conf, "w", encoding="ascii") as file:
            file.write(f'milter: {{ socket = "unix:{folder.name}/m"; user = "root"; '
                       f'metrics_listen = "{address}"; }};\n'
                       f'redis: {{ address = "unix:{folder.name}/none"; }};\n')
        build = os.environ.get("LAB_BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
        process = subprocess.Popen([os.path.join(build, "chaosmilter"), "-c", conf], stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(self.end, process)
        if wait:
            wait_until("the filter", lambda: os.path.exists(folder.name + "/m") or process.poll() is not None)
        return process

    @staticmethod
    def end(process):
        process.terminate()
        process.communicate(timeout=10)

    def test_a_taken_port_and_a_bad_address_are_refused(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", PORTS.take()))
            holder.listen()
            process = self.run_filter("127.0.0.1:%d" % holder.getsockname()[1])
            self.assertEqual(process.wait(10), 69)
            self.assertIn("milter.metrics_listen: cannot listen on", process.stderr.read())
        for address in ("localhost:9125", "127.0.0.1", ":9125", "127.0.0.1:0", "[::1:9125", "9125"):
            process = self.run_filter(address)
            self.assertEqual(process.wait(10), 78, address)
            self.assertIn("milter.metrics_listen: must be", process.stderr.read())

    def test_it_is_off_unless_asked_for(self):
        process = self.run_filter("")
        with open(f"/proc/net/tcp", encoding="ascii") as table:
            listening = {line.split()[9] for line in table.readlines()[1:] if line.split()[3] == "0A"}
        own = {os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")}
        self.assertEqual([inode for inode in listening if f"socket:[{inode}]" in own], [])

    def test_ipv6_loopback(self):
        port = PORTS.take()
        self.run_filter(f"[::1]:{port}")
        with socket.create_connection(("::1", port), 5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: [::1]:1\r\n\r\n")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200"))

    def test_an_unarmed_filter_without_redis_says_so(self):
        port = PORTS.take()
        self.run_filter(f"127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page = b"".join(iter(lambda: client.recv(65536), b"")).decode().partition("\r\n\r\n")[2]
        samples = parse(page)
        self.assertEqual(promtool(page), "")
        self.assertEqual([samples["chaosmilter_" + name, ()] for name in ("armed", "redis_up", "sequence")], [0, 0, 0])


# ----------------------------------------------------------------- the fleet

def heartbeat(host, **members):
    return json.dumps({
        "host": host, "pid": 1, "version": "9.9", "started_ms": 1, "time_ms": int(time.time() * 1000), "epoch": "e",
        "seq": 5, "digest": "0", "inboxes": 7, "rules": 2, "broken_total": 1, "broken": [], "alarms": ["one", "two"],
        "armed": True, "hold": "ok", "held": 3, "events_dropped": 4, "unavailable": {},
        "counters": {"sessions": 10, "sessions_open": 6, "messages": 9, "state_failures": 8},
        "histograms": {"decision_seconds": {"bounds_ns": [1000, 2000], "counts": [1, 2, 3], "sum_ns": 1500},
                       "delay_error_seconds": {"bounds_ns": [1000000], "counts": [4, 0], "sum_ns": 0}}, **members})


class Fleet(test_http.Case):
    def setUp(self):
        self.redis.ask("FLUSHALL")

    def page(self):
        answer = self.admin.get("/metrics")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["Content-Type"], HEAD)
        self.assertEqual(promtool(answer.text), "")
        return parse(answer.text)

    def beat(self, host, key=None, **members):
        self.redis.ask("HSET", test_http.PREFIX + ":st:hosts", key or host, heartbeat(host, **members))

    def test_an_empty_fleet(self):
        samples = self.page()
        self.assertEqual(samples["chaosmilter_admin_redis_up", ()], 1)
        self.assertEqual(samples["chaosmilter_admin_armed", ()], 1)
        self.assertEqual(samples["chaosmilter_fleet_sessions_total", ()], 0)
        self.assertFalse([name for name, labels in samples if dict(labels).get("host")])

    def test_totals_come_from_redis(self):
        key = test_http.PREFIX + ":st:totals"
        for name, value in (("connections.total", 11), ("email.received_total", 12), ("email.recipients_total", 13),
                            ("chaos.latency_injected_ms", 1500), ("inbox.created_total", 14),
                            ("faults.error.rcpt.applied", 15), ("faults.drop.message.unavailable", 16),
                            ("faults.moon.rcpt.applied", 17), ("faults", 18), ("x", "y")):
            self.redis.ask("HSET", key, name, value)
        self.admin.post(test_http.chaos_path("a@example.com"), {"enabled": True})
        samples = self.page()
        self.assertEqual(samples["chaosmilter_fleet_sessions_total", ()], 11)
        self.assertEqual(samples["chaosmilter_fleet_messages_total", ()], 12)
        self.assertEqual(samples["chaosmilter_fleet_recipients_total", ()], 13)
        self.assertEqual(samples["chaosmilter_fleet_delay_seconds_total", ()], 1.5)
        self.assertEqual(samples["chaosmilter_fleet_inboxes_created_total", ()], 14)
        self.assertEqual(samples["chaosmilter_fleet_sequence", ()], 1)
        faults = {labels: value for (name, labels), value in samples.items() if name == "chaosmilter_fleet_faults_total"}
        self.assertEqual(faults, {
            (("kind", "error"), ("stage", "rcpt"), ("outcome", "applied")): 15,
            (("kind", "drop"), ("stage", "message"), ("outcome", "unavailable")): 16})

    def test_live_hosts_are_told_and_dead_ones_are_down(self):
        self.redis.ask("SET", test_http.PREFIX + ":epoch", "e")
        self.redis.ask("SET", test_http.PREFIX + ":seq", "8")
        self.beat("mx1/unix:/s")
        self.beat("mx2", seq=9)
        self.beat("old", time_ms=1)
        samples = self.page()
        one, two, old = ((("host", host),) for host in ("mx1/unix:/s", "mx2", "old"))
        for name, value in (("up", 1), ("sequence_lag", 3), ("armed", 1), ("alarms", 2), ("held_replies", 3),
                            ("inboxes", 7), ("rules", 2), ("broken_documents", 1), ("sessions_open", 6),
                            ("sessions_total", 10), ("messages_total", 9), ("state_failures_total", 8),
                            ("events_dropped_total", 4), ("decision_seconds_count", 6),
                            ("decision_seconds_sum", 1.5e-06), ("delay_error_seconds_count", 4)):
            self.assertEqual(samples["chaosmilter_fleet_host_" + name, one], value, name)
        self.assertEqual(samples["chaosmilter_fleet_host_info", one + (("version", "9.9"),)], 1)
        self.assertEqual(samples["chaosmilter_fleet_host_decision_seconds_bucket", one + (("le", "2e-06"),)], 3)
        self.assertEqual(samples["chaosmilter_fleet_host_sequence_lag", two], 0)
        self.assertEqual(samples["chaosmilter_fleet_host_up", old], 0)
        self.assertEqual([name for name, labels in samples if labels == old], ["chaosmilter_fleet_host_up"])

    def test_a_hosts_name_cannot_leave_its_quotes(self):
        """H26"""
        self.beat('mx"} 1\nchaosmilter_forged 1\n\\', key="a")
        samples = self.page()
        self.assertEqual(samples["chaosmilter_fleet_host_up", (("host", '\\"'.join(
            ["mx", "} 1\\nchaosmilter_forged 1\\n\\\\"])),)], 1)

    def test_heartbeats_that_make_no_sense_have_no_samples(self):
        self.beat("same", key="a")
        self.beat("same", key="b", held=5)
        self.beat("odd", key="c", held="x", alarms=7, counters=[], inboxes=None, histograms={
            "decision_seconds": {"bounds_ns": [2, 1], "counts": [1, 2, 3], "sum_ns": 0},
            "delay_error_seconds": {"bounds_ns": list(range(50)), "counts": [0] * 51, "sum_ns": 0}})
        for junk in ("{", "[]", "null", '{"host":5}', '{"host":"' + "x" * 10 + '"}', "\xff"):
            self.redis.ask("HSET", test_http.PREFIX + ":st:hosts", junk, junk)
        samples = self.page()
        odd = (("host", "odd"),)
        self.assertEqual(samples["chaosmilter_fleet_host_up", odd], 1)
        self.assertNotIn(("chaosmilter_fleet_host_held_replies", odd), samples)
        self.assertNotIn(("chaosmilter_fleet_host_decision_seconds_count", odd), samples)
        self.assertIn(samples["chaosmilter_fleet_host_held_replies", (("host", "same"),)], (3, 5))

    def test_a_thousand_hosts_do_not_break_it(self):
        beats = [word for i in range(1000) for word in (f"mx{i}", heartbeat(f"mx{i}"))]
        self.redis.ask("HSET", test_http.PREFIX + ":st:hosts", *beats)
        samples = self.page()
        self.assertEqual(sum(name == "chaosmilter_fleet_host_up" for name, _ in samples), 500)

    def test_needs_the_key_as_header_bearer_or_password(self):
        """H27: unlike /livez it says something."""
        self.assertEqual(self.admin.get("/metrics", key=None).status, 401)
        answer = self.admin.get("/metrics", key=None, Authorization="Bearer " + self.admin.key)
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.admin.post("/metrics", {}).status, 405)

    def test_host_is_checked(self):
        """H14"""
        reply, _ = self.admin.raw(f"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nX-API-Key: {self.admin.key}\r\n\r\n"
                                  .encode())
        self.assertTrue(reply.startswith(b"HTTP/1.1 421 "), reply[:80])

    def test_redis_away_is_a_page_that_says_so(self):
        redis = self.new_redis()
        admin = self.new_admin(redis)
        redis.kill()
        answer = admin.get("/metrics")
        self.assertEqual(answer.status, 200)
        samples = parse(answer.text)
        self.assertEqual(samples["chaosmilter_admin_redis_up", ()], 0)
        self.assertFalse([name for name, _ in samples if "fleet" in name])


class Together(LabTestCase):
    """A real filter, seen from the admin daemon."""

    def test_the_fleet_page_agrees_with_what_happened(self):
        inbox = self.inbox("fleet")
        self.lab.set_chaos(inbox, greylist={"enabled": True})
        self.lab.settle()
        self.send(inbox)
        self.send(inbox)

        def page():
            answer = self.lab.http("GET", "/metrics")
            self.assertEqual(answer.status, 200)
            self.assertEqual(promtool(answer.text), "")
            return parse(answer.text)

        key = ("chaosmilter_fleet_faults_total",
               (("kind", "greylist"), ("stage", "rcpt"), ("outcome", "applied")))
        wait_until("the greylisting to be counted", lambda: page().get(key) == 1, 5)
        samples = page()
        (host,) = [labels for name, labels in samples if name == "chaosmilter_fleet_host_up"]
        self.assertEqual(samples["chaosmilter_fleet_host_up", host], 1)
        self.assertEqual(samples["chaosmilter_fleet_host_sequence_lag", host], 0)
        wait_until("a heartbeat with the times", lambda: page().get(
            ("chaosmilter_fleet_host_decision_seconds_count", host), 0) > 0, 5)
        old = self.lab.http("GET", "/api/metrics").json
        self.assertEqual(old["chaos"]["greylist_rejections_total"], 1, "VaultSandbox's names are still there")


if __name__ == "__main__":
    unittest.main()
