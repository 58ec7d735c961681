"""What can go wrong, by who must act.

DriftlineError
├── ConfigurationError      a setting, spec or command is wrong; the message says what to do
├── Refused                 one record is unacceptable; it becomes a dead letter with a reason
└── Halt                    going on could lose or double an effect; the process exits non-zero
    ├── CheckpointError     a part is missing or corrupt, or disagrees with the group's offsets
    ├── PartitionCountChanged
    ├── TopicRecreated      an input is not the topic that the checkpoint was written for
    ├── RetentionOvertook   the log no longer holds the offset a checkpoint resumes at
    └── Fenced              another process, or the broker, has ended this one's transactions
        └── Expelled        the group has decided anew: what this process holds may be another's
"""

from __future__ import annotations


class DriftlineError(Exception):
    """Base of every error that Driftline raises on purpose."""


class ConfigurationError(DriftlineError):
    """A setting, spec or command is wrong; the message says what to do next."""


class Refused(DriftlineError):
    """One record is unacceptable.

    Attributes:
        reason: a short name from `REASONS`, used as dead-letter header and metric label.
        detail: one sentence for a person, at most 500 characters of it are kept.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:500]

    def bare(self) -> Refused:
        """Itself without what it was raised from and through: those frames hold the whole batch."""
        self.__cause__ = self.__context__ = self.__traceback__ = None
        return self


def explained(error: BaseException | None) -> str:
    """An error as a sentence, and what to do where the broker's own words do not say it.

    >>> explained(RuntimeError("Broker: Topic authorization failed"))
    'Broker: Topic authorization failed; `driftline topics acls` lists the rights of each service'
    """
    said = str(error) or type(error).__name__
    refused = any(word in said.lower() for word in ("authorization failed", "authorizationfailed"))
    hint = "; `driftline topics acls` lists the rights of each service"
    return said + (hint if refused else "")


class Halt(DriftlineError):
    """Going on could lose or double an effect, so the process ends and is started again."""


class CheckpointError(Halt):
    """A checkpoint misses a part, is corrupt, or disagrees with the group's offsets."""


class PartitionCountChanged(Halt):
    """A topic's partition count is not the one its checkpoints were written for."""


class TopicRecreated(Halt):
    """An input topic was deleted and made anew: its offsets mean something else now."""


class RetentionOvertook(Halt):
    """The log no longer holds the offset that a checkpoint resumes at."""


class Fenced(Halt):
    """Another process, or the broker, has ended the transactions of this one for good."""


class Expelled(Fenced):
    """The group has decided anew without this process, so others may own what it holds."""


# Why a record is refused: the header `dl_reason` and the metric label.
REASONS = frozenset(
    {
        "bad-json",  # not JSON, or nested too deeply, or not UTF-8
        "bad-envelope",  # CloudEvents attributes missing or of the wrong type
        "bad-data",  # right JSON, wrong types or values
        "bad-features",  # missing features by the model's spec, or wrong feature types
        "bad-id",  # empty, too long, or not printable
        "bad-label",  # not a label of the model's task
        "bad-schema",  # of Confluent's wire format: unknown to the registry, or not one we can read
        "bad-signature",  # unsigned, by a key that is not trusted, or for another place
        "bad-output",  # the prediction does not fit the model's task
        "bad-time",  # event time too far from the record's clock
        "null-value",  # a tombstone where none belongs
        "too-large",
        "undeliverable",  # an alert that a sink did not take, in all the time it was given
        "unknown-event",  # unknown type or version of it
        "unknown-feature",  # one that is not in the model's spec
        "unknown-model",
        "unknown-version",
    }
)
