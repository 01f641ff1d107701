# SPDX-License-Identifier: BSD-2-Clause
"""chaosmilter as a process, without an MTA: starting, ending, and what it is
started with. Redis is away throughout, which must not matter."""
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from labkit import wait_until

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("LAB_BUILD", os.path.join(TOP, "build"))
BINARY = os.path.join(BUILD, "chaosmilter")


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Daemon(unittest.TestCase):

    once = True

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        self.folder = folder.name
        self.socket = os.path.join(self.folder, "m.sock")
        self.conf = os.path.join(self.folder, "c.conf")
        self.configure()

    def configure(self, more=""):
        with open(self.conf, "w", encoding="ascii") as conf:
            conf.write(f"""armed = true;
milter: {{ socket = "unix:{self.socket}"; user = "root"; {more} }};
redis: {{ address = "unix:{self.folder}/none.sock"; }};
""")

    def start(self, wait=True, **how):
        how.setdefault("stderr", subprocess.DEVNULL)
        daemon = subprocess.Popen([BINARY, "-c", self.conf],
                                  stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, **how)
        self.addCleanup(self.make_sure_it_ended, daemon)
        if wait:
            wait_until("the listener", self.answers)
        return daemon

    @staticmethod
    def make_sure_it_ended(daemon):
        if daemon.poll() is None:
            daemon.kill()
        daemon.wait()

    def answers(self):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.socket)
            except OSError:
                return False
            return True

    def end(self, daemon, signum=signal.SIGTERM):
        begin = time.monotonic()
        daemon.send_signal(signum)
        status = daemon.wait(timeout=10)
        self.assertLess(time.monotonic() - begin, 1.0)
        return status

    def test_each_ending_signal_ends_it_cleanly_within_a_second(self):
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signum=signum):
                daemon = self.start()
                self.assertEqual(self.end(daemon, signum), 0)
                self.assertFalse(os.path.exists(self.socket))

    def test_sigterm_at_any_moment_of_the_start_is_a_clean_end(self):
        for i in range(60):
            daemon = self.start(wait=False)
            time.sleep(0.0005 * i)
            daemon.send_signal(signal.SIGTERM)
            status = daemon.wait(timeout=10)
            # Before its handlers are there the signal itself ends it.
            self.assertIn(status, (0, -signal.SIGTERM))
            if status == 0:
                self.assertFalse(os.path.exists(self.socket))
            elif os.path.exists(self.socket):
                os.unlink(self.socket)

    def test_second_instance_on_the_socket_is_refused(self):
        first = self.start()
        second = subprocess.run([BINARY, "-c", self.conf], timeout=10,
                                capture_output=True, text=True, check=False)
        self.assertEqual(second.returncode, 69)
        self.assertIn("another process already listens", second.stderr)
        self.assertTrue(self.answers())
        self.assertEqual(self.end(first), 0)

    def test_stale_socket_is_replaced_and_another_file_is_left_alone(self):
        daemon = self.start()
        daemon.kill()
        daemon.wait()
        self.assertTrue(os.path.exists(self.socket))
        self.assertEqual(self.end(self.start()), 0)
        with open(self.socket, "w", encoding="ascii") as other:
            other.write("mine")
        refused = subprocess.run([BINARY, "-c", self.conf], timeout=10,
                                 capture_output=True, text=True, check=False)
        self.assertEqual(refused.returncode, 69)
        with open(self.socket, encoding="ascii") as other:
            self.assertEqual(other.read(), "mine")

    def test_group_that_does_not_exist_leaves_no_socket(self):
        self.configure('socket_group = "no-such-group";')
        refused = subprocess.run([BINARY, "-c", self.conf], timeout=10,
                                 capture_output=True, text=True, check=False)
        self.assertEqual(refused.returncode, 78)
        self.assertIn("no-such-group", refused.stderr)
        self.assertFalse(os.path.exists(self.socket))

    def test_socket_has_the_mode_of_the_settings(self):
        self.configure('socket_mode = "0620";')
        self.start()
        self.assertEqual(os.stat(self.socket).st_mode & 0o777, 0o620)

    def test_closed_standard_descriptors_do_not_matter(self):
        for closed in ("<&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
            with self.subTest(closed=closed):
                daemon = subprocess.Popen(
                    ["sh", "-c", f'exec "$0" -c "$1" {closed}', BINARY, self.conf],
                    stderr=subprocess.DEVNULL)
                self.addCleanup(self.make_sure_it_ended, daemon)
                wait_until("the listener", self.answers)
                time.sleep(0.3)
                self.assertIsNone(daemon.poll(), "it ended by itself")
                self.assertEqual(self.end(daemon), 0)

    def test_reader_of_stderr_that_stalls_does_not_stall_it(self):
        stalled, stderr = os.pipe()
        self.addCleanup(os.close, stalled)
        daemon = self.start(stderr=stderr)
        os.close(stderr)
        # Each reload is a line in the log: more than the pipe holds.
        for _ in range(1500):
            daemon.send_signal(signal.SIGUSR1)
            time.sleep(0.0005)
        self.assertTrue(self.answers())
        self.assertEqual(self.end(daemon), 0)

    def test_sigusr1_in_masses_neither_blocks_nor_leaks(self):
        daemon = self.start()
        for _ in range(100000):
            daemon.send_signal(signal.SIGUSR1)
        self.assertTrue(self.answers())
        # One or two come and go with each try to reach Redis.
        self.assertLess(len(os.listdir(f"/proc/{daemon.pid}/fd")), 30)
        self.assertEqual(self.end(daemon), 0)

    def test_no_descriptor_left_waits_instead_of_spinning(self):
        daemon = self.start(preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (64, 64)))
        clients = []
        for _ in range(120):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.settimeout(1)
            client.connect(self.socket)
            clients.append(client)
        before = cpu_ticks(daemon.pid)
        time.sleep(2)
        # A spin takes all of two seconds, 200 ticks.
        self.assertLess(cpu_ticks(daemon.pid) - before, 60)
        for client in clients:
            client.close()
        self.assertTrue(self.answers())
        self.assertEqual(self.end(daemon), 0)

    def test_bad_settings_name_file_and_line_and_exit_78(self):
        with open(self.conf, "a", encoding="ascii") as conf:
            conf.write('surprise = 1;\n')
        for arguments in (["-n"], []):
            done = subprocess.run([BINARY, *arguments, "-c", self.conf],
                                  timeout=10, capture_output=True, text=True,
                                  check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(f"{self.conf}:4: surprise", done.stderr)


if __name__ == "__main__":
    unittest.main()
