"""A fit's child process: its answer, its limits, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from consumers.dataset import Labelled, assemble
from consumers.fitting import Fit, Fitted, Job
from consumers.training import champion_of, train
from models.runs import DataRange
from models.spec import Feature, ModelSpec, Training
from models.state import VersionCard
from stream.settings import Settings
from tests import streams
from tests.patience import PATIENCE_SECONDS

READ = "import sys; job = sys.stdin.buffer.readline()\n"


def job(timeout_seconds: float = 600) -> Job:
    spec = ModelSpec(
        name="m",
        task="regression",
        features=(Feature(name="x"),),
        training=Training(timeout_seconds=timeout_seconds),
    )
    # Nobody listens there, and with no spans to read nobody needs to.
    nowhere = Settings(bootstrap_servers="127.0.0.1:1")
    return Job.of(spec, nowhere, [])


def child(program: str) -> Sequence[str]:
    return (sys.executable, "-c", READ + program)


def result(fit: Fit) -> Fitted:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (fitted := fit.poll()) is None:
        assert time.monotonic() < deadline, "the fit did not end"
        time.sleep(0.02)
    return fitted


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_gets_the_job_and_its_answer_comes_back() -> None:
    answer = Fitted(verdict="refused", reason="too few")
    program = f"assert b'regression' in job; print({msgspec.json.encode(answer).decode()!r})"
    assert result(Fit(job(), command=child(program))) == answer


def test_the_child_says_what_it_is_doing_while_it_does_it() -> None:
    program = (
        "import time\n"
        'print(\'{"doing":"reading"}\\n{"doing":"fitting linear (1 of 2)"}\', flush=True)\n'
        "print('{\"do', end='', flush=True); time.sleep(60)"
    )
    fit = Fit(job(), command=child(program))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while fit.doing != "fitting linear (1 of 2)":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    fit.cancel()
    assert fit.doing == ""


def test_a_fit_over_its_time_is_ended_and_says_which_setting_to_change() -> None:
    fit = Fit(job(timeout_seconds=0.3), command=child("import time; time.sleep(60)"))
    fitted = result(fit)
    assert fitted.verdict == "failed"
    assert "training.timeout_seconds" in fitted.reason
    assert not alive(fit.pid)


def test_a_cancelled_fit_is_gone_within_seconds_even_if_it_does_not_listen() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    fit = Fit(job(), command=child(deaf + "while True: time.sleep(1)"))
    time.sleep(0.5)
    begun = time.monotonic()
    fit.cancel()
    assert time.monotonic() - begun < PATIENCE_SECONDS
    assert not alive(fit.pid)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL (out of memory?)"),
        ("sys.exit(3)", "exit code 3"),
        ("print('not json')", "exit code 0"),
    ],
)
def test_a_child_that_breaks_is_a_failed_run(program: str, reason: str) -> None:
    fitted = result(Fit(job(), command=child(program)))
    assert fitted.verdict == "failed"
    assert reason in fitted.reason


def test_the_real_child_refuses_to_fit_on_nothing_and_says_so() -> None:
    fit = Fit(job())
    steps, deadline = set(), time.monotonic() + PATIENCE_SECONDS
    while (fitted := fit.poll()) is None:
        steps.add(fit.doing)
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert "reading labelled examples" in steps
    assert (fitted.verdict, fitted.reason) == ("refused", "0 labelled examples, at least 200")


def test_a_champion_that_can_be_loaded_is_what_an_online_learner_goes_on_from(
    tmp_path: Path,
) -> None:
    """One that cannot, or is gone, is none: the fit begins anew."""
    model = streams.spec(training=Training(candidates=("online_linear",)))
    settings = Settings(artefact_url=f"file:{tmp_path}")
    known = streams.examples()
    labelled = [
        Labelled(int(t), f"{t:012}", row, model.classes[int(y)], 1.0, int(t))
        for t, row, y in zip(known.times_ms, known.rows, known.labels, strict=True)
    ]
    first = train(model, settings, assemble(model, labelled[:400], DataRange()))
    card = VersionCard(
        version=1,
        artefact_url=first.artefact_url,
        artefact_digest=first.artefact_digest,
        profile_url=first.profile_url,
        profile_digest=first.profile_digest,
    )
    champion = champion_of(Job.of(model, settings, [], champion=card), settings)

    assert champion is not None
    assert champion.taught is not None
    assert champion.taught.events == first.candidates[0].parameters["events"] == 300
    whole = assemble(model, labelled, DataRange())
    second = train(model, settings, whole, champion=champion)
    assert second.candidates[0].parameters["events"] == 450
    assert second.artefact_digest != train(model, settings, whole).artefact_digest
    assert champion_of(Job.of(model, settings, []), settings) is None
    Path(urlsplit(card.artefact_url).path).write_bytes(b"gone")
    assert champion_of(Job.of(model, settings, [], champion=card), settings) is None


def test_a_fit_that_needs_too_much_memory_fails_and_names_the_setting() -> None:
    program = (
        "import io, types\n"
        "from consumers import fit_child\n"
        "greedy = types.ModuleType('consumers.training')\n"
        "greedy.train_from_topics = lambda *_: bytearray(6_000_000_000)\n"
        "sys.modules['consumers.training'] = greedy\n"
        "sys.stdin = io.TextIOWrapper(io.BytesIO(job))\n"
        "fit_child._end_with_parent = lambda: None\n"
        "sys.exit(fit_child.main())"
    )
    fitted = result(Fit(job(), command=child(program)))
    assert fitted.verdict == "failed"
    assert "fit_memory_mb = 4096" in fitted.reason


def test_the_child_ends_when_its_parent_is_killed() -> None:
    program = (
        "import sys, time\n"
        "from tests.test_fitting import job\n"
        "from consumers.fitting import Fit\n"
        "slow = 'import threading, time; from consumers import fit_child as c\\n'\n"
        "slow += 'threading.Thread(target=c._end_with_parent, daemon=True).start()\\n'\n"
        f"read = {READ!r}\n"
        "fit = Fit(job(), command=[sys.executable, '-c', read + slow + 'time.sleep(60)'])\n"
        "print(fit.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(1.5)
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive(pid):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
