"""Artefacts: the same bytes for the same fit, and nothing foreign inside."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer

from models import serving
from models.features import Coder, Row
from models.learners import LEARNERS
from models.serving import ALLOWED, BadArtefact, ServingModel, dump, load
from models.spec import Task
from models.threads import one_thread
from tests.streams import examples, spec

NAMES = ("hist_gradient_boosting", "logistic_regression")
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
ODD: list[Row] = [(None, None, None), (1e308, "new", -1e308), (0.1, "u", 2.0)]


@cache
def fitted(name: str = "logistic_regression", task: Task = "binary") -> ServingModel:
    known = examples(task)
    coder = Coder.fit(spec(task), known.rows)
    one_thread()
    pipeline = LEARNERS[name](spec(task), 0).fit(coder.matrix(known.rows), known.labels)
    return ServingModel(spec(task), coder, pipeline)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_predicts_what_the_fitted_one_did(name: str, task: Task) -> None:
    rows = [*examples(task).rows, *ODD]

    loaded = load(dump(fitted(name, task)), spec(task))

    loaded.warm_up()
    outputs = loaded.predict(rows)
    np.testing.assert_array_equal(outputs, fitted(name, task).predict(rows))
    assert outputs.shape == (len(rows), spec(task).outputs)
    assert np.isfinite(outputs).all()


def test_the_same_fit_has_the_same_digest_in_every_process() -> None:
    """Artefacts are stored by digest: addresses, hash seeds and clocks must not matter."""
    child = subprocess.run(
        [sys.executable, "-c", "import tests.test_serving as t; print(*t.digests())"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"PYTHONHASHSEED": "77"},
    )

    assert child.stdout.split() == digests()
    with zipfile.ZipFile(io.BytesIO(dump(fitted()))) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def digests() -> list[str]:
    return [hashlib.sha256(dump(fitted(name))).hexdigest() for name in NAMES]


def test_a_model_that_never_saw_a_class_gives_it_no_probability() -> None:
    known = examples("multiclass")
    seen = known._replace(labels=np.minimum(known.labels, 1.0))
    coder = Coder.fit(spec("multiclass"), seen.rows)
    pipeline = LEARNERS["logistic_regression"](spec("multiclass"), 0)
    pipeline.fit(coder.matrix(seen.rows), seen.labels)

    outputs = ServingModel(spec("multiclass"), coder, pipeline).predict(ODD)

    assert outputs.shape == (3, 3)
    assert (outputs[:, 2] == 0).all()
    np.testing.assert_allclose(outputs.sum(axis=1), 1)


def test_no_rows_give_no_outputs() -> None:
    assert fitted(task="multiclass").predict([]).shape == (0, 3)


class Foreign:
    """Not a type that any artefact may hold."""

    n_features_in_ = 3


def _packed(pipeline: Any) -> bytes:
    categories = [None if c is None else list(c) for c in fitted().coder.categories]
    data: bytes = skops.io.dumps({"categories": categories, "pipeline": pipeline})
    return data


@pytest.mark.parametrize(
    "pipeline",
    [Foreign(), FunctionTransformer(func=print), FunctionTransformer(func=partial(exec, "1/0"))],
    ids=["class", "function", "partial"],
)
def test_a_type_that_is_not_on_the_list_is_refused(pipeline: Any) -> None:
    with pytest.raises(BadArtefact, match="Untrusted"):
        load(_packed(pipeline), spec())


def test_the_list_is_what_the_learners_need_and_no_more() -> None:
    """Each allowed type is one that some learner's artefact holds; nothing else is asked for."""
    needed = {
        name
        for algorithm in NAMES
        for task in TASKS
        for name in skops.io.get_untrusted_types(data=dump(fitted(algorithm, task)))
    }

    assert needed == set(ALLOWED)


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _with_schema(change: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(dump(fitted()))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    change(schema)
    return _archive(files | {"schema.json": json.dumps(schema).encode()})


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "pickle": b"\x80\x04N.",
    "cut short": dump(fitted())[:-200],
    "no schema": _archive({"x": b""}),
    "schema no JSON": _archive({"schema.json": b"{"}),
    "schema nested": _archive({"schema.json": b"[" * 50_000 + b"]" * 50_000}),
    "not a dict": skops.io.dumps([1]),
    "no pipeline": skops.io.dumps({"categories": [None, None, None]}),
    "foreign loader": _with_schema(lambda s: s.update(__loader__="JokerNode")),
    "file missing": _with_schema(
        lambda s: s["content"].update(pipeline={"__loader__": "NdArrayNode", "file": "../x.npy"})
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_bytes_that_are_no_artefact_are_refused(case: str) -> None:
    with pytest.raises(BadArtefact):
        load(BROKEN[case], spec())


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "MAX_UNPACKED_BYTES", 100_000)

    with pytest.raises(BadArtefact, match="unpacks to"):
        load(_archive({"schema.json": b"0" * 200_000}), spec())


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few kilobytes of zeros are a bomb long before they are a gigabyte; models are none."""
    bomb = _archive({"schema.json": b"{}", "x.npy": b"\0" * 20_000_000})
    with pytest.raises(BadArtefact, match="unpacks to 2 files of 20000002"):
        load(bomb, spec())
    monkeypatch.setattr(serving, "FREE_BYTES", 0)
    for name in NAMES:
        load(dump(fitted(name)), spec())


def test_an_archive_of_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_FILES", 10)

    with pytest.raises(BadArtefact, match="unpacks to 11 files"):
        load(_archive({str(number): b"" for number in range(11)}), spec())


def test_an_archive_that_says_less_than_it_holds_unpacks_to_no_more_than_it_says() -> None:
    """Sizes are checked before anything is read, so they must bound what is read."""
    honest = _archive({"schema.json": b"0" * 1_000_000})
    size = (1_000_000).to_bytes(4, "little")
    lying = honest.replace(size, (10).to_bytes(4, "little"))
    assert lying != honest
    with pytest.raises(BadArtefact):
        load(lying, spec())


def _with_member(name: str, **attributes: Any) -> bytes:
    """A good artefact, and one more file in it."""
    buffer = io.BytesIO(dump(fitted()))
    info = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two files with one name
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


HOSTILE = {
    "up": _with_member("../../etc/cron.d/x"),
    "absolute": _with_member("/etc/cron.d/x"),
    "folder": _with_member("a/b"),
    "backslash": _with_member("..\\x"),
    "link": _with_member("x", external_attr=0o120777 << 16),
    "device": _with_member("x", external_attr=0o020666 << 16),
    "one name twice": _with_member("schema.json"),
    "bzip2": _with_member("x", compress_type=zipfile.ZIP_BZIP2),
    "lzma": _with_member("x", compress_type=zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_an_archive_that_names_paths_links_or_odd_packing_is_refused(case: str) -> None:
    """Nothing is ever unpacked to disk; what would matter if it were is refused all the same."""
    with pytest.raises(BadArtefact, match=r"the archive|one name|not accepted"):
        load(HOSTILE[case], spec())


def test_an_artefact_of_another_spec_is_refused() -> None:
    other = msgspec.structs.replace(spec(), features=spec().features[:2])

    with pytest.raises(BadArtefact, match="made for 3 features"):
        load(dump(fitted()), other)


def test_warm_up_finds_a_model_of_the_wrong_shape() -> None:
    """Same features, other task: it loads, but must not go live."""
    with pytest.raises(BadArtefact):
        load(dump(fitted(task="multiclass")), spec()).warm_up()


def test_warm_up_finds_outputs_that_are_not_finite() -> None:
    model = load(dump(fitted()), spec())
    model.pipeline.steps[-1][1].intercept_[:] = np.nan

    with pytest.raises(BadArtefact, match="outputs"):
        ServingModel(spec(), model.coder, model.pipeline).warm_up()
