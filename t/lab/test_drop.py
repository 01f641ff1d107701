# SPDX-License-Identifier: BSD-2-Clause
"""The client's TCP connection, cut on the wire: FIN or RST, and no byte."""
import concurrent.futures
import json
import os
import signal
import socket
import ssl
import time
import unittest

from labkit import Gone, LabTestCase, make_message, wait_until

FIN = {"connectionDrop": {"enabled": True, "graceful": True}}
RST = {"connectionDrop": {"enabled": True, "graceful": False}}


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


class DropCase(LabTestCase):

    def configure(self, **config):
        inbox = self.inbox("drop")
        self.lab.set_chaos(inbox, **config)
        self.lab.settle()
        return inbox

    def rule(self, name, **rule):
        answer = self.lab.redis_cli("FCALL", "cm_set", "0", "rule", name,
                                    json.dumps(rule))
        self.assertNotIn("ERR", answer)
        self.addCleanup(self.lab.redis_cli, "FCALL", "cm_del", "0", "rule", name)
        self.lab.settle()

    def assert_cut(self, how, act):
        """act() finds the connection gone as told, and not one byte before."""
        with self.assertRaises(Gone) as caught:
            act()
        self.assertEqual(str(caught.exception), how)
        self.assertEqual(self.clients[-1].buffer, b"")

    def transaction(self, *recipients, **options):
        client = self.smtp(**options)
        self.assertEqual(client.mail().code, 250)
        for recipient in recipients:
            self.assertEqual(client.rcpt(recipient).code, 250)
        self.assertEqual(client.command("DATA").code, 354)
        return client


class Wire(DropCase):

    def test_drop_cuts_after_the_message_and_the_message_is_lost(self):
        for how, config in (("FIN", FIN), ("RST", RST)):
            with self.subTest(how=how):
                inbox = self.configure(**config)
                client = self.transaction(inbox)
                self.assert_cut(how, lambda: client.message(make_message()))
                event = self.lab.wait_incident(inbox, "drop")
                self.assertEqual(event["outcome"], "applied")
                self.assertEqual(event["detail"], how + ", message lost")
                self.assertEqual(event["reply"], "")
                self.assert_not_delivered(inbox)

    @unittest.skipUnless(has_ipv6(), "no IPv6 loopback")
    def test_drop_over_ipv6(self):
        for how, config in (("FIN", FIN), ("RST", RST)):
            with self.subTest(how=how):
                inbox = self.configure(**config)
                client = self.transaction(inbox, host="::1")
                self.assert_cut(how, lambda: client.message(make_message()))
                self.assert_not_delivered(inbox)

    def test_drop_under_tls_ends_the_tcp_connection(self):
        for how, config in (("FIN", FIN), ("RST", RST)):
            with self.subTest(how=how):
                inbox = self.configure(**config)
                client = self.smtp()
                self.assertEqual(client.command("STARTTLS").code, 220)
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                plain = client.socket
                # Over memory, so that the raw socket stays ours to look at.
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(incoming, outgoing)

                def pump(step):
                    while True:
                        try:
                            result = step()
                            plain.sendall(outgoing.read())
                            return result
                        except ssl.SSLWantReadError:
                            plain.sendall(outgoing.read())
                            incoming.write(plain.recv(65536))

                def say(line, code):
                    pump(lambda: tls.write(line + b"\r\n"))
                    reply = pump(lambda: tls.read(65536))
                    while reply.rstrip(b"\r\n").split(b"\r\n")[-1][3:4] == b"-":
                        reply += pump(lambda: tls.read(65536))
                    self.assertTrue(reply.startswith(code), reply)

                pump(tls.do_handshake)
                say(b"EHLO client.example", b"250")
                say(b"MAIL FROM:<s@example.org>", b"250")
                say(b"RCPT TO:<%s>" % inbox.encode(), b"250")
                say(b"DATA", b"354")
                pump(lambda: tls.write(make_message() + b".\r\n"))
                if how == "RST":
                    with self.assertRaises(ConnectionResetError):
                        plain.recv(65536)
                else:
                    self.assertEqual(plain.recv(65536), b"")
                self.assert_not_delivered(inbox)

    def test_drop_takes_the_other_recipients_along_and_says_how_many(self):
        inbox, other = self.configure(**RST), self.inbox("other")
        client = self.transaction(other, inbox)
        self.assert_cut("RST", lambda: client.message(make_message()))
        self.assertEqual(
            int(self.lab.wait_incident(inbox, "drop")["others"]), 1)
        self.assert_not_delivered(other)

    def test_drop_spares_a_message_to_postmaster(self):
        inbox = self.configure(**RST)
        message = make_message()
        client = self.transaction(inbox, "postmaster@example.com")
        self.assertEqual(client.message(message).code, 250)
        self.assert_delivered(inbox, message)
        self.assertEqual(
            self.lab.wait_incident(inbox, "drop")["outcome"], "unavailable")

    def test_retry_after_the_chaos_is_over_is_delivered_once(self):
        inbox = self.configure(**FIN)
        message = make_message()
        client = self.transaction(inbox)
        self.assert_cut("FIN", lambda: client.message(message))
        self.lab.http("DELETE", self.lab.chaos_path(inbox))
        self.lab.settle()
        self.assertEqual(self.transaction(inbox).message(message).code, 250)
        self.assert_delivered(inbox, message)

    def test_ack_lost_is_delivered_though_the_client_saw_nothing(self):
        for how in ("fin", "rst"):
            with self.subTest(how=how):
                inbox = self.inbox("ack")
                self.rule("ack-" + how, inbox=inbox, fault={
                    "kind": "drop", "how": how, "outcome": "ackLost"})
                message = make_message()
                client = self.transaction(inbox)
                self.assert_cut(how.upper(), lambda: client.message(message))
                self.assert_delivered(inbox, message)
                event = self.lab.wait_incident(inbox, "drop")
                self.assertEqual(event["detail"],
                                 how.upper() + ", acknowledgement lost")

    def test_rules_cut_at_mail_rcpt_and_data(self):
        for how in ("fin", "rst"):
            for stage in ("mail", "rcpt", "data"):
                with self.subTest(how=how, stage=stage):
                    sender = f"{how}-{stage}@example.org"
                    self.rule(f"at-{how}-{stage}", stage=stage, sender=sender,
                              fault={"kind": "drop", "how": how})
                    inbox = self.inbox("stage")
                    client = self.smtp()
                    steps = {"mail": lambda: client.mail(sender),
                             "rcpt": lambda: client.rcpt(inbox),
                             "data": lambda: client.command("DATA")}
                    for name, step in steps.items():
                        if name == stage:
                            self.assert_cut(how.upper(), step)
                            break
                        self.assertLess(step().code, 400)

    def test_bystander_in_another_session_is_untouched(self):
        inbox = self.configure(**RST)
        bystander = self.transaction(self.inbox("calm"))
        client = self.transaction(inbox)
        self.assert_cut("RST", lambda: client.message(make_message()))
        self.assertEqual(bystander.message(make_message()).code, 250)

    def test_client_that_left_first_costs_nobody_the_listener(self):
        inbox = self.configure(**RST)
        for _ in range(20):
            client = self.transaction(inbox)
            client.send_message(make_message())
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                     b"\1\0\0\0\0\0\0\0")
            client.close()
        self.assert_passes(self.inbox("after"))


class Counts(DropCase):
    """Eight clients at once, 50 messages each, FIN and RST by turns."""

    seconds = 40

    def run_clients(self, inboxes):
        def one(n):
            cut = 0
            for i in range(50):
                client = self.transaction(inboxes[(n + i) % 2])
                try:
                    client.message(make_message())
                except Gone:
                    cut += client.buffer == b""
                client.close()
            return cut
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return sum(pool.map(one, range(8)))

    def test_400_lost_messages_are_all_cut_and_none_is_delivered(self):
        inboxes = self.configure(**FIN), self.configure(**RST)
        self.assertEqual(self.run_clients(inboxes), 400)
        self.lab.wait_idle()
        self.assertEqual([len(self.lab.mail(i)) for i in inboxes], [0, 0])
        self.assert_passes(self.inbox("after"))

    def test_400_lost_acks_are_all_cut_and_each_is_delivered_once(self):
        inboxes = self.inbox("ack"), self.inbox("ack")
        for inbox, how in zip(inboxes, ("fin", "rst")):
            self.rule("ack-" + how, inbox=inbox, fault={
                "kind": "drop", "how": how, "outcome": "ackLost"})
        self.assertEqual(self.run_clients(inboxes), 400)
        for inbox in inboxes:
            self.lab.wait_mail(inbox, 200, timeout=30)
        self.lab.wait_idle()
        self.assertEqual([len(self.lab.mail(i)) for i in inboxes], [200, 200])


class Dropper(DropCase):
    """The process that does it."""

    def children(self, pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]

    def capabilities(self, pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return {line.split(":")[0]: int(line.split(":")[1], 16)
                    for line in file if line.startswith("Cap")}

    def family(self):
        milter = self.lab.pid("chaosmilter")
        keeper, = self.children(milter)
        worker, = self.children(keeper)
        return milter, keeper, worker

    def test_only_the_dropper_has_capabilities_and_only_its_two(self):
        milter, keeper, worker = self.family()
        self.assertEqual(self.capabilities(milter)["CapEff"], 0)
        self.assertEqual(self.capabilities(milter)["CapPrm"], 0)
        wanted = 1 << 12 | 1 << 19  # CAP_NET_ADMIN, CAP_SYS_PTRACE
        for pid in (keeper, worker):
            for which in ("CapEff", "CapPrm"):
                self.assertEqual(self.capabilities(pid)[which], wanted)
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                self.assertIn("NoNewPrivs:\t1", file.read())

    def test_killed_worker_is_replaced_and_drops_go_on(self):
        inbox = self.configure(**RST)
        _, _, worker = self.family()
        os.kill(worker, signal.SIGKILL)
        wait_until("a new worker", lambda: len(self.family_or_none()) == 3
                   and self.family_or_none()[2] != worker)
        time.sleep(0.2)
        client = self.transaction(inbox)
        self.assert_cut("RST", lambda: client.message(make_message()))

    def family_or_none(self):
        try:
            return self.family()
        except ValueError:
            return ()


class WithoutDropper(DropCase):

    def test_dead_dropper_means_unavailable_mail_passes_and_status_says_so(self):
        status = self.lab.status()["hosts"][0]["unavailable"]
        self.assertNotIn("drop.rst", status)
        self.assertNotIn("drop.fin", status)
        milter = self.lab.pid("chaosmilter")
        with open(f"/proc/{milter}/task/{milter}/children",
                  encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        wait_until("status to say so", lambda: "drop.rst" in
                   self.lab.status()["hosts"][0]["unavailable"])
        for config in (FIN, RST):
            inbox = self.configure(**config)
            self.assert_passes(inbox)
            event = self.lab.wait_incident(inbox, "drop")
            self.assertEqual(event["outcome"], "unavailable")
            self.assertEqual(event["reply"], "")


if __name__ == "__main__":
    unittest.main()
