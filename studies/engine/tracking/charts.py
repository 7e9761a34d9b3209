"""Charts of MLflow's runs page, laid out beforehand in sections.

MLflow documents none of it: these are the fields of its `RunsChartsCardConfig`, read in 3.17. For
every metric that no chart here is about, MLflow adds one in the section of the metric's prefix.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Chart = Mapping[str, Any]
REST = "Model metrics"
"""MLflow's section of metrics without a prefix."""
MOST = 100
"""Runs that a chart draws; MLflow's own is ten."""


def bar(*metrics: str) -> Chart:
    """The latest values of `metrics`, side by side for each run."""
    # the one that versions of MLflow show that show one
    return {
        "type": "BAR",
        "metricKey": metrics[len(metrics) // 2],
        "selectedMetricKeys": list(metrics),
    }


def line(metric: str) -> Chart:
    """The curve of `metric`; of groups of runs with the band from lowest to highest."""
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def scatter(x: str, metric: str, *, of_param: bool = False) -> Chart:
    """`metric` against `x`, another metric or, `of_param`, a setting that is a number."""
    return {
        "type": "SCATTER",
        "xaxis": {"key": x, "type": "PARAM" if of_param else "METRIC"},
        "yaxis": {"key": metric, "type": "METRIC"},
    }


def parallel(params: Iterable[str], metrics: Iterable[str]) -> Chart:
    """Parallel coordinates: one line a run."""
    return {
        "type": "PARALLEL",
        "selectedParams": list(params),
        "selectedMetrics": list(metrics),
        "showAllRuns": False,
    }


def laid_out(sections: Mapping[str, Sequence[Chart]], rest: Iterable[str]) -> dict[str, Any]:
    """The part of a view's state with `sections` open, and those named in `rest` closed."""
    closed = [name for name in sorted(set(rest)) if name not in sections]
    return {
        "compareRunCharts": [
            {"uuid": f"{name} {i}", "metricSectionId": name, "deleted": False,
             "isGenerated": False, "runsCountToCompare": MOST, **chart}
            for name, charts in sections.items() for i, chart in enumerate(charts)
        ],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": name in sections, "isReordered": True,
             "deleted": False, "isGenerated": False}
            for name in [*sections, *closed]
        ],
        "isAccordionReordered": True,
    }  # fmt: skip


def section_of(metric: str) -> str:
    """The section in which MLflow puts a chart of `metric` that it adds itself."""
    return metric.rpartition("/")[0] or REST
