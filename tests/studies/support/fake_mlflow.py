"""An MLflow server in memory that can be told to misbehave: what the client says is kept.

    with FakeMlflow() as server:
        server.mode = "error"

Modes: `ok`; `error` answers 500; `lost` does what it is asked and then answers 500, as a server
does whose answer is lost; `hang` answers nothing while the mode lasts; `slow` takes a second.
"""

import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class FakeMlflow:
    """Runs of one experiment."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.asked = 0
        """Requests that were heard, whatever became of them."""
        self.experiment: dict[str, Any] | None = None
        self.runs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeMlflow":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.mode = "ok"
        self._server.shutdown()
        self._server.server_close()

    def trials(self) -> list[dict[str, Any]]:
        """Tags, metrics and status of the trials' runs that were not deleted."""
        return [run for run in self.runs.values()
                if run["tags"].get("kind") == "trial" and not run["deleted"]]  # fmt: skip

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                fake.asked += 1
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                mode = fake.mode
                while mode == "hang" and fake.mode == "hang":
                    time.sleep(0.02)
                if mode == "slow":
                    time.sleep(1)
                answer: dict[str, Any] = {"error_code": "INTERNAL_ERROR", "message": "broken"}
                status = 500
                if mode not in ("error", "hang"):
                    address = urlsplit(self.path)
                    asked = dict(parse_qsl(address.query))
                    if body and "mlflow-artifacts" not in address.path:
                        asked |= json.loads(body)
                    with fake._lock:
                        status, answer = fake.do(address.path, asked)
                    if mode == "lost":
                        status = 500
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = answer

            def log_message(self, *arguments: object) -> None: ...

        return Handler

    def do(self, path: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer to a request."""
        if "/mlflow-artifacts/" in path:
            return 200, {}
        match path.rpartition("/mlflow/")[2]:
            case "experiments/get-by-name":
                if self.experiment is None:
                    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}
                return 200, {"experiment": self.experiment}
            case "experiments/create":
                self.experiment = {"experiment_id": "1", "name": asked["name"],
                                   "artifact_location": "mlflow-artifacts:/1",
                                   "lifecycle_stage": "active"}  # fmt: skip
                return 200, {"experiment_id": "1"}
            case "experiments/set-experiment-tag":
                return 200, {}
            case "runs/create":
                run = {"id": uuid.uuid4().hex, "status": "RUNNING", "deleted": False,
                       "metrics": [], "params": [],
                       "tags": {tag["key"]: tag["value"] for tag in asked["tags"]}}  # fmt: skip
                self.runs[run["id"]] = run
                return 200, {"run": _shown(run)}
            case "runs/search":
                wanted = dict(re.findall(r"tags\.(\w+) = '([^']*)'", asked["filter"]))
                found = [run for run in self.runs.values()
                         if wanted.items() <= run["tags"].items()
                         and not run["deleted"]]  # fmt: skip
                return 200, {"runs": [_shown(run) for run in found]}
        run = self.runs[asked["run_id"]]
        match path.rpartition("/mlflow/")[2]:
            case "runs/get":
                return 200, {"run": _shown(run)}
            case "runs/log-batch":
                run["metrics"] += asked.get("metrics", [])
                run["params"] += asked.get("params", [])
            case "runs/set-tag":
                run["tags"][asked["key"]] = asked["value"]
            case "runs/update":
                run["status"] = asked["status"]
                return 200, {"run_info": _shown(run)["info"]}
            case "runs/delete":
                run["deleted"] = True
            case unknown:
                raise AssertionError(f"the fake server does not know {unknown}")
        return 200, {}


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    tags = [{"key": key, "value": value} for key, value in run["tags"].items()]
    info = {"run_id": run["id"], "run_uuid": run["id"], "experiment_id": "1",
            "status": run["status"], "artifact_uri": f"mlflow-artifacts:/1/{run['id']}/artifacts",
            "lifecycle_stage": "active", "start_time": 0}  # fmt: skip
    return {"info": info, "data": {"tags": tags, "metrics": [], "params": run["params"]}}
