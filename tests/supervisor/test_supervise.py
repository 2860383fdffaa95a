"""Supervised services: real processes, real signals, and no process left afterwards."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from dialin.supervisor.processes import MARK, end_marked
from tests.faults.harness import descendants, free_port, kill, wait_until
from tests.server.harness import is_alive

PROGRAM = Path(__file__).with_name("small_up.py")


class Small:
    """`small_up.py` as a process. A context manager, which ends every process of it at the end of the block."""

    def __init__(self, folder: Path, ports: list[int] | None = None, timeout: float = 30.0) -> None:
        self.mark, self.ports = secrets.token_hex(8), ports or [free_port(), free_port()]
        self._folder, self._timeout = folder, timeout
        self.log = ""

    def __enter__(self) -> Small:
        arguments = [str(self._folder), self.mark, *map(str, self.ports), str(self._timeout)]
        output = self._folder / "output"
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.said = output.read_text
        wait_until(lambda: "all is up" in self.said() or self.process.poll() is not None, 60, "it is up")
        assert self.process.poll() is None, self.said()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            end_marked(self.mark, guards_too=True)

    def answer(self, port: int) -> list[int]:
        """The ids of the process that answers there, and of its child."""
        with urlopen(f"http://127.0.0.1:{port}", timeout=5) as response:
            return [int(part) for part in response.read().split()]

    def guard_of(self, service: str) -> int:
        found = [
            pid
            for pid, line in descendants(self.process.pid)
            if "dialin.supervisor.guard" in line and f"{service}.log" in line
        ]
        return found[0]

    def is_up_again(self, service: str, times: int = 1) -> bool:
        assert self.process.poll() is None, self.said()
        return self.said().count(f"{service} is up again") >= times


def test_a_killed_guard_leaves_no_process_and_its_service_is_restarted_on_its_port(tmp_path):
    with Small(tmp_path) as up:
        before, beside = up.answer(up.ports[0]), up.answer(up.ports[1])
        kill(up.guard_of("first"))
        wait_until(lambda: up.is_up_again("first"), 60, "it is up again")
        after = up.answer(up.ports[0])
        assert not any(map(is_alive, before))
        assert set(after).isdisjoint(before)
        assert up.answer(up.ports[1]) == beside
        assert "the guard of first was ended by SIGKILL; its remaining processes were ended (" in up.said()


def test_a_killed_command_is_restarted_and_its_children_are_gone(tmp_path):
    with Small(tmp_path) as up:
        before = up.answer(up.ports[1])
        kill(before[0])
        wait_until(lambda: up.is_up_again("second"), 60, "it is up again")
        assert not any(map(is_alive, before))
        assert "second ended (exit code 137); restarting it" in up.said()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the service", "its guard and the service"])
def test_a_frozen_service_is_replaced_and_the_reason_is_reported(tmp_path, which):
    with Small(tmp_path, timeout=0.5) as up:
        before = up.answer(up.ports[0])
        if which != "the service":
            os.kill(up.guard_of("first"), signal.SIGSTOP)
        os.kill(before[0], signal.SIGSTOP)
        wait_until(lambda: up.is_up_again("first"), 120, "it is up again")
        assert not any(map(is_alive, before))
        assert up.answer(up.ports[0])[0] != before[0]
        why = rf"first is replaced: it has not answered for \d+ s \(.*timed out\); stopped by a signal: python\S* {before[0]}"
        assert re.search(why, up.said()), up.said()


def test_a_service_whose_port_is_taken_moves_to_another_and_later_services_are_restarted(tmp_path):
    """Another process takes the port while the service is down; later services may still have its old address."""
    import socket

    with Small(tmp_path) as up:
        first, second = up.answer(up.ports[0]), up.answer(up.ports[1])
        guard = up.guard_of("first")
        os.kill(up.process.pid, signal.SIGSTOP)  # the supervisor must not restart the service before the port is taken
        kill(first[0])
        wait_until(lambda: not is_alive(guard), 30, "the guard has seen it")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", up.ports[0]))
            other.listen()
            os.kill(up.process.pid, signal.SIGCONT)
            wait_until(lambda: up.is_up_again("first") and up.is_up_again("second"), 90, "both are up again")
        port = int(re.findall(r"first at (\d+)", up.said())[-1])
        assert port != up.ports[0]
        assert up.answer(port)[0] != first[0]
        assert up.answer(up.ports[1])[0] != second[0]
        assert "second is replaced: a service that it depends on has a new address" in up.said()


def test_two_servers_that_choose_the_same_ports_both_come_up(tmp_path):
    """Both find the ports free, and one of them binds them first."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Small(first) as one, Small(second, one.ports) as other:
        ports = [int(port) for port in re.findall(r"(?:first|second) at (\d+)", other.said())]
        assert ports[0] == one.ports[0]  # as it wanted
        for port in one.ports:
            one.answer(port)
        mine = dict(re.findall(r"(first|second) at (\d+)", other.said()))  # the last ones that it said
        answers = [one.answer(port)[0] for port in one.ports] + [other.answer(int(port))[0] for port in mine.values()]
        assert len(set(answers)) == 4


@pytest.mark.parametrize("killed", [["first"], ["second"]])
def test_the_server_and_a_guard_are_killed_at_once_and_nothing_is_left(tmp_path, killed):
    with Small(tmp_path) as up:
        family = [*up.answer(up.ports[0]), *up.answer(up.ports[1])]
        guards = [up.guard_of(part) for part in killed]
        for pid in (up.process.pid, *guards):
            kill(pid)
        wait_until(lambda: not any(map(is_alive, family)), 30, "the guard that lives has ended all of it")
        with pytest.raises(URLError):
            up.answer(up.ports[0])


def test_where_all_guards_are_killed_too_the_commands_end_and_the_next_start_ends_the_rest(tmp_path):
    with Small(tmp_path) as up:
        family = [up.answer(port) for port in up.ports]
        for pid in (up.process.pid, up.guard_of("first"), up.guard_of("second")):
            kill(pid)
        wait_until(lambda: not any(is_alive(command) for command, _ in family), 10, "the system has ended the commands")
        assert all(is_alive(child) for _, child in family)
        assert end_marked(up.mark, guards_too=True) == 2  # what `dialin up` does before it starts
        assert not any(is_alive(child) for _, child in family)


def test_an_interrupt_ends_all_processes(tmp_path):
    with Small(tmp_path) as up:
        family = [pid for pid, _ in descendants(up.process.pid)]
        assert len(family) >= 6
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(30) == 0
        assert not any(map(is_alive, family))


def test_the_environment_of_each_service_has_the_mark(tmp_path):
    """The mark is what finds the processes when every guard was killed."""
    with Small(tmp_path) as up:
        for pid in up.answer(up.ports[0]):
            assert f"{MARK}={up.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
