r"""Asks a serving container as the platform does: waits for GET /health, then sends POST /invoke.

    docker exec -i CONTAINER python3 - [--job-limit SECONDS] [--health-timeout SECONDS] \
        < scripts/invoke.py

Needs nothing but the standard library, and runs inside the container, whose network is closed.
"""

import argparse
import http.client
import json
import sys
import time

HOST, PORT = "127.0.0.1", 4743
#: The platform's limits for becoming healthy, and for that and a case together, seconds.
HEALTH_TIMEOUT_S, JOB_LIMIT_S = 300, 1200


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
    parser = argparse.ArgumentParser(description="Ask a serving container as the platform does.")
    parser.add_argument("--health-timeout", type=float, default=HEALTH_TIMEOUT_S, help="seconds")
    parser.add_argument("--job-limit", type=float, default=JOB_LIMIT_S, help="seconds")
    arguments = parser.parse_args()
    begin = time.monotonic()
    patience = min(arguments.health_timeout, arguments.job_limit)
    while ask("GET", "/health", 10)[0] != 200:
        if time.monotonic() - begin > patience:
            print(f"error: not healthy within {patience:g} s", file=sys.stderr)
            return 1
        time.sleep(0.5)
    healthy = time.monotonic()
    # At least a moment: a timeout of 0 would mean not to wait for the connection.
    left = max(0.1, begin + arguments.job_limit - healthy)
    status, body = ask("POST", "/invoke", left)
    if status == 0 and time.monotonic() - begin >= arguments.job_limit:
        print(
            f"error: not done within {arguments.job_limit:g} s, the limit for start-up, self-test "
            "and case together",
            file=sys.stderr,
        )
        return 1
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
