"""Reference profiles of versions, from the artefact store, checked by digest; a few are held."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from consumers.console.board import Entry
from models import profile as profiles
from models.artefacts import fetch
from models.profile import ReferenceProfile

HELD: Final = 32


class Shelf:
    """Safe to share between threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, ReferenceProfile] = OrderedDict()
        self._lock = threading.Lock()

    def profile(self, entry: Entry, version: int) -> ReferenceProfile | None:
        """A version's reference; None where lifecycle does not say where it lies.

        Raises:
            ArtefactError, ValueError, OSError: it is not there, or not what its digest names.
        """
        card = entry.lifecycle.card(version) if entry.lifecycle else None
        if card is None:
            return None
        digest = card.profile_digest
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
                return self._held[digest]
        profile = profiles.decode(fetch(card.profile_url, digest, self._max_bytes))
        with self._lock:
            self._held[digest] = profile
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return profile
