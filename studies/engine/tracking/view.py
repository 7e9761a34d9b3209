"""The view that a study's MLflow page opens with: one row an arm, averaged over its seeds.

MLflow does not document these keys; where it does not know one, it shows its plain table.
"""

import json
from collections.abc import Iterable, Mapping

from studies.engine.definition.study import Objective

LIMIT = 20_000
"""Characters that an experiment's tag may have."""


def shared_view(objective: Objective, swept: Iterable[str], arms: Mapping[str, str]) -> str:
    """JSON for the tag `mlflow.sharedViewState.<key>`.

    `swept` are the dotted settings that get a column; `arms` are labels and their stages. Once the
    seeds have begun, only they are shown. Of hundreds of arms the groups are not listed: they are
    folded by hand then.
    """
    shown = "tags.kind = 'trial' and tags.superseded = 'false'"
    if "seeds" in arms.values():
        shown += " and tags.stage = 'seeds'"
        arms = {arm: stage for arm, stage in arms.items() if stage == "seeds"}
    metrics = [objective.metric, objective.select_on, "train/loss"]
    widths = {f"metrics.`{name}`": 170 for name in metrics if name}
    widths |= {f"params.`{name}`": 150 for name in [*sorted(swept), "seed"]}
    view = {
        "searchFilter": shown,
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
    columns = {"selectedColumns": [], "columnOrder": [], "columnWidths": {}}
    texts = (json.dumps(each) for each in (
        view, view | {"groupsExpanded": {}}, view | {"groupsExpanded": {}} | columns
    ))  # fmt: skip
    return next((text for text in texts if len(text) <= LIMIT), "{}")
