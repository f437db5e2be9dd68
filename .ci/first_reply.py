"""Waits for the page at URL for at most SECONDS, then asks its `/chat` one question over plain HTTP."""

import json
import sys
import time
import urllib.error
import urllib.request

url, seconds = sys.argv[1], float(sys.argv[2])
deadline = time.monotonic() + seconds
while True:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            assert page.status == 200
        break
    except (urllib.error.URLError, OSError):
        if time.monotonic() > deadline:
            raise SystemExit(f"no page at {url} after {seconds:.0f} s") from None
        time.sleep(0.5)

body = {"message": "What is the capital of South Korea?", "temperature": 0}
call = urllib.request.Request(
    f"{url}/gradio_api/call/v2/chat", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
with urllib.request.urlopen(call, timeout=60) as answer:
    event = json.load(answer)["event_id"]
with urllib.request.urlopen(f"{url}/gradio_api/call/v2/chat/{event}", timeout=120) as stream:
    reply = stream.read().decode()
assert "Seoul" in reply, reply
