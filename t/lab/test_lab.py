# SPDX-License-Identifier: BSD-2-Clause
"""The lab itself: contrib/lab up, down, status, send, logs, env."""
import base64
import glob
import os
import signal
import socket
import stat
import unittest

from labkit import (Lab, LabTestCase, Smtp, content_of, is_running, make_message,
                    processes_of, wait_until)
from mtas import MTA, MTAS

DAEMONS = ("redis-server", "lab-maildir", "chaosmilter", "chaosadmin",
           *MTA.daemons)


def pids(lab):
    return {name: lab.pid(name) for name in DAEMONS}


class OwnLab(unittest.TestCase):
    """Tests that take a lab through its life."""

    apart = True
    seconds = 10

    def make(self, **options):
        lab = Lab(**options)
        self.addCleanup(lab.down)
        return lab

    def test_up_twice_restarts_nothing(self):
        lab = self.make()
        lab.up()
        before = pids(lab)
        self.assertIn("Already up", lab.up())
        self.assertEqual(pids(lab), before)

    def test_up_after_kill_revives_only_what_died(self):
        lab = self.make()
        lab.up()
        lab.set_chaos("kept@example.com", randomError={"enabled": True,
                                                        "errorRate": 1})
        for name in DAEMONS:
            with self.subTest(killed=name):
                before = pids(lab)
                lab.kill_and_wait(name)
                self.assertEqual(lab.run("status")[0], 1)
                lab.up()
                after = pids(lab)
                for other in DAEMONS:
                    check = self.assertNotEqual if other == name else \
                        self.assertEqual
                    check(after[other], before[other], other)
                self.assertEqual(lab.run("status")[0], 0)
                wait_until("the rule to be in force again",
                           lambda: rcpt_code(lab, "kept@example.com") >= 400)
                self.assertEqual(rcpt_code(lab, "other@example.com"), 250)

    def test_up_after_stop_signal_starts_anew_what_hangs(self):
        lab = self.make()
        lab.up()
        for name in ("redis-server", "chaosmilter", "chaosadmin"):
            with self.subTest(stopped=name):
                before = pids(lab)
                lab.kill(name, signal.SIGSTOP)
                lab.up()
                self.assertNotEqual(lab.pid(name), before[name])
                self.assertFalse(is_running(before[name]))
                self.assertEqual(rcpt_code(lab, "other@example.com"), 250)

    def test_down_leaves_no_process_and_no_file(self):
        lab = Lab()
        self.addCleanup(lab.run, "down")
        lab.up()
        folder = lab.dir
        running = processes_of(folder)
        self.assertGreaterEqual(len(running), len(DAEMONS))
        lab.down()
        self.assertFalse(os.path.lexists(folder))
        self.assertEqual([pid for pid in running if is_running(pid)], [])
        self.assertEqual(processes_of(folder), [])

    def test_two_labs_side_by_side_do_not_meet(self):
        one, two = self.make(), self.make()
        one.up()
        two.up()
        one.set_chaos("a@example.com", randomError={"enabled": True,
                                                     "errorRate": 1})
        one.settle()
        self.assertGreaterEqual(rcpt_code(one, "a@example.com"), 400)
        self.assertEqual(rcpt_code(two, "a@example.com"), 250)
        two.run("down")
        self.assertEqual(one.run("status")[0], 0)
        self.assertGreaterEqual(rcpt_code(one, "a@example.com"), 400)

    def test_folder_that_others_cannot_reach_becomes_a_link(self):
        lab = self.make()
        private = os.path.join(lab.base, "private")
        os.mkdir(private, 0o700)
        lab.dir = lab.environ["LAB_DIR"] = os.path.join(private, "lab")
        lab.up()
        target = os.path.realpath(lab.dir)
        self.assertTrue(os.path.islink(lab.dir))
        self.assertTrue(target.startswith("/var/tmp/"), target)
        self.assertEqual(rcpt_code(lab, "a@example.com"), 250)
        lab.run("down")
        self.assertFalse(os.path.lexists(lab.dir))
        self.assertFalse(os.path.exists(target))

    def test_folder_with_blanks_and_a_long_path_works(self):
        lab = self.make()
        lab.dir = lab.environ["LAB_DIR"] = os.path.join(
            lab.base, "a folder", "long" * 20, "lab")
        lab.up()
        self.assertEqual(rcpt_code(lab, "a@example.com"), 250)
        lab.run("down")
        self.assertFalse(os.path.lexists(lab.dir))

    def test_choices_are_remembered_until_another_is_made(self):
        lab = self.make(armed=False)
        lab.up()
        lab.kill_and_wait("chaosmilter")
        output = lab.up(LAB_ARMED="", LAB_SMTP_PORT="", LAB_HTTP_PORT="",
                        LAB_SUBMISSION_PORT="")
        self.assertIn("Started: chaosmilter\n", output)
        self.assertEqual(lab.env["SMTP_PORT"], str(lab.smtp_port))
        self.assertEqual(lab.http("POST", lab.chaos_path("a@example.com"),
                                  {"enabled": True}).status, 403)
        output = lab.up(LAB_ARMED="true")
        self.assertIn("Started: chaosmilter chaosadmin\n", output)
        lab.set_chaos("a@example.com", blackhole={"enabled": True})


    def test_up_with_the_other_mail_server_replaces_it(self):
        lab = self.make()
        lab.up()
        other, = set(MTAS) - {MTA.name}
        before = pids(lab)
        kept = [lab.pid(name) for name in ("redis-server", "lab-maildir")]
        for arguments in (["--mta", other], []):
            status, output = lab.run("up", *arguments, LAB_MTA="")
            self.assertEqual(status, 0, output)
            lab.read_env()
            self.assertEqual(lab.env["MTA"], other)
            self.assertFalse(is_running(before[MTA.daemons[-1]]))
            self.assertEqual(lab.run("status", LAB_MTA="")[0], 0)
            self.assertEqual(rcpt_code(lab, "a@example.com"), 250)
        self.assertIn("Already up", output)
        self.assertEqual(
            [lab.pid(name) for name in ("redis-server", "lab-maildir")], kept)
        lab.run("down")
        self.assertEqual(processes_of(lab.dir), [])


def rcpt_code(lab, recipient):
    client = Smtp(lab.smtp_port)
    try:
        client.ehlo()
        client.mail()
        return client.rcpt(recipient).code
    finally:
        client.close()


class Refusals(unittest.TestCase):
    """What up must not do."""

    once = True

    def test_folder_with_other_things_is_left_alone(self):
        lab = Lab()
        self.addCleanup(lab.down)
        os.mkdir(lab.dir)
        mine = os.path.join(lab.dir, "mine")
        with open(mine, "w", encoding="ascii") as file:
            file.write("precious")
        status, output = lab.run("up")
        self.assertEqual(status, 1)
        self.assertIn("holds other things", output)
        self.assertEqual(lab.run("down")[0], 0)
        self.assertTrue(os.path.exists(mine))

    def test_taken_port_names_the_variable_and_the_holder(self):
        for variable in ("LAB_SMTP_PORT", "LAB_SUBMISSION_PORT", "LAB_HTTP_PORT"):
            with self.subTest(variable), socket.socket() as holder:
                lab = Lab()
                self.addCleanup(lab.down)
                holder.bind(("127.0.0.1", int(lab.environ[variable])))
                holder.listen()
                status, output = lab.run("up")
                self.assertEqual(status, 1)
                self.assertIn(variable, output)
                self.assertIn(f"(pid {os.getpid()})", output)

    def test_bad_values_are_named(self):
        lab = Lab()
        self.addCleanup(lab.down)
        for variable, value in (("LAB_SMTP_PORT", "70000"),
                                ("LAB_HTTP_PORT", "http"),
                                ("LAB_METRICS_PORT", "some"),
                                ("LAB_ARMED", "maybe"), ("LAB_MTA", "exim")):
            with self.subTest(variable):
                status, output = lab.run("up", **{variable: value})
                self.assertEqual(status, 1)
                self.assertIn(variable, output)

    def test_commands_without_a_lab_say_so(self):
        lab = Lab()
        self.addCleanup(lab.down)
        for command in ("status", "logs", "env"):
            status, output = lab.run(command)
            self.assertEqual(status, 1)
            self.assertIn("no lab in", output)
        self.assertEqual(lab.run("down"), (0, f"No lab in {lab.dir}.\n"))


class Face(LabTestCase):
    """What a lab offers while it is up."""

    def test_env_has_every_variable(self):
        status, output = self.lab.run("env")
        self.assertEqual(status, 0)
        names = [line.split("=", 1)[0] for line in output.splitlines()]
        self.assertEqual(sorted(names), sorted(
            "SMTP_HOST SMTP_PORT SUBMISSION_PORT HTTP_URL API_KEY REDIS_SOCKET "
            "MAIL_DIR MTA MILTER_SOCKET MILTER_PID ADMIN_PID".split()))
        self.assertEqual(self.lab.env["MTA"], MTA.name)
        self.assertEqual(int(self.lab.env["MILTER_PID"]),
                         self.lab.pid("chaosmilter"))
        self.assertEqual(int(self.lab.env["ADMIN_PID"]),
                         self.lab.pid("chaosadmin"))
        for name in ("MILTER_SOCKET", "REDIS_SOCKET"):
            self.assertTrue(stat.S_ISSOCK(os.stat(self.lab.env[name]).st_mode))

    def test_key_is_readable_by_root_alone(self):
        for name in ("env", "run/key"):
            mode = os.stat(os.path.join(self.lab.dir, name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)
        with open(os.path.join(self.lab.dir, "chaosmilter.conf"),
                  encoding="ascii") as conf:
            self.assertNotIn(self.lab.env["API_KEY"], conf.read())

    def test_send_shows_the_dialogue_and_delivers(self):
        inbox = self.inbox("send")
        status, output = self.lab.run("send", "me@example.org", inbox)
        self.assertEqual(status, 0, output)
        self.assertIn(f"RCPT TO:<{inbox}>", output)
        self.assertRegex(output, MTA.accepted_end.replace("^", "(?m)<-  "))
        self.lab.wait_mail(inbox)

    def test_status_names_every_daemon_and_its_pid(self):
        status, output = self.lab.run("status")
        self.assertEqual(status, 0, output)
        for name in DAEMONS:
            self.assertRegex(output, rf"(?m)^{name} +up +pid {self.lab.pid(name)}$")

    def test_logs_show_every_log(self):
        _, output = self.lab.run("logs")
        for path in glob.glob(os.path.join(self.lab.dir, "log", "*.log")):
            self.assertIn(path, output)

    def test_mail_lies_under_the_lower_case_recipient(self):
        sent = self.send("Some.One@Example.COM")
        self.assert_delivered("some.one@example.com", sent.message)

    def test_odd_recipients_cannot_leave_the_mail_folder(self):
        names = {'"a/b"@example.com': "%22a%2Fb%22@example.com"
                 if MTA.keeps_needless_quotes else "a%2Fb@example.com",
                 '"../../x"@example.com': "%22..%2F..%2Fx%22@example.com",
                 '"with space"@example.com': "%22with%20space%22@example.com",
                 "per%cent@example.com": "per%25cent@example.com"}
        if MTA.has_smtputf8:
            names["m\u00fcller@example.com"] = "m\u00fcller@example.com"
        for recipient, name in names.items():
            with self.subTest(recipient):
                client = self.smtp()
                client.mail(parameters="" if recipient.isascii() else " SMTPUTF8")
                self.assertEqual(client.rcpt(recipient).code, 250)
                message = make_message()
                self.assertEqual(client.data(message).code, 250)
                folder = os.path.join(self.lab.env["MAIL_DIR"], name, "new")
                wait_until(folder, lambda path=folder: os.path.isdir(path) and
                           os.listdir(path))
                path = os.path.join(folder, os.listdir(folder)[0])
                with open(path, "rb") as delivered:
                    self.assertEqual(content_of(delivered.read()), message)

    def test_message_arrives_byte_for_byte(self):
        body = (b".dot\r\n..two\r\n.\tx\r\n" + b"long" * 3000 + b"\r\n"
                + bytes(range(0x80, 0x100)) + b"\r\n\r\nend\r\n")
        inbox = self.inbox("bytes")
        sent = self.send(inbox, message=make_message(body=body))
        self.assertEqual(sent.end.code, 250)
        self.assert_delivered(inbox, sent.message)

    def test_submission_takes_plain_and_login(self):
        plain = base64.b64encode(b"\0tester\0secret").decode()
        login = [base64.b64encode(word).decode() for word in (b"tester", b"secret")]
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism):
                client = self.smtp(port=self.lab.submission_port)
                if mechanism == "PLAIN":
                    reply = client.command("AUTH PLAIN " + plain)
                else:
                    self.assertEqual(client.command("AUTH LOGIN").code, 334)
                    self.assertEqual(client.command(login[0]).code, 334)
                    reply = client.command(login[1])
                self.assertEqual(reply.code, 235)
                self.assert_passes(self.inbox("auth"), client=client)

    def test_submission_refuses_a_wrong_password_and_strangers(self):
        wrong = base64.b64encode(b"\0tester\0guess").decode()
        client = self.smtp(port=self.lab.submission_port)
        self.assertEqual(client.command("AUTH PLAIN " + wrong).code, 535)
        codes = [client.mail().code, client.rcpt(self.inbox()).code]
        self.assertIn(codes, ([250, 554], [530, 503]))

    @unittest.skipUnless(os.path.exists("/proc/net/if_inet6"), "no IPv6 here")
    def test_ipv6_loopback_is_served_too(self):
        client = self.smtp(host="::1")
        self.assert_passes(self.inbox("v6"), client=client)


if __name__ == "__main__":
    unittest.main()
