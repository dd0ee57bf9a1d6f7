"""Asks a serving container as the platform does: waits for GET /health, then sends POST /invoke.

    docker exec -i CONTAINER python3 - < scripts/invoke.py

Needs nothing but the standard library, and runs inside the container, whose network is closed.
"""

import http.client
import json
import sys
import time

HOST, PORT = "127.0.0.1", 4743
#: The platform gives a container this long to become healthy, seconds.
PATIENCE = 300


def ask(method: str, path: str, timeout: float | None) -> tuple[int, str]:
    """Status and body; status 0 where nobody answers."""
    connection = http.client.HTTPConnection(HOST, PORT, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, json.dumps({"error": str(error)})
    finally:
        connection.close()


def main() -> int:
    """Return 0 where the platform would take the output."""
    begin = time.monotonic()
    while ask("GET", "/health", 10)[0] != 200:
        if time.monotonic() - begin > PATIENCE:
            print(f"error: not healthy within {PATIENCE} s", file=sys.stderr)
            return 1
        time.sleep(0.5)
    healthy = time.monotonic()
    status, body = ask("POST", "/invoke", None)
    print(
        f"healthy after {healthy - begin:.1f} s, POST /invoke: {status} "
        f"after {time.monotonic() - healthy:.1f} s"
    )
    if status != 201:
        reason = json.loads(body).get("error", "") if body else ""
        print(f"error: the platform wants 201, got {status}: {reason}", file=sys.stderr)
    return int(status != 201)


if __name__ == "__main__":
    raise SystemExit(main())
