"""Who may come in, and what they did: tokens kept as hashes, and one audit row for each action."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select, update

from consumers.console import tables as t
from models.database import Database, RegistryMisuse, now_ms

Role = Literal["read", "operate"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
PREFIX: Final = "dl_"  # so that a leaked one is found by whoever scans for it
KEPT: Final = 100_000  # rows of the audit
DAY_MS: Final = 86_400_000


class Visitor(Struct, frozen=True):
    """Somebody at the door: by token, or whoever is on this machine."""

    name: str
    role: Role

    @property
    def operates(self) -> bool:
        return self.role == "operate"


class Token(Struct, frozen=True, kw_only=True):
    """What may be told of a token: all but itself."""

    name: str
    role: Role
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class Deed(Struct, frozen=True, kw_only=True):
    """One row of the audit; `outcome` is asked, done, refused or failed."""

    who: str
    role: str
    address: str
    action: str
    model: str = ""
    version: int | None = None
    reason: str = ""
    outcome: str = "asked"
    detail: str = ""
    asked_ms: int = 0
    audit_id: int = 0


class Access:
    """Tokens and the audit. Safe to share between threads."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock

    def issue(self, name: str, role: Role, *, days: float | None = None) -> str:
        """Make a token; it is told this once and kept as a hash.

        Raises:
            RegistryMisuse: there was one of this name.
        """
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        row = {
            "name": name,
            "role": role,
            "digest": _digest(token),
            "created_ms": now,
            "expires_ms": None if days is None else now + round(days * DAY_MS),
            "revoked_ms": None,
        }

        def work(connection: Connection) -> None:
            if connection.execute(select(t.tokens).where(t.tokens.c.name == name)).first():
                raise RegistryMisuse(f"there is, or was, a token {name!r}; choose another name")
            connection.execute(insert(t.tokens).values(row))

        self._database.write(work)
        return token

    def revoke(self, name: str) -> None:
        """From now on it opens nothing; its row stays, for the audit names it.

        Raises:
            RegistryMisuse: there is no such token, or it is revoked already.
        """
        valid = (t.tokens.c.name == name) & t.tokens.c.revoked_ms.is_(None)
        change = update(t.tokens).where(valid).values(revoked_ms=self._clock())
        if self._database.write(lambda c: c.execute(change).rowcount) == 0:
            raise RegistryMisuse(f"no token {name!r} to revoke")

    def tokens(self) -> list[Token]:
        """All there ever were, by name."""
        columns = [t.tokens.c[name] for name in Token.__struct_fields__]
        rows = select(*columns).order_by(t.tokens.c.name)
        return self._database.read(lambda c: [Token(**r) for r in c.execute(rows).mappings()])

    def visitor(self, token: str) -> Visitor | None:
        """Whose token it is; None where it opens nothing.

        It is found by its hash: how long that takes tells nothing of any token, which has 256
        random bits and so needs no slow hash.
        """
        row = select(t.tokens).where(t.tokens.c.digest == _digest(token))
        found: Any = self._database.read(lambda c: c.execute(row).first())
        if found is None or found.revoked_ms is not None or found.role not in ROLES:
            return None
        if found.expires_ms is not None and found.expires_ms <= self._clock():
            return None
        return Visitor(found.name, found.role)

    def record(self, deed: Deed) -> int:
        """Write a row of the audit before anything is done. Returns its id."""
        names = set(Deed.__struct_fields__) - {"audit_id", "asked_ms"}
        row = {name: getattr(deed, name) for name in names} | {"asked_ms": self._clock()}

        def work(connection: Connection) -> int:
            added = insert(t.audit).values(row).returning(t.audit.c.audit_id)
            audit_id: int = connection.execute(added).scalar_one()
            connection.execute(delete(t.audit).where(t.audit.c.audit_id <= audit_id - KEPT))
            return audit_id

        return self._database.write(work)

    def conclude(self, audit_id: int, outcome: str, detail: str = "") -> None:
        """What came of it."""
        values = {"outcome": outcome, "detail": detail}
        row = update(t.audit).where(t.audit.c.audit_id == audit_id).values(values)
        self._database.write(lambda c: c.execute(row))

    def audit(self, limit: int = 200) -> list[Deed]:
        """The newest first."""
        columns = [t.audit.c[name] for name in Deed.__struct_fields__]
        rows = select(*columns).order_by(t.audit.c.audit_id.desc()).limit(limit)
        return self._database.read(lambda c: [Deed(**r) for r in c.execute(rows).mappings()])

    def any_tokens(self) -> bool:
        count = select(func.count()).select_from(t.tokens).where(t.tokens.c.revoked_ms.is_(None))
        return bool(self._database.read(lambda c: c.execute(count).scalar_one()))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
