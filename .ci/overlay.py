"""Checks what `overlay --json` printed: overlay.py FILE [the example's own arguments]."""

import json
import sys
from pathlib import Path

FIELDS = (
    "routers messages_sent messages_delivered messages_lost messages_duplicated sessions_open "
    "max_sessions_per_pair dials dials_shared simultaneous_opens superseded parked restarts "
    "drain_ms_max elapsed_s messages_per_s latency_us_p50 latency_us_p99"
).split()

text = Path(sys.argv[1]).read_text(encoding="utf-8")
killing = "--kill" in sys.argv[2:]
report = json.loads(text)
failures = []


def check(what, holds):
    if not holds:
        failures.append(what)


missing = [field for field in FIELDS if field not in report]
if missing:
    sys.exit(f"FAIL fields are missing: {', '.join(missing)}")
for field in FIELDS:
    check(f"{field} is a number that is not negative", isinstance(report[field], (int, float)) and report[field] >= 0)

check("messages were sent", report["messages_sent"] > 0)
check("messages were delivered", report["messages_delivered"] > 0)
check("no message was duplicated", report["messages_duplicated"] == 0)
check("no pair held two sessions at rest", report["max_sessions_per_pair"] == 1)
check("routers were restarted", report["restarts"] > 0)
check("dials were shared", report["dials_shared"] > 0)
check("dials crossed", report["simultaneous_opens"] > 0)
check("p50 is not above p99", report["latency_us_p50"] <= report["latency_us_p99"])
if not killing:
    check("no message was lost", report["messages_lost"] == 0)
    check("all that was sent was delivered", report["messages_delivered"] == report["messages_sent"])

print(json.dumps({field: report[field] for field in FIELDS}, indent=2))
for failure in failures:
    print(f"FAIL {failure}")
sys.exit(1 if failures else 0)
