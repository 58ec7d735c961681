"""The artefact store gives back exactly what was put in, or says why not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import artefacts
from models.artefacts import ArtefactError, fetch, open_store

DATA = b"a model" * 100
DIGEST = hashlib.sha256(DATA).hexdigest()
BIG = 1 << 20


@pytest.fixture
def url(tmp_path: Path) -> str:
    return artefacts.file_url(tmp_path / "store")


def stored(url: str) -> Path:
    return Path(url.removeprefix("file:")) / DIGEST[:2] / DIGEST


def test_what_is_put_is_fetched_by_url_and_digest(url: str) -> None:
    store = open_store(url)
    assert store.put(DATA) == DIGEST
    assert store.get(DIGEST) == DATA
    assert fetch(store.url(DIGEST), DIGEST, BIG) == DATA


def test_putting_again_leaves_one_file_and_nothing_half_written(url: str) -> None:
    store = open_store(url)
    store.put(DATA)
    before = stored(url).stat()
    store.put(DATA)
    assert stored(url).stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in stored(url).parent.iterdir()] == [DIGEST]


def test_workers_of_another_user_may_read(url: str) -> None:
    open_store(url).put(DATA)
    assert stored(url).stat().st_mode & 0o444 == 0o444


def test_a_relative_url_is_relative_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("file:artefacts")
    assert store.url(store.put(DATA)) == f"file:artefacts/{DIGEST[:2]}/{DIGEST}"
    assert fetch(store.url(DIGEST), DIGEST, BIG) == DATA
    assert (tmp_path / "artefacts" / DIGEST[:2] / DIGEST).exists()


def test_a_path_with_odd_characters_is_a_url_too(tmp_path: Path) -> None:
    store = open_store(artefacts.file_url(tmp_path / "50 % of #1?"))
    assert fetch(store.url(store.put(DATA)), DIGEST, BIG) == DATA


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA + b"!", b"x" + DATA[1:]])
def test_damaged_bytes_are_refused_and_a_new_put_repairs_them(url: str, damage: bytes) -> None:
    store = open_store(url)
    store.put(DATA)
    stored(url).write_bytes(damage)
    with pytest.raises(ArtefactError, match="sha256"):
        fetch(store.url(DIGEST), DIGEST, BIG)
    with pytest.raises(ArtefactError, match="sha256"):
        store.get(DIGEST)
    store.put(DATA)
    assert store.get(DIGEST) == DATA


def test_another_artefact_than_the_one_named_is_refused(url: str) -> None:
    store = open_store(url)
    other = store.put(b"another")
    with pytest.raises(ArtefactError, match=f"expected {DIGEST}"):
        fetch(store.url(other), DIGEST, BIG)


def test_more_bytes_than_allowed_are_refused(url: str) -> None:
    store = open_store(url)
    store.put(DATA)
    assert fetch(store.url(DIGEST), DIGEST, len(DATA)) == DATA
    with pytest.raises(ArtefactError, match="more than"):
        fetch(store.url(DIGEST), DIGEST, len(DATA) - 1)


def test_an_absent_artefact_is_an_error_of_ours(url: str) -> None:
    with pytest.raises(ArtefactError, match="No such file"):
        fetch(open_store(url).url(DIGEST), DIGEST, BIG)


def test_links_pipes_devices_and_folders_are_refused_without_blocking(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(DATA)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ArtefactError):
            fetch(artefacts.file_url(path), DIGEST, BIG)


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            "artefacts",
            "/srv/a",
            "s3://bucket",
            "file:",
            "file://host/a",
            "file:a?b",
            "file:%00",
        ),
        *("file:../a", "file:a/../b", "file:///srv/%2e%2e/etc"),
    ],
)
def test_a_url_that_names_no_store_is_refused_at_once(bad: str) -> None:
    with pytest.raises(ArtefactError, match="artefact URL"):
        open_store(bad)


def test_a_linked_folder_of_digests_is_refused_and_a_linked_store_is_not(tmp_path: Path) -> None:
    """Where the store lies is the operator's to say; what lies in it is not to lead elsewhere."""
    store = open_store(artefacts.file_url(tmp_path / "real"))
    store.put(DATA)
    (tmp_path / "store").symlink_to(tmp_path / "real")
    linked = open_store(artefacts.file_url(tmp_path / "store"))
    assert fetch(linked.url(DIGEST), DIGEST, BIG) == DATA
    (tmp_path / "real" / DIGEST[:2]).rename(tmp_path / "away")
    (tmp_path / "real" / DIGEST[:2]).symlink_to(tmp_path / "away")
    with pytest.raises(ArtefactError):
        fetch(linked.url(DIGEST), DIGEST, BIG)


def test_the_bytes_that_were_checked_are_the_bytes_that_are_given(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is opened once: what comes to lie there later is never loaded."""
    opened: list[str] = []
    real = os.open

    def noting(path: str | Path, *rest: int, **more: Any) -> int:
        opened.append(Path(path).name)
        return real(path, *rest, **more)

    store = open_store(url)
    store.put(DATA)
    monkeypatch.setattr(os, "open", noting)
    assert fetch(store.url(DIGEST), DIGEST, BIG) == DATA
    assert opened.count(DIGEST) == 1


@pytest.mark.parametrize("bad", ["", "..", "../" * 22, DIGEST.upper(), DIGEST[:-1], DIGEST + "\n"])
def test_only_a_digest_becomes_a_file_name(url: str, bad: str) -> None:
    with pytest.raises(ArtefactError, match="digest"):
        open_store(url).get(bad)
    with pytest.raises(ArtefactError, match="digest"):
        fetch(url, bad, BIG)


def test_a_failed_write_leaves_no_rubbish(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        open_store(url).put(DATA)
    assert list(stored(url).parent.iterdir()) == []


@given(st.binary(max_size=200))
def test_digests_are_those_of_sha256(data: bytes) -> None:
    assert artefacts.digest_of(data) == hashlib.sha256(data).hexdigest()
