#!/usr/bin/env python3
"""The agent served on a unix socket on this host: agent_host.py AGENT.

Covers the protocol without a machine, and under sanitizers when the build has
them.  Each function is one test; its name is what must hold.
"""
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
import agent_client as ac
from agent_client import Session, run

SOCK = None


def test_streams_and_exit_status_come_back():
    out, err, end = run(SOCK, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (out, err, end) == (b"out\n", b"err\n", {"status": 7}), (out, err, end)


def test_a_signal_that_killed_it_is_reported():
    out, err, end = run(SOCK, ["sh", "-c", "kill -USR1 $$"])
    assert end == {"signo": signal.SIGUSR1}, end


def test_missing_command_is_127_and_unusable_one_126():
    _, _, end = run(SOCK, ["no-such-command"])
    assert end["status"] == 127 and b"no-such-command" in end["message"], end
    _, _, end = run(SOCK, ["/no/such/command"])
    assert end["status"] == 127, end
    _, _, end = run(SOCK, ["/etc/passwd"])
    assert end["status"] == 126 and b"Permission denied" in end["message"], end
    _, _, end = run(SOCK, ["/"])
    assert end["status"] == 126, end


def test_megabytes_of_input_come_back_in_order():
    data = os.urandom(1 << 20) * 4
    s = Session(SOCK).hello()
    s.exec(["cat"], stdin=1)
    out, at, eof = bytearray(), 0, False
    while True:
        while at < len(data) and s.window > 0:
            chunk = data[at:at + min(s.window, 60000)]
            s.send(ac.STDIN, chunk)
            s.window -= len(chunk)
            at += len(chunk)
        if at == len(data) and not eof:
            s.send(ac.STDIN_EOF)
            eof = True
        kind, payload = s.recv()
        if kind == ac.STDOUT:
            out += payload
        elif kind == ac.CREDIT:
            s.window += ac.fields(payload)["credit"]
        elif kind == ac.EXITED:
            break
    assert out == data
    s.close()


def test_signal_passes_a_command_that_ignores_its_input():
    s = Session(SOCK).hello()
    s.exec(["sleep", "100"], stdin=1)
    for _ in range(ac.WINDOW // 65536):
        s.send(ac.STDIN, b"x" * 65536)
    s.request(ac.SIGNAL, signo=signal.SIGTERM)
    assert s.finish()[2] == {"signo": signal.SIGTERM}
    s.close()


def test_signal_passes_while_the_host_does_not_read():
    s = Session(SOCK).hello()
    s.exec(["sh", "-c", "trap 'exit 9' TERM; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"])
    time.sleep(0.5)
    s.request(ac.SIGNAL, signo=signal.SIGTERM)
    assert s.finish()[2] == {"status": 9}
    s.close()


def test_input_beyond_the_window_ends_the_session():
    s = Session(SOCK).hello()
    s.exec(["sleep", "100"], stdin=1)
    try:
        for _ in range(8):
            s.send(ac.STDIN, b"x" * 65536)
    except OSError:
        pass
    _, _, end = s.finish()
    assert b"window" in end["message"], end
    s.close()


def test_input_that_nobody_reads_is_given_back():
    s = Session(SOCK).hello()
    s.exec(["sh", "-c", "exec <&-; sleep 0.3; echo done"], stdin=1)
    s.expect(ac.STARTED)
    time.sleep(0.1)
    s.send(ac.STDIN, b"x" * 50000)
    out, _, end = s.finish()
    assert out == b"done\n" and end == {"status": 0} and s.window == ac.WINDOW + 50000, (out, end, s.window)
    s.close()


def test_without_stdin_the_command_reads_dev_null():
    out, _, end = run(SOCK, ["cat"])
    assert out == b"" and end == {"status": 0}


def test_terminal_has_size_and_resizes():
    s = Session(SOCK).hello()
    s.exec(["sh", "-c", "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done"],
           tty=1, stdin=1, rows=33, cols=99)
    s.expect(ac.STARTED)
    out, _, _ = s.finish(until=b"33 99\r\n")
    s.request(ac.RESIZE, rows=50, cols=132)
    out, _, end = s.finish()
    assert b"50 132" in out and end == {"status": 3}, (out, end)
    s.close()


def test_control_c_interrupts_on_a_terminal():
    s = Session(SOCK).hello()
    s.exec(["sh", "-c", "echo go; sleep 100"], tty=1, stdin=1)
    s.finish(until=b"go")
    time.sleep(0.1)
    s.send(ac.STDIN, b"\x03")
    assert s.finish()[2] == {"signo": signal.SIGINT}
    s.close()


def test_job_control_works_in_an_interactive_shell():
    s = Session(SOCK).hello()
    s.exec(["bash", "--norc", "-i"], env=["PS1=ready>"], tty=1, stdin=1)
    s.finish(until=b"ready>")
    s.send(ac.STDIN, b"sleep 100\n")
    time.sleep(0.3)
    s.send(ac.STDIN, b"\x1a")
    s.finish(until=b"Stopped")
    s.send(ac.STDIN, b"kill -9 %1; sleep 0.3; exit 5\n")
    out, _, end = s.finish()
    assert end == {"status": 5}, (out, end)
    s.close()


def test_end_of_input_on_a_terminal_is_control_d():
    s = Session(SOCK).hello()
    s.exec(["cat"], tty=1, stdin=1)
    s.expect(ac.STARTED)
    s.send(ac.STDIN, b"line\n")
    s.send(ac.STDIN_EOF)
    out, _, end = s.finish()
    assert out.count(b"line") == 2 and end == {"status": 0}, (out, end)
    s.close()


def test_command_may_close_its_terminal_and_open_it_again():
    s = Session(SOCK).hello()
    s.exec(["sh", "-c", "exec <&- >&- 2>&-; sleep 0.3; exec >/dev/tty; echo back; exit 6"], tty=1)
    out, _, end = s.finish()
    assert b"back" in out and end == {"status": 6}, (out, end)
    s.close()


def test_environment_has_defaults_and_later_entries_win():
    out, _, _ = run(SOCK, ["env"], env=["A=1", "B=2", "A=3"])
    lines = out.decode().splitlines()
    assert "A=3" in lines and "A=1" not in lines and "B=2" in lines, lines
    assert any(x.startswith("PATH=/usr/local/sbin") for x in lines), lines
    assert any(x.startswith("HOME=/") for x in lines), lines
    assert not any(x.startswith("TERM=") for x in lines), lines


def test_working_folder_is_made_when_missing():
    with tempfile.TemporaryDirectory() as d:
        out, _, end = run(SOCK, ["pwd"], cwd=d + "/a/b")
        assert out.decode().strip() == d + "/a/b" and end == {"status": 0}, (out, end)


def test_users_are_resolved():
    if os.geteuid() != 0:
        return
    out, _, end = run(SOCK, ["id"], user="daemon")
    assert b"uid=1(daemon) gid=1(daemon)" in out, (out, end)
    out, _, _ = run(SOCK, ["sh", "-c", "id; echo $HOME"], user="4242:17")
    assert b"uid=4242 gid=17" in out and b"\n/\n" in out, out
    out, _, _ = run(SOCK, ["id"], user="daemon:mail")
    assert b"gid=8(mail)" in out, out
    _, _, end = run(SOCK, ["id"], user="nobody-here")
    assert b"nobody-here" in end["message"] and end["status"] == 126, end


def test_children_left_behind_do_not_delay_the_end():
    # Often: what matters is output that comes at the moment of the end.
    for pause in range(10):
        start = time.time()
        out, _, end = run(SOCK, ["sh", "-c", "(sleep 3 &) ; (while sleep 0.003; do echo x; done &) ; "
                                 f"sleep 0.0{pause}; echo main"])
        assert b"main" in out and end == {"status": 0} and time.time() - start < 2, (out, end)


def test_hanging_up_sends_sighup():
    with tempfile.TemporaryDirectory() as d:
        s = Session(SOCK).hello()
        s.exec(["sh", "-c", f"exec 2>/dev/null; trap 'touch {d}/hup; exit' HUP; echo on; while :; do sleep 0.05; done"])
        s.finish(until=b"on")
        s.close()
        for _ in range(100):
            if os.path.exists(d + "/hup"):
                return
            time.sleep(0.05)
        raise AssertionError("no SIGHUP")


def test_signals_of_the_command_start_fresh():
    out, _, _ = run(SOCK, ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])
    assert out.split()[1::2] == [b"0" * 16, b"0" * 16], out


def test_no_descriptor_leaks_into_the_command():
    out, _, _ = run(SOCK, ["ls", "/proc/self/fd"])
    assert out.split() == [b"0", b"1", b"2", b"3"], out	# 3: ls itself


def test_several_requests_then_a_command():
    s = Session(SOCK).hello()
    s.send(ac.PING)
    s.send(ac.PING)
    s.exec(["echo", "hi"])
    s.expect(ac.OK)
    s.expect(ac.OK)
    s.expect(ac.STARTED)
    assert s.finish()[::2] == (b"hi\n", {"status": 0})
    s.close()


def test_endless_pings_without_reading_do_not_fill_memory():
    s = Session(SOCK).hello()
    s.sock.setblocking(False)
    sent = 0
    end = time.time() + 2
    while time.time() < end and sent < 8 << 20:
        try:
            sent += s.sock.send(ac.frame(ac.PING) * 1000)
        except BlockingIOError:
            break
    assert sent < 8 << 20, "the agent takes requests whose replies nobody reads"
    s.close()


def expect_error(data, word):
    s = Session(SOCK).hello()
    s.sock.sendall(data)
    got = s.recv()
    assert got and got[0] == ac.ERROR and word in ac.fields(got[1])["message"], got
    s.close()


def test_broken_frames_are_refused():
    expect_error(struct.pack("<IB3x", 1 << 24, ac.PING), b"frame")
    expect_error(b"\0\0\0\0\x13\1\0\0", b"frame")
    expect_error(ac.frame(200), b"not a request")
    expect_error(ac.frame(ac.STDIN, b"x"), b"not a request")
    expect_error(ac.frame(ac.EXEC), b"malformed")
    expect_error(ac.frame(ac.EXEC, ac.field(16, b"no end")), b"malformed")
    expect_error(ac.frame(ac.EXEC, ac.field(99, "x") + ac.field(16, "true")), b"malformed")
    expect_error(ac.frame(ac.EXEC, b"\x10\0\0\0\xff\xff\xff\xff"), b"malformed")
    expect_error(ac.frame(ac.MOUNT, ac.field(32, "tmpfs")), b"malformed")


def test_optional_fields_are_ignored():
    s = Session(SOCK).hello()
    s.send(ac.EXEC, ac.field(16, "true") + ac.field(0x8123, "later"))
    assert s.finish()[2] == {"status": 0}
    s.close()


def test_other_versions_are_refused_with_a_sentence():
    s = Session.__new__(Session)
    s.sock, s.buf, s.timeout = ac.socket.socket(ac.socket.AF_UNIX), b"", 10
    s.sock.connect(SOCK)
    s.send(ac.HELLO, ac.field(1, ac.MAGIC) + ac.field(2, 9) + ac.field(3, 9))
    s.hello()
    assert b"version" in ac.fields(s.expect(ac.ERROR))["message"]
    s.close()


def test_many_sessions_run_at_once():
    results = [None] * 20

    def one(i):
        results[i] = run(SOCK, ["sh", "-c", f"sleep 0.2; echo {i}; exit {i}"])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(r == (b"%d\n" % i, b"", {"status": i}) for i, r in enumerate(results)), results


def main():
    global SOCK
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        SOCK = d + "/agent"
        agent = subprocess.Popen([sys.argv[1], "--serve", "unix:" + SOCK], stderr=subprocess.PIPE)
        failed = 0
        try:
            assert ac.wait_path(SOCK, 10), "agent does not listen"
            only = sys.argv[2:]
            for name, test in list(globals().items()):
                if not name.startswith("test_") or (only and name not in only):
                    continue
                try:
                    test()
                    print("ok", name, flush=True)
                except Exception as e:  # noqa: BLE001 - a test reports whatever went wrong
                    failed += 1
                    print("FAILED", name, type(e).__name__, e)
                assert agent.poll() is None, "the agent died"
            # A primary session that ends, ends the agent.
            print("ok primary" if run(SOCK, ["sh", "-c", "exit 4"], primary=1)[2] == {"status": 4}
                  else "FAILED primary")
            agent.wait(15)
            failed += agent.returncode != 0
        finally:
            agent.kill()
            errors = agent.stderr.read()
            if errors:
                print(errors.decode())
        failed += b"Sanitizer" in errors or b"runtime error" in errors
        return 1 if failed else 0


sys.exit(main())
