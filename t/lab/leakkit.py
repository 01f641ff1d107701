# SPDX-License-Identifier: BSD-2-Clause
"""Where a password may have been left: the logs, the status, all that Redis was
ever told, and all that the filter remembers."""
import base64
import os


class LeakCase:
    """To be mixed into a LabTestCase that names its password."""

    def assert_kept_nowhere(self):
        for name in ("chaosmilter", "chaosadmin"):
            self.assert_nowhere(name + ".log", self.lab.log(name).encode())
        self.assert_nowhere("status", str(self.lab.status()).encode())
        with open(self.lab.dir + "/redis/redis.conf", "rb") as conf:
            self.assertIn(b"appendonly yes", conf.read())
        self.assert_nowhere("Redis", self.whole_redis())
        for span in self.memory_of(self.lab.pid("chaosmilter")):
            self.assert_nowhere("memory", span)

    def assert_nowhere(self, where, data):
        for what in self.forms():
            self.assertFalse(what in data, where)

    def forms(self):
        """As it is, and in base64 wherever it may begin in a group."""
        raw = self.password.encode()
        yield raw
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + raw)
            yield text[4 if shift else 0:-4]

    def test_the_search_finds_what_is_there(self):
        """Or the test above would prove nothing."""
        inbox = self.inbox()
        self.lab.set_chaos(inbox, description=self.password)
        self.lab.settle()
        memory = self.memory_of(self.lab.pid("chaosmilter"))
        for place in ([self.whole_redis()], memory):
            self.assertTrue(any(what in span for span in place
                                for what in self.forms()))
        self.lab.http("DELETE", self.lab.chaos_path(inbox))

    def whole_redis(self):
        """Every command that Redis has taken, as its append-only file."""
        data = b""
        for folder, _, names in os.walk(self.lab.dir + "/redis"):
            for name in names:
                if name.endswith((".aof", ".rdb")):
                    with open(os.path.join(folder, name), "rb") as file:
                        data += file.read()
        self.assertIn(b"XADD", data)
        return data

    @staticmethod
    def memory_of(pid):
        """What it may write to, span by span, but for the terabytes that a
        sanitizer reserves."""
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps, \
                open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                span, rights = line.split()[:2]
                begin, end = (int(part, 16) for part in span.split("-"))
                if not rights.startswith("rw") or end - begin > 1 << 26:
                    continue
                try:
                    memory.seek(begin)
                    yield memory.read(end - begin)
                except OSError:
                    pass    # [vvar] and the like
