"""The view that a study's MLflow page opens with: one row an arm, averaged over its seeds.

MLflow does not document these keys; where it does not know one, it shows its plain table.
"""

import json
from collections.abc import Iterable

from studies.engine.reporting.outcome import Objective

LIMIT = 20_000
"""Characters that an experiment's tag may have."""


def shared_view(objective: Objective, swept: Iterable[str], arms: Iterable[str]) -> str:
    """JSON for the tag `mlflow.sharedViewState.<key>`.

    `swept` are the dotted settings that get a column. Of hundreds of `arms` the groups are not
    listed: they are folded by hand then.
    """
    metrics = [objective.metric, objective.select_on, "train/loss"]
    widths = {f"metrics.`{name}`": 170 for name in metrics if name}
    widths |= {f"params.`{name}`": 150 for name in [*sorted(swept), "seed"]}
    view = {
        "searchFilter": "tags.kind = 'trial' and tags.superseded = 'false'",
        "orderByKey": f"metrics.`{objective.metric}`",
        "orderByAsc": objective.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "arm"}],
        },
        "selectedColumns": ["attributes.`Duration`", *widths],
        "columnOrder": ["attributes.`Run Name`", *widths],
        "columnWidths": {"attributes.`Run Name`": 260} | widths,
        "groupsExpanded": {f"tag.arm.{arm}": False for arm in sorted(arms)},
        "runsHiddenMode": "SHOW_ALL",  # the charts draw ten arms otherwise
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runListHidden": False,
    }
    text = json.dumps(view)
    return text if len(text) <= LIMIT else json.dumps(view | {"groupsExpanded": {}})
