"""Runs in the container, as root: the platform's shim, and an S3 server for it on the loopback.

Not to be started by hand; emulate.py does. Everything it needs lies in /emulation: the shim and its
dependencies in /emulation/packages, the job in /emulation/job.json, the case in /emulation/case,
the uploaded model, if there is one, in /emulation/model.tar.gz.
What ends up in S3 is written to /emulation/report.
"""

import base64
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path("/emulation")
# Isolated mode keeps this folder out of what the algorithm's own Python sees.
sys.path.insert(0, str(ROOT / "packages"))

import boto3  # noqa: E402 - it lies in the folder that was just added
from moto.server import ThreadedMotoServer  # noqa: E402

HOST, PORT = "127.0.0.1", 5555
INPUTS, OUTPUTS = "inputs", "outputs"
#: On the platform the shim brings a Python of its own, which is newer than the image's may be.
SHIM = """
import sys
sys.path[:0] = ["/emulation", "/emulation/packages"]
import plain_tar
plain_tar.install()
from sagemaker_shim.cli import cli
cli()
"""


def encoded(value: object) -> str:
    """As the platform hands the image's ENTRYPOINT and CMD to the shim."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def main() -> int:
    """Return the shim's exit status."""
    job = json.loads((ROOT / "job.json").read_text())
    # Not a line for every request to the S3 server.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=HOST, port=PORT, verbose=False)
    server.start()
    os.environ.update(
        AWS_ACCESS_KEY_ID="emulation",
        AWS_SECRET_ACCESS_KEY="emulation",  # noqa: S106 - moto takes any
        AWS_DEFAULT_REGION="us-east-1",
        AWS_S3_ENDPOINT_URL=f"http://{HOST}:{PORT}",
    )
    s3 = boto3.client("s3", endpoint_url=os.environ["AWS_S3_ENDPOINT_URL"])
    for bucket in (INPUTS, OUTPUTS):
        s3.create_bucket(Bucket=bucket)
    case = ROOT / "case"
    files = [path for path in sorted(case.rglob("*")) if path.is_file()]
    for path in files:
        s3.upload_file(str(path), INPUTS, str(path.relative_to(case)))
    tasks = [
        {
            "pk": name,
            "inputs": [
                {"relative_path": key, "bucket_name": INPUTS, "bucket_key": key}
                for key in (str(path.relative_to(case)) for path in files)
            ],
            "output_bucket_name": OUTPUTS,
            "output_prefix": name,
            "timeout": job["timeout_s"],
        }
        for name in job["cases"]
    ]
    prefix = "GRAND_CHALLENGE_COMPONENT_"
    environment = {
        **os.environ,
        "LOG_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
        f"{prefix}API_METHOD": job["api"],
        f"{prefix}ENTRYPOINT_B64J": encoded(job["entrypoint"]),
        f"{prefix}CMD_B64J": encoded(job["cmd"]),
        f"{prefix}USER": job["user"],
        f"{prefix}MAX_MEMORY_MB": str(job["memory_mb"]),
        f"{prefix}START_AND_HEALTH_TIMEOUT_SECONDS": str(job["health_timeout_s"]),
        f"{prefix}SIGNING_KEY_HEX": job["signing_key_hex"],
        f"{prefix}RUNTIME_OUTPUT_BUCKET_NAME": OUTPUTS,
        f"{prefix}RUNTIME_OUTPUT_PREFIX": "runtime",
    }
    model = ROOT / "model.tar.gz"
    if model.is_file():
        s3.upload_file(str(model), INPUTS, model.name)
        environment[f"{prefix}MODEL"] = f"s3://{INPUTS}/{model.name}"
    begin = time.monotonic()
    shim = subprocess.run(
        [sys.executable, "-I", "-c", SHIM, "invoke", "-t", json.dumps(tasks)],
        env=environment,
        check=False,
    )
    seconds = time.monotonic() - begin
    report = ROOT / "report"
    signatures = {}
    for found in s3.list_objects_v2(Bucket=OUTPUTS).get("Contents", []):
        key = found["Key"]
        target = report / "s3" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(OUTPUTS, key, str(target))
        metadata = s3.head_object(Bucket=OUTPUTS, Key=key)["Metadata"]
        signatures[key] = metadata.get("signature_hmac_sha256", "")
    facts = {"shim_status": shim.returncode, "seconds": seconds, "signatures": signatures}
    (report / "facts.json").write_text(json.dumps(facts))
    server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
