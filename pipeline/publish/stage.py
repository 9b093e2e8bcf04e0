"""The publish stage: send the offline W&B runs of a finished run, check that all arrived, save the W&B Report.

Nothing leaves the machine before this stage is named. What is sent was filtered when it was written (`track_redact`).
The order is: log in, write the verdict's curves, ask what is there, send what lacks, check, and only then the report.
So the same command again sends no row twice, goes on where it was cut off, and writes the same report anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.publish.arrived import Found, differences, to_send
from pipeline.publish.curves import require_curves, write_curves
from pipeline.publish.offline import Expected, Piece, expected_runs, read_pieces
from pipeline.publish.page import page
from pipeline.publish.server import Saved, Server, Target
from pipeline.report import ReportData, figures
from pipeline.schema import TrackConfig
from pipeline.workspace import Workspace

_SHOWN: Final = 20  # differences in one message
_ASK_AGAIN_S: Final = 3.0


def publish(work: Workspace) -> None:
    """Publish a finished run.

    Raises:
        UserError: there is no verdict yet; the server cannot be reached, refuses the key, or does not have all that
            was sent (the differences are listed, and no report is saved).
        InstrumentError: W&B's client does not work.
    """
    run = _read(work)
    compared = _comparison(work, run.verdict)
    config, folder = work.config.publish, work.folder.root
    track = replace(work.config.track, project=config.project or work.config.track.project)
    (folder / "wandb").mkdir(exist_ok=True)
    with Server(folder / "wandb") as server:
        target = server.target(config.entity or track.entity, track.project)
        runs, measured = _offline(work, run, track)
        _bring(work, server, target, runs)
        made = page(run, runs, list(measured), config.title, compared)
        saved = _save(server, target, made, folder / "publish.json", draft=config.draft)
    state = "draft, not yet public" if config.draft else "public in its project"
    how = "new" if saved.anew else "updated in place"
    work.console.print(f"\nThe W&B Report ({state}; {how}): {saved.url}", soft_wrap=True, highlight=False)


def _read(work: Workspace) -> ReportData:
    """Read what the report says; only names and numbers of it are ever shown."""
    folder = work.folder
    return ReportData(
        plan=work.registered,
        verdict=read_json(folder.verdict),
        judges=read_json(folder.judges) if folder.judges.exists() else {},
        points=read_json(folder.curves)["points"],
        ledger=work.ledger.summary(),
    )


def _comparison(work: Workspace, verdict: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Read `publish.compare`; make sure that this run is one of the two, and was read as its verdict reads it now."""
    if (named := work.config.publish.compare) is None:
        return None
    made = read_json(Path(named).expanduser())
    sides = made.get("runs", {}) if isinstance(made, dict) else {}
    here = work.registered["run_sha256"]
    if here not in [side.get("run_sha256") for side in sides.values()]:
        raise UserError(
            f"publish.compare: {named} is no comparison of this run ({here[:8]})",
            "make one with stages=[compare] compare.runs=[A,B], this run among them, and name its comparison.json",
        )
    judge = {key: verdict["judge"][key] for key in ("kind", "version")}
    if (made.get("judge"), made.get("thresholds")) != (judge, verdict["thresholds"]):
        raise UserError(
            f"publish.compare: {named} was made under another judge or other thresholds than this run's verdict",
            "make it again: stages=[compare] compare.runs=[A,B]",
        )
    return dict(made)


def _offline(work: Workspace, run: ReportData, track: TrackConfig) -> tuple[list[Expected], dict[str, int]]:
    """Write the verdict's curves and read all there is to send; return the runs, and which hold the curves."""
    folder = work.folder.root
    before, _ = read_pieces(folder / "wandb")
    measured = write_curves(run, track, folder, before, figures(run))
    pieces, empty = read_pieces(folder / "wandb", before)
    require_curves(measured, pieces, folder)
    runs = _current(expected_runs(pieces), measured)
    _say(work.console, runs, empty)
    return runs, measured


def _current(runs: Sequence[Expected], measured: Mapping[str, int]) -> list[Expected]:
    """Leave out curves under an earlier verdict: they were published then, or never are."""
    return [run for run in runs if run.run in measured or run.part == "training"]


def _say(console: Console, runs: Sequence[Expected], empty: Sequence[Path]) -> None:
    pieces = [piece for run in runs for piece in run.pieces]
    online = [piece for piece in pieces if piece.online]
    rows = sum(run.rows for run in runs)
    console.print(f"{len(runs)} W&B runs in {len(pieces)} pieces, {rows} rows", highlight=False)
    if online:
        console.print(f"{len(online)} of the pieces went to W&B while they were written: not sent again")
    for folder in empty:
        console.print(f"Passed over, holds no run: {folder}", style="yellow", soft_wrap=True, highlight=False)


def _bring(work: Workspace, server: Server, target: Target, runs: Sequence[Expected]) -> None:
    """Send what the server lacks, and wait until it shows all of it.

    Raises:
        UserError: something is still missing after `publish.wait_s`.
    """
    wait_s = work.config.publish.wait_s
    found = server.runs(target, [run.run for run in runs])
    if any(_was_sent(piece) and found[run.run] for run in runs for piece in run.pieces):
        found = _settled(server, target, runs, found, wait_s)  # a sync of before may still be taken in
    missing = to_send(runs, found)
    if missing:
        work.console.print(f"Sending {len(missing)} pieces to {target.entity}/{target.project}", highlight=False)
        server.send(target, missing, work.config.publish.sync_timeout_s)
        found = _settled(server, target, runs, server.runs(target, [run.run for run in runs]), wait_s)
    else:
        work.console.print(f"Nothing to send to {target.entity}/{target.project}", highlight=False)
    if wrong := differences(runs, found):
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise UserError(
            f"publish: {target.entity}/{target.project} does not have what was sent:"
            + "".join(f"\n  - {line}" for line in [*wrong[:_SHOWN], *more]),
            "no report was saved. The same command again sends what is missing whole; a run of which only a part "
            "arrived cannot be mended by sending more: publish into another project with publish.project=…. What "
            "W&B said stands in wandb/publish.log in the run folder",
        )


def _was_sent(piece: Piece) -> bool:
    return piece.online or any(piece.folder.glob("*.synced"))


def _settled(
    server: Server, target: Target, runs: Sequence[Expected], found: dict[str, Found | None], wait_s: float
) -> dict[str, Found | None]:
    """Ask again until nothing is missing or the time is up: a server takes in rows after it has taken them."""
    deadline = time.monotonic() + wait_s
    while differences(runs, found) and time.monotonic() < deadline:
        time.sleep(min(_ASK_AGAIN_S, max(0.0, deadline - time.monotonic())))
        found = server.runs(target, [run.run for run in runs])
    return found


def _save(server: Server, target: Target, made: Mapping[str, Any], record: Path, *, draft: bool) -> Saved:
    """Save the report in place of the one of last time, and note it in `publish.json`.

    A draft is updated, or becomes the public report; a public one is updated by the next public one, and never
    turned back into a draft: a draft beside it is made.
    """
    place = {"server": target.server, "entity": target.entity, "project": target.project}
    noted = read_json(record) if record.exists() else {}
    known = noted.get("reports", {}) if {key: noted.get(key) for key in place} == place else {}
    old = known.get("draft") if draft else known.get("public") or known.get("draft")
    saved = server.save(target, made, draft=draft, replace=(old or {}).get("id"))
    reports = {kind: entry for kind, entry in known.items() if entry["id"] != saved.id}
    reports["draft" if draft else "public"] = {"id": saved.id, "url": saved.url}
    write_json(record, {**place, "reports": reports})
    return saved
