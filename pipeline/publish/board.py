"""A page (`pipeline.publish.page`) as a W&B Report (wandb-workspaces). Builds without a network.

The run sets name the runs by id and neither entity nor project: then building asks no server, and the report speaks of
these runs in its own project alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

_WIDE, _HIGH = 12, 8  # of a grid 24 columns wide: two panels a row


def build(page: Mapping[str, Any], entity: str, project: str) -> Any:
    """Return the page as a `wandb_workspaces.reports.v2.Report`, unsaved."""
    return wr.Report(
        entity=entity,
        project=project,
        title=page["title"],
        description=page["description"],
        width="fluid",
        blocks=[_block(block) for block in page["blocks"]],
    )


def _block(block: Mapping[str, Any]) -> Any:
    if block["kind"] == "head":
        return wr.H2(text=block["text"])
    if block["kind"] == "text":
        return wr.MarkdownBlock(text=block["text"])
    runs = wr.Runset(
        name=block["name"],
        filters=[expr.Metric("ID").isin(list(block["runs"]))],
        groupby=["config.arm"],
        order=[wr.OrderBy("Name", ascending=True)],
    )
    return wr.PanelGrid(runsets=[runs], panels=[_panel(panel, n) for n, panel in enumerate(block["panels"])])


def _panel(panel: Mapping[str, Any], place: int) -> Any:
    layout = wr.Layout(x=place % 2 * _WIDE, y=place // 2 * _HIGH, w=_WIDE, h=_HIGH)
    if panel["kind"] == "scatter":
        return wr.ScatterPlot(
            title=panel["title"],
            x=wr.SummaryMetric(panel["x"]),
            y=wr.SummaryMetric(panel["y"]),
            range_x=(0.0, 1.0),
            range_y=(0.0, 1.0),
            layout=layout,
        )
    if panel["kind"] == "figures":
        return wr.MediaBrowser(title=panel["title"], media_keys=list(panel["keys"]), num_columns=2, layout=layout)
    by_arm = {"groupby": wr.Config("arm"), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    grouped: dict[str, Any] = by_arm if panel["by_arm"] else {}
    return wr.LinePlot(
        title=panel["title"],
        x=panel["x"],
        y=list(panel["y"]),
        title_x=panel["of"],
        range_y=(0.0, 1.0) if panel["share"] else (None, None),
        smoothing_factor=0.0,
        layout=layout,
        **grouped,
    )
