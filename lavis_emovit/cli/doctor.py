"""`emovit doctor`: check this machine and print a fix for each problem."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Option

app = typer.Typer(add_completion=False)


@app.command()
def doctor(as_json: Annotated[bool, Option("--json", help="Print one JSON object instead of lines.")] = False) -> None:
    """Check versions, LAVIS, device, disk and weights, and run one training step of the tiny model.

    Exits with 1 if training cannot run.
    """
    from lavis_emovit.cli.checks import run_checks

    findings = []
    for finding in run_checks():
        findings.append(finding)
        if not as_json:
            typer.echo(finding.as_lines())
    failed = [finding for finding in findings if finding.state == "failed"]
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif failed:
        typer.echo(
            f"\n{len(failed)} of {len(findings)} checks failed: {', '.join(finding.name for finding in failed)}."
        )
    else:
        typer.echo("\nTraining can run on this machine.")
    if failed:
        raise typer.Exit(1)
