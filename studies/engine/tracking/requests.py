"""What takes MLflow more than one request: values and settings by the thousand, pages of runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from studies.engine.tracking import mlflow_client
from studies.engine.tracking.contents import Point

if TYPE_CHECKING:
    from studies.engine.tracking.mlflow_client import MlflowClient, Run

BATCH, PARAMS = 900, 100
"""Metrics and params that a request carries; MLflow takes 1000 entries."""


def log(
    client: "MlflowClient", run_id: str, points: Sequence[Point], params: Mapping[str, str]
) -> None:
    """Write values of metrics, and settings, into a run."""
    metrics = [mlflow_client.metric(*point) for point in points]
    given = [mlflow_client.param(name, value) for name, value in params.items()]
    for i in range(max(1, -(-len(metrics) // BATCH), -(-len(given) // PARAMS))):
        client.log_batch(
            run_id, metrics[i * BATCH : (i + 1) * BATCH], given[i * PARAMS : (i + 1) * PARAMS]
        )


def runs(client: "MlflowClient", experiment: str, query: str) -> "list[Run]":
    """Every run of `experiment` that meets `query`."""
    every: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, page_token=token)
        every += page
        token = page.token
        if not token:
            return every
