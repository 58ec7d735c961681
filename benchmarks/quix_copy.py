"""quixstreams copies the same bytes exactly once; run by the Python of its own environment.

`python quix_copy.py BOOTSTRAP SOURCE TARGET GROUP COMMIT_SECONDS`. It imports nothing of Driftline.
Bytes are handed on as they are, which is kinder to it than decoding them.
"""

from __future__ import annotations

import sys

from quixstreams import Application


def main(bootstrap: str, source: str, target: str, group: str, commit_seconds: str) -> None:
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=float(commit_seconds),
        auto_create_topics=False,
        loglevel="WARNING",
        producer_extra_config={"linger.ms": 5},
    )
    topic = app.topic(source, value_deserializer="bytes", key_deserializer="bytes")
    output = app.topic(target, value_serializer="bytes", key_serializer="bytes")
    app.dataframe(topic).to_topic(output)
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
