"""Real MLflow and real processes under what really happens: a lost answer, a wiped store, two recorders, a dead driver."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading

import pytest

from dialin.events.log import FILE
from dialin.paths import sqlite_url
from dialin.tracking.cursor import read_cursor
from dialin.tracking.recorder_process import recorder_command, sync
from dialin.tracking.replicate import Replicator
from tests import others
from tests.tracking.studies import Mirrored, client_of, contents, drain, fill, kill_recorder, wait_for

pytestmark = others.MLFLOW
PARAMS = {"lr": 0.1, "nesterov": True, "optimizer": "sgd"}


def start(folder, uri, **named):
    return subprocess.Popen(
        recorder_command(folder, uri, None), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **named
    )


def finish(process):
    process.stdin.close()
    return process.wait(90)


def statuses(client):
    experiment = client.get_experiment_by_name("digits")
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id], max_results=1000))


class LosesAnswers(socketserver.BaseRequestHandler):
    """Between recorder and server: passes every request on, and the answers too, but for some to /runs/create."""

    def handle(self):
        request = b""
        while b"\r\n\r\n" not in request:
            if not (more := self.request.recv(65536)):
                return
            request += more
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self.request.recv(65536)
        answer = self.ask(head.replace(b"keep-alive", b"close"), body)
        if b"/runs/create" in head.split(b"\r\n")[0]:
            self.server.creates += 1
            if self.server.creates % 2:
                return  # done, and nobody hears of it
        self.request.sendall(answer)

    def ask(self, head, body):
        with socket.create_connection(("127.0.0.1", self.server.to_port)) as other:
            other.sendall(head + b"\r\n\r\n" + body)
            answer = b""
            while more := other.recv(65536):
                answer += more
        return answer


def test_answers_that_get_lost_on_the_line_double_no_run(server, database, tmp_path):
    """MLflow's own client repeats such a call when it is let: that alone doubles the run."""
    start_server, _ = server
    uri = start_server()
    fill(tmp_path / "spool", trials=4)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), LosesAnswers) as proxy:
        proxy.to_port, proxy.creates = int(uri.rpartition(":")[2]), 0
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        assert sync(tmp_path / "spool", f"http://127.0.0.1:{proxy.server_address[1]}") == 0
        proxy.shutdown()
    assert proxy.creates >= 3
    contents(client_of(database), 4, 3)


def test_no_server_keeps_it_all_for_sync(database, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        fill(tmp_path / "spool")
        assert sync(tmp_path / "spool", uri, patience_seconds=0.5) == 5 * 5 + 2
    assert sync(tmp_path / "spool", sqlite_url(database)) == 0
    contents(client_of(database), 5, 3)


def test_a_wiped_store_is_filled_again(migrated, database, tmp_path):
    fill(tmp_path / "spool", trials=3)
    assert sync(tmp_path / "spool", sqlite_url(database)) == 0
    database.write_bytes(migrated.read_bytes())
    assert sync(tmp_path / "spool", sqlite_url(database)) == 0
    assert contents(client_of(database), 3, 3).info.status == "FINISHED"


def test_another_store_gets_all_of_it(migrated, database, tmp_path):
    fill(tmp_path / "spool", trials=3)
    assert sync(tmp_path / "spool", sqlite_url(database)) == 0
    other = tmp_path / "other.db"
    other.write_bytes(migrated.read_bytes())
    assert sync(tmp_path / "spool", sqlite_url(other)) == 0
    contents(client_of(other), 3, 3)


def test_written_twice_it_is_there_once(database, tmp_path):
    """The position is lost, and with it all that the recorder knew."""
    fill(tmp_path / "spool", trials=3)
    for _ in range(2):
        drain(Replicator(tmp_path / "spool", client_of(database), None))
        (tmp_path / "spool" / "position.json").unlink()
    contents(client_of(database), 3, 3)


def test_a_run_that_a_person_deleted_stays_deleted_and_blocks_nothing(database, tmp_path, caplog):
    client = client_of(database)
    mirror = fill(tmp_path / "spool", trials=2, end=False)
    recorder = Replicator(tmp_path / "spool", client, None)
    drain(recorder)
    deleted = client.search_runs(["1"], "tags.`dialin.trial` = '1'")[0].info.run_id
    client.delete_run(deleted)
    mirror.trial_started(1, PARAMS)
    mirror.epoch(1, 9, {"val_accuracy": 9.0})
    mirror.study_ended("complete", "", {}, {}, [])
    drain(Replicator(tmp_path / "spool", client, None))
    assert contents(client, 1, 3).info.status == "FINISHED"
    assert deleted in caplog.text


def test_a_study_that_is_extended_says_so(database, tmp_path):
    """MLflow never changes a param."""
    client = client_of(database)
    fill(tmp_path / "spool", trials=1)
    mirror = Mirrored(tmp_path / "spool", "unused")
    mirror.study_started("digits-abc", "digits", {"sampler": "tpe", "seed": 1}, {})
    mirror.study_ended("complete", "", {}, {}, [])
    drain(Replicator(tmp_path / "spool", client, None))
    parent = contents(client, 1, 3)
    assert (parent.data.params["seed"], parent.data.tags["dialin.seed"], parent.info.status) == ("0", "1", "FINISHED")


def test_a_damaged_line_costs_no_other(database, tmp_path):
    mirror = fill(tmp_path / "spool", trials=2, end=False)
    with (tmp_path / "spool" / FILE).open("ab") as file:
        file.write(b"\0\0\0\n[]\n3\n{}\n")
    mirror.study_ended("complete", "", {}, {}, [])
    recorder = Replicator(tmp_path / "spool", client_of(database), None)
    while not recorder.done:
        recorder.step(limit=3)
    assert contents(client_of(database), 2, 3).info.status == "FINISHED"


def test_two_recorders_on_one_spool_take_turns(database, tmp_path):
    """An interrupted study's recorder is still writing when the study is resumed."""
    fill(tmp_path / "spool", trials=20)
    processes = [start(tmp_path / "spool", sqlite_url(database)) for _ in range(2)]
    assert [finish(process) for process in processes] == [0, 0]
    contents(client_of(database), 20, 3)


def test_recorders_of_several_studies_share_a_new_database(tmp_path):
    """The first one to come makes it; SQLite lets one write at a time."""
    database = tmp_path / "mlflow.db"
    for study in range(3):
        mirror = Mirrored(tmp_path / f"{study}", "unused")
        mirror.study_started(f"s-{study}", f"s{study}", {}, {})
        for trial in range(15):
            mirror.trial_started(trial, PARAMS)
            mirror.epoch(trial, 1, {"val_accuracy": trial})
            mirror.trial_ended(trial, "complete", "")
        mirror.study_ended("complete", "", {}, {}, [])
    processes = [start(tmp_path / f"{study}", sqlite_url(database)) for study in range(3)]
    assert [finish(process) for process in processes] == [0, 0, 0]
    client = client_of(database)
    for study in range(3):
        experiment = client.get_experiment_by_name(f"s{study}").experiment_id
        runs = client.search_runs([experiment], "tags.`dialin.kind` = 'trial'")
        assert sorted(run.data.metrics["val_accuracy"] for run in runs) == list(range(15))
        assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_driver_killed_in_a_trial_leaves_no_run_running_and_a_resumed_one_goes_on(database, tmp_path):
    code = (
        "import os, sys, pathlib; from tests.tracking.studies import Mirrored; "
        "from tests.tracking.studies import fill, wait_for; folder = pathlib.Path(sys.argv[1]); "
        "fill(folder, trials=1, end=False); mirror = Mirrored(folder, sys.argv[2]); mirror.start(); "
        "mirror.trial_started(1, {'lr': 0.1, 'nesterov': True, 'optimizer': 'sgd'}); "
        "mirror.epoch(1, 1, {'val_accuracy': 1.1}); wait_for(lambda: mirror.lag() == 0); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "spool"), sqlite_url(database)], check=False)
    client = client_of(database)
    wait_for(lambda: read_cursor(tmp_path / "spool").ended)
    assert statuses(client) == ["FINISHED", "KILLED", "KILLED"]
    mirror = Mirrored(tmp_path / "spool", sqlite_url(database))
    mirror.study_started("digits-abc", "digits", {"sampler": "tpe", "seed": 0}, {})
    mirror.start()
    mirror.trial_started(1, PARAMS)
    wait_for(lambda: statuses(client) == ["FINISHED", "RUNNING", "RUNNING"])
    for epoch in (1, 2, 3):
        mirror.epoch(1, epoch, {"val_accuracy": 1 + epoch / 10})
    mirror.trial_ended(1, "stopped", "reason 1")
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(60)
    assert contents(client, 2, 3).info.status == "FINISHED"


def test_a_study_that_ends_takes_its_open_trials_with_it(database, tmp_path):
    """As when an error ends the driver's loop, and nobody could say how the trials ended."""
    mirror = fill(tmp_path / "spool", trials=1, end=False)
    mirror.trial_started(1, PARAMS)
    mirror.study_ended("failed", "out of luck", {}, {}, [])
    drain(Replicator(tmp_path / "spool", client_of(database), None))
    assert statuses(client_of(database)) == ["FAILED", "FINISHED", "KILLED"]


def test_a_recorder_that_was_killed_is_replaced_when_the_study_ends(database, tmp_path):
    mirror = Mirrored(tmp_path / "spool", sqlite_url(database))
    mirror.study_started("digits-abc", "digits", {"sampler": "tpe", "seed": 0}, {})
    mirror.start()
    wait_for(lambda: mirror.lag() == 0)
    kill_recorder(mirror)
    mirror.trial_started(0, PARAMS)
    mirror.trial_ended(0, "complete", "reason 0")
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(60)
    assert contents(client_of(database), 1, 0).info.status == "FINISHED"


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_signals(database, tmp_path, number, ends):
    """SIGTERM: what is there is written, then it ends. Ctrl-C is the driver's to handle."""
    fill(tmp_path / "spool", trials=2, end=False)
    process = start(tmp_path / "spool", sqlite_url(database))
    wait_for(lambda: read_cursor(tmp_path / "spool").offset > 0)
    process.send_signal(number)
    if ends:
        assert process.wait(30) == 0
    else:
        Mirrored(tmp_path / "spool", "unused").study_ended("complete", "", {}, {}, [])
        assert process.wait(30) == 0  # it lived on to read this
    process.stdin.close()
    contents(client_of(database), 2, 3)


def test_a_folder_called_service_is_not_taken_for_ours(database, tmp_path, monkeypatch):
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "spool", trials=1)
    assert sync(tmp_path / "spool", sqlite_url(database)) == 0


def test_the_recorder_gives_way_to_training(database, tmp_path):
    fill(tmp_path / "spool", trials=0, end=False)
    process = start(tmp_path / "spool", sqlite_url(database))
    wait_for(lambda: read_cursor(tmp_path / "spool").offset > 0)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
    assert finish(process) == 0
