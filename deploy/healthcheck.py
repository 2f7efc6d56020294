# A script, copied alone into the image.  # noqa: INP001
"""Exit 0 when the service in this container says that it is ready.

Runs every few seconds, so it imports next to nothing.
"""

import http.client
import os
import sys

PORTS = {"ingest": 8001, "deliver": 8002, "janitor": 8003}

service = os.environ["SERVICE"]
port = int(os.environ.get(f"ONCEDROP_{service.upper()}_PORT", PORTS[service]))
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
try:
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    text = answer.read(2000).decode(errors="replace")
except OSError as exc:
    sys.exit(f"{service} does not answer: {exc}")
sys.exit(0 if answer.status == http.client.OK else f"{service} is not ready: {text}")
