"""The commands that act on Kubeflow: runs started, waited for, listed, retried, cancelled."""

import json
from typing import Annotated

import typer

from pipelines.comparison_options import (
    AlsoTest,
    Families,
    Folds,
    Pipeline,
    Robustness,
    chosen_settings,
)
from pipelines.options import (
    AsJson,
    Assignments,
    Backbone,
    CaCert,
    CheckpointUri,
    Family,
    Host,
    Namespace,
    Profile,
    Protocol,
    Retries,
    Source,
    Wait,
)
from pipelines.terminal import waited_for, write_result

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]


def submit(
    host: Host,
    profile: Profile = None,
    source: Source = None,
    family: Family = None,
    backbone: Backbone = None,
    protocol: Protocol = None,
    checkpoint_uri: CheckpointUri = None,
    assignments: Assignments = None,
    namespace: Namespace = None,
    experiment: Annotated[str | None, typer.Option(help="The KFP experiment.")] = None,
    cron: Annotated[
        str | None,
        typer.Option(help="Schedule of a recurring run; six fields, seconds first: '0 0 3 * * *'."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute every step anew.")] = False,
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the pods; by default the installation's.")
    ] = None,
    pipeline_root: Annotated[
        str | None,
        typer.Option(help="Root of the artifacts: s3://BUCKET/PREFIX; by default the installation's."),
    ] = None,
    wait: Wait = False,
    retries: Retries = 0,
    ca_cert: CaCert = None,
    pipeline: Pipeline = "training",
    families: Families = None,
    folds: Folds = 0,
    also_test: AlsoTest = None,
    robustness: Robustness = False,
) -> None:
    """Start the same pipeline on Kubeflow."""
    chosen = chosen_settings(
        pipeline,
        profile,
        source,
        family,
        backbone,
        protocol,
        assignments,
        checkpoint_uri,
        families,
        folds,
        also_test,
        robustness,
    )
    from pipelines import display, submission

    with waited_for(), display.following(redirect=True) as show:
        result = submission.submit(
            chosen,
            host,
            namespace,
            experiment,
            cron,
            wait,
            ca_cert,
            show if wait else None,
            retries,
            cache=not no_cache,
            service_account=service_account,
            pipeline_root=pipeline_root,
        )
    write_result(json.dumps(result, indent=2))


def wait(run: RunId, host: Host, retries: Retries = 0, ca_cert: CaCert = None) -> None:
    """Wait for the end of a run on Kubeflow."""
    from pipelines import cluster, display

    with waited_for(), display.following(redirect=True) as show:
        result = cluster.wait(run, host, ca_cert, show, retries)
    write_result(json.dumps(result, indent=2))


def runs(
    host: Host,
    namespace: Namespace = None,
    recurring: Annotated[bool, typer.Option("--recurring", help="List recurring runs instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Number of runs at most, newest first.")] = 20,
    ca_cert: CaCert = None,
    as_json: AsJson = False,
) -> None:
    """List the runs on Kubeflow."""
    from pipelines import cluster, display

    found = cluster.runs(host, namespace, recurring, limit, ca_cert)
    if as_json:
        write_result(json.dumps(found, indent=2))
    elif not found:
        write_result("There are no recurring runs." if recurring else "There are no runs yet.")
    else:
        write_result(display.cluster_runs(found))


def retry(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The id of a failed run.")],
    host: Host,
    wait: Wait = False,
    retries: Retries = 0,
    ca_cert: CaCert = None,
) -> None:
    """Let a failed run on Kubeflow go on from the steps that failed."""
    from pipelines import cluster, display

    with waited_for(), display.following(redirect=True) as show:
        result = cluster.retry(run, host, wait, ca_cert, show if wait else None, retries)
    write_result(json.dumps(result, indent=2))


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run or of a recurring run.")],
    host: Host,
    ca_cert: CaCert = None,
) -> None:
    """End a run on Kubeflow, or disable a recurring run."""
    from pipelines import cluster

    write_result(cluster.cancel(run, host, ca_cert))


COMMANDS = (submit, wait, runs, retry, cancel)
