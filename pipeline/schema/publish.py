"""The types of `publish`: where a finished run is shared, and how much of it is a draft."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PublishConfig:
    """What `stages=[publish]` sends to W&B; see pipeline/publish. None of it can change a result."""

    draft: bool = True  # false: published, for everyone who sees the project
    entity: str | None = None  # user or team; null: track.entity, else the account's own
    project: str | None = None  # null: track.project
    title: str | None = None  # of the report; null: the subject and the verdict
    compare: str | None = None  # a comparison.json of stages=[compare] that this run is part of
    sync_timeout_s: float = 1800.0  # the longest that sending may take
    wait_s: float = 60.0  # how long the server is given to show what was sent
