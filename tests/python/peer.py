"""A service in another language, as the design's TypeScript services are: it writes events to a feed
and to a channel, and reads what the Rust service makes of them. Needs nothing but a Redis client.

usage: peer.py REDIS_URL
"""

import json
import sys
import time
import uuid

import redis

DEADLINE = time.monotonic() + 30


def check(condition, message):
    if not condition:
        sys.exit(f"peer: {message}")


def main():
    client = redis.Redis.from_url(sys.argv[1], decode_responses=True)

    # Listen as any Pub/Sub client does.
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("ai.response.*")

    # The least that an event can be, with and without its category, and one with metadata.
    payload = json.dumps({"from": "plan", "to": "build"})
    client.xadd("events:sdlc", {"type": "phase.changed", "payload": payload})
    client.xadd("events:sdlc", {"type": "sdlc.phase.changed", "payload": payload})
    event_id = str(uuid.uuid4())
    client.xadd(
        "events:sdlc",
        {
            "type": "phase.changed",
            "payload": payload,
            "metadata": json.dumps(
                {"eventId": event_id, "correlationId": "from-python", "userId": 7}
            ),
        },
    )
    client.publish(
        "ai.response.chunk",
        json.dumps(
            {
                "type": "ai.response.chunk",
                "payload": {"text": "from python"},
                "timestamp": "2026-01-01T00:00:00.000Z",
                "correlationId": "from-python",
            }
        ),
    )

    # What the Rust service emits for each of the three, as any stream reader sees it.
    entries, last = [], "0"
    while len(entries) < 3 and time.monotonic() < DEADLINE:
        for _, found in client.xread({"events:repository": last}, block=1000):
            entries.extend(found)
            last = found[-1][0]
    check(len(entries) == 3, f"{len(entries)} of 3 events came")
    for _, fields in entries:
        check(list(fields) == ["type", "payload", "metadata"], f"fields {list(fields)}")
        check(fields["type"] == "repository.analyzed", fields["type"])
        check(json.loads(fields["payload"]) == {"phase": "build"}, fields["payload"])
    # Events without a key are handled side by side, so the order of what comes of them is open.
    all_metadata = [json.loads(fields["metadata"]) for _, fields in entries]
    caused = [each for each in all_metadata if each["causationId"] == event_id]
    check(len(caused) == 1, f"{len(caused)} events are caused by {event_id}")
    metadata = caused[0]
    check(metadata["correlationId"] == "from-python", "the correlation id is lost")
    check(metadata["source"] == "python-peer", metadata["source"])

    # And an aggregate's history, rebuilt here from the list alone.
    history = [
        json.loads(element)
        for element in client.lrange("{events:project}:history:project:gothic", 0, -1)
    ]
    check([event[1] for event in history] == [1, 2, 3], "versions are not 1, 2, 3")
    check(all(event[3] == "project.phase.entered" for event in history), "types differ")

    # The chunk that the Rust service sent, beside our own.
    texts = set()
    while texts != {"from python", "from rust"} and time.monotonic() < DEADLINE:
        message = listener.get_message(timeout=1)
        if message:
            texts.add(json.loads(message["data"])["payload"]["text"])
    check(texts == {"from python", "from rust"}, f"heard {texts}")
    print("peer: everything is as it should be")


main()
