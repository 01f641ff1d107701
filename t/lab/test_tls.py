# SPDX-License-Identifier: BSD-2-Clause
"""H29: chaosadmin by HTTPS, and every way to get that wrong told at start. It
needs no Redis: what is looked at answers without."""
import hashlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import unittest

from labkit import PORTS, wait_until

ADMIN = os.environ.get("CHAOSADMIN")
KEY = "cm_" + "0" * 64
EXIT_CONFIG = 78


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Tls(unittest.TestCase):
    once = True
    seconds = 10

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="cm-tls-")
        for name in ("a", "b"):
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                    "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", cls.path(name + ".key"), "-out", cls.path(name + ".crt"))
            os.chmod(cls.path(name + ".key"), 0o600)
        openssl("pkey", "-in", cls.path("a.key"), "-aes128", "-passout", "pass:x",
                "-out", cls.path("locked.key"))
        os.chmod(cls.path("locked.key"), 0o600)
        shutil.copy(cls.path("a.key"), cls.path("open.key"))
        os.chmod(cls.path("open.key"), 0o644)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.dir, name)

    def configure(self, certificate, key):
        port = PORTS.take()
        conf = self.path("admin.conf")
        with open(conf, "w", encoding="ascii") as out:
            out.write(f"""
redis: {{ address = "unix:{self.dir}/none.sock"; }};
admin: {{
    listen = "127.0.0.1:{port}";
    user = "nobody";
    api_keys = [ "sha256:{hashlib.sha256(KEY.encode()).hexdigest()}" ];
    tls_certificate = "{certificate}";
    tls_key = "{key}";
}};
""")
        return conf, port

    def start(self):
        conf, port = self.configure(self.path("a.crt"), self.path("a.key"))
        with open(self.path("log"), "ab") as log:
            process = subprocess.Popen([ADMIN, "-c", conf], stderr=log)

        def end():
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(10), 0)

        self.addCleanup(end)

        def answers():
            try:
                return self.get(port, "/livez").status == 200
            except OSError:
                return False

        wait_until("the daemon to answer", answers)
        return port

    def context(self, **versions):
        context = ssl.create_default_context(cafile=self.path("a.crt"))
        for name, version in versions.items():
            setattr(context, name, version)
        return context

    def get(self, port, path, context=None, **headers):
        connection = http.client.HTTPSConnection(
            "localhost", port, timeout=10, context=context or self.context())
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.body = response.read()
            return response
        finally:
            connection.close()

    def test_answers_by_both_versions_of_tls_that_are_good(self):
        port = self.start()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version):
                context = self.context(minimum_version=version,
                                       maximum_version=version)
                self.assertEqual(self.get(port, "/livez", context).status, 200)
                answer = self.get(port, "/api/check-key", context,
                                  **{"X-API-Key": KEY})
                self.assertEqual((answer.status, answer.body), (200, b'{"ok":true}'))
                self.assertEqual(self.get(port, "/api/check-key", context).status, 401)

    def test_refuses_older_versions(self):
        port = self.start()
        context = self.context(minimum_version=ssl.TLSVersion.TLSv1,
                               maximum_version=ssl.TLSVersion.TLSv1_1)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with self.assertRaises(ssl.SSLError):
            self.get(port, "/livez", context)
        self.assertEqual(self.get(port, "/livez").status, 200)

    def test_plain_http_gets_no_answer(self):
        port = self.start()
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                self.assertNotIn(b"HTTP/", plain.recv(4096))
            except ConnectionResetError:
                pass
        self.assertEqual(self.get(port, "/livez").status, 200)

    def test_key_is_in_no_log(self):
        port = self.start()
        self.get(port, "/livez")
        with open(self.path("a.key"), encoding="ascii") as key, \
                open(self.path("log"), encoding="utf-8") as log:
            text = log.read()
            for line in key.read().splitlines()[1:-1]:
                self.assertNotIn(line, text)

    def test_mistakes_are_told_at_start_and_by_the_check(self):
        good, key = self.path("a.crt"), self.path("a.key")
        mistakes = {
            "admin.tls_key is missing": (good, ""),
            "admin.tls_certificate is missing": ("", key),
            "No such file": (self.path("none.crt"), key),
            "holds no certificate": (key, key),
            "holds no private key": (good, self.path("locked.key")),
            "key of another certificate": (good, self.path("b.key")),
            "read by everybody": (good, self.path("open.key")),
        }
        for said, (certificate, private) in mistakes.items():
            for options in (["-n"], []):
                with self.subTest(said, options=options):
                    conf, _ = self.configure(certificate, private)
                    done = subprocess.run(
                        [ADMIN, *options, "-c", conf], text=True, timeout=20,
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, check=False)
                    self.assertEqual(done.returncode, EXIT_CONFIG, done.stdout)
                    self.assertIn(said, done.stdout)
                    self.assertIn("admin.tls_", done.stdout)
                    self.assertEqual(len(done.stdout.splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
