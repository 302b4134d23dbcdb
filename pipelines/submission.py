"""Runs started on Kubeflow: the pipeline as an uploaded version, and what it needs of the cluster."""

import contextlib
import json
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from components.image import cluster_image, code_digest
from genreflow.core.digests import text_digest
from genreflow.core.errors import GenreflowError, SettingsError
from genreflow.core.version import VERSION
from pipelines import cluster, cluster_steps, kubeflow
from pipelines.kubeflow import (
    Connection,
    KubeflowRefusedError,
    KubeflowUnavailableError,
    check_host,
    connected,
    repeat_while_unavailable,
    translate_errors,
)

if TYPE_CHECKING:
    from pipelines.comparison_settings import ComparisonSettings
    from pipelines.settings import RunSettings

CRON_FIELDS = 6
CRON_NAMES = re.compile(r"^@(yearly|annually|monthly|weekly|daily|midnight|hourly|every .+)$")
DIGITS = 8
NOT_FOUND, CONFLICT, UNAVAILABLE = 404, 409, 503
OLDEST = (2, 0)
"""The first release of Kubeflow Pipelines that takes compiled pipelines of kfp's second form."""
OLDEST_OF_PLATFORM = (2, 5)
"""The first that reads volumes and secrets as kfp-kubernetes 2.17 writes them."""
OLDEST_OF_SECURITY_CONTEXT = (2, 16)
SECONDS_TO_APPEAR = 30
"""Within which a run is listed whose start had no response."""


class Compiled(NamedTuple):
    """A pipeline as Kubeflow takes it."""

    name: str
    documents: list[dict[str, Any]]
    """The pipeline, and where it has any the settings of its pods."""
    parameters: dict[str, Any]
    """What to train on what: given to every run, whatever the uploaded version has as defaults."""
    version: str
    """Names all that is not a parameter: the code, the image, the family, the settings of the pods."""

    def oldest_release(self) -> tuple[tuple[int, int], str]:
        """The oldest Kubeflow Pipelines that runs it, and why."""
        pods = json.dumps(self.documents[1:])
        if "securityContext" in pods:
            return OLDEST_OF_SECURITY_CONTEXT, "gives its pods a security context"
        if self.documents[1:]:
            return OLDEST_OF_PLATFORM, "gives its pods volumes or secrets"
        return OLDEST, "is compiled by kfp 2"


def submit(
    settings: "RunSettings | ComparisonSettings",
    host: str,
    namespace: str | None = None,
    experiment: str | None = None,
    cron: str | None = None,
    wait: bool = False,
    ca_cert: Path | None = None,
    show: "cluster.Show | None" = None,
    retries: int = 0,
    cache: bool = True,
    service_account: str | None = None,
    pipeline_root: str | None = None,
) -> dict[str, Any]:
    """Upload the pipeline of these settings to Kubeflow and start it there, once or on a schedule.

    Args:
        settings: what to train on what; the source has to be one that the cluster's pods can reach.
        host: the KFP API's URL.
        namespace: the user's namespace, in a multi-user installation.
        experiment: the KFP experiment; MLflow's name for it where not given.
        cron: six fields (seconds first), as KFP's scheduler takes them.
        wait: until the run has ended; not with `cron`.
        ca_cert: certificates of authorities to trust besides the public ones.
        show: called with all steps at every look while the run is waited for.
        retries: how often a run that is waited for goes on after a step whose pod was ended.
        cache: take from KFP's cache what was computed before.
        service_account: which the pods run as; the installation's where None.
        pipeline_root: where artifacts go, as s3://bucket/prefix; the installation's where None.

    Returns:
        `run_id` and `url` of the run, with `state` after waiting, or `recurring_run_id` with `cron`; and
        `pipeline_version`, the name of the uploaded version.

    Raises:
        SettingsError: the host has no scheme, the schedule has not six fields, `retries` without `wait`, the
            pipeline root is no bucket, the pods get no MLflow server that they share, the file of the token
            or of certificates cannot be read, or Kubeflow Pipelines is too old.
        GenreflowError: the API does not answer or refuses, or the awaited run did not succeed.
    """
    if cron and wait:
        raise SettingsError("--wait waits for one run, and --cron starts many; omit one of the two.")
    if retries and not wait:
        raise SettingsError(cluster.RETRIES_NEED_WAIT)
    if cron:
        check_cron(cron)
    if pipeline_root and not re.match(r"^\w+://\w", pipeline_root):
        raise SettingsError(
            f"--pipeline-root is {pipeline_root}, which names no bucket: write s3://BUCKET/PREFIX."
        )
    check_host(host)
    _check_tracking(settings)
    pipeline = compiled(settings, cache)
    connection = connected(host, namespace, ca_cert)
    _check_release(connection, pipeline)
    # kfp prints where things are shown; stdout is for the result
    with contextlib.redirect_stdout(sys.stderr):
        experiment_id = _experiment(connection, experiment or settings.experiment)
        reference = uploaded(connection, pipeline)
        job = {
            "experiment_id": experiment_id,
            **reference,
            "params": pipeline.parameters,
            "service_account": service_account,
            "pipeline_root": pipeline_root,
        }
        name = f"{pipeline.name} {settings.profile}"
        if cron:
            try:
                with translate_errors(host):
                    recurring = connection.client.create_recurring_run(
                        **job, job_name=name, cron_expression=cron, no_catchup=True, max_concurrency=1
                    )
            except KubeflowUnavailableError as error:
                raise KubeflowUnavailableError(
                    f"{error} Whether the recurring run was made is not known: genreflow runs --recurring "
                    f"--host {host} lists it."
                ) from error
            result = {"recurring_run_id": recurring.recurring_run_id}
            return result | {"pipeline_version": pipeline.version}
        run_id = _started(connection, name, job)
    version = {"pipeline_version": pipeline.version}
    if not wait:
        return cluster.result(connection, run_id) | version
    pods = cluster_steps.Pods(
        connection.namespace or cluster.SINGLE_USER_NAMESPACE,
        cluster_steps.template_prefix(pipeline.documents[-1]),
        cluster_steps.compiled_steps(pipeline.documents[0]),
    )
    return cluster.wait_for_end(connection, run_id, show, retries, pods) | version


def compiled(settings: "RunSettings | ComparisonSettings", cache: bool = True) -> Compiled:
    """The pipeline for these settings, its version named by the code and by all that is compiled in.

    The settings of a run are parameters, and no part of the version: its name is the digest of the rest, so
    that neither another image, family, resource or variable nor a run without the cache meets a version that
    was uploaded with other ones.
    """
    from pipelines.compiling import compile_pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        name = compile_pipeline(path, settings)
        documents = list(yaml.safe_load_all(path.read_text()))
    pipeline = documents[0]
    inputs = pipeline["root"]["inputDefinitions"]["parameters"]
    parameters = {name: _value(described) for name, described in inputs.items()}
    if not cache:
        for component in [pipeline["root"], *pipeline["components"].values()]:
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
    bare = {name: {"parameterType": described["parameterType"]} for name, described in inputs.items()}
    root = pipeline["root"] | {"inputDefinitions": {"parameters": bare}}
    texts = [json.dumps(document, sort_keys=True) for document in [pipeline | {"root": root}, *documents[1:]]]
    version = f"{VERSION}-{code_digest()}-{settings.family}-{text_digest(texts)[:DIGITS]}"
    return Compiled(name, documents, parameters, version)


def uploaded(connection: Connection, pipeline: Compiled) -> dict[str, str]:
    """The ids of the pipeline and of its version at Kubeflow; what is not there yet is uploaded.

    Raises:
        GenreflowError: the API does not answer or refuses.
    """
    client, namespace = connection.client, connection.own_namespace()
    import kfp_server_api

    def find_pipeline() -> str | None:
        named = {"namespace": namespace} if namespace else {}
        found = client._pipelines_api.pipeline_service_get_pipeline_by_name(pipeline.name, **named)
        return found.pipeline_id

    def make_pipeline() -> str | None:
        # uploaded as a file, it would have a first version of the pipeline's own name
        body = kfp_server_api.V2beta1Pipeline(
            display_name=pipeline.name,
            namespace=namespace,
            description="From labelled music to a genre classifier.",
        )
        return client._pipelines_api.pipeline_service_create_pipeline(body).pipeline_id

    pipeline_id = _once(connection.host, f"the pipeline {pipeline.name}", find_pipeline, make_pipeline)

    def find_version() -> str | None:
        named = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": pipeline.version}]}
        listed = client.list_pipeline_versions(pipeline_id, filter=json.dumps(named)).pipeline_versions or []
        return next((one.pipeline_version_id for one in listed if one.display_name == pipeline.version), None)

    def make_version() -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "training.yaml"
            path.write_text(yaml.safe_dump_all(pipeline.documents, sort_keys=False))
            return client.upload_pipeline_version(
                str(path), pipeline.version, pipeline_id, description=f"Image {cluster_image()}"
            ).pipeline_version_id

    version_id = _once(connection.host, f"the version {pipeline.version}", find_version, make_version)
    return {"pipeline_id": pipeline_id, "version_id": version_id}


def check_cron(cron: str) -> None:
    """Nothing where KFP's scheduler reads a schedule as it is meant.

    Raises:
        SettingsError: it has not six fields. KFP takes five, too, and reads the first as seconds.
    """
    fields = cron.split()
    if len(fields) == CRON_FIELDS or CRON_NAMES.match(cron):
        return
    meant = f": for the time that cron means by it write '0 {cron}'" if len(fields) == CRON_FIELDS - 1 else ""
    raise SettingsError(
        f"--cron is '{cron}', which has {len(fields)} field{'s' * (len(fields) != 1)}, and KFP's schedules "
        f"have six, seconds first{meant or ', as 0 0 3 * * * for every day at three'}."
    )


def _value(described: dict[str, Any]) -> Any:
    """The default of a parameter: YAML has whole numbers as floats."""
    value = described["defaultValue"]
    return int(value) if described["parameterType"] == "NUMBER_INTEGER" else value


def _once(host: str, what: str, find: Callable[[], str | None], make: Callable[[], str | None]) -> str:
    """The id of what is there by its name, or is made; another submission may make it at the same time.

    Raises:
        GenreflowError: the API does not answer or refuses, or the name is taken by what is not found.
    """

    def look() -> str | None:
        try:
            with translate_errors(host):
                return find()
        except KubeflowRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    def produce() -> str | None:
        with translate_errors(host):
            return make()

    found = repeat_while_unavailable(look)
    if found:
        return found
    try:
        made = repeat_while_unavailable(produce)
    except KubeflowRefusedError as error:
        if error.status != CONFLICT:
            raise
        made = repeat_while_unavailable(look)
    if not made:
        raise GenreflowError(f"Kubeflow at {host} says that {what} is there, and does not list it.")
    return made


def _experiment(connection: Connection, name: str) -> str:
    """The id of the KFP experiment, which is made where it is not there."""
    import kfp_server_api

    client, namespace = connection.client, connection.own_namespace()

    def find() -> str | None:
        try:
            found = client.get_experiment(experiment_name=name, namespace=namespace)
        except ValueError as error:
            if "No experiment is found" not in str(error):
                raise
            return None
        return found.experiment_id

    def make() -> str | None:
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace)
        return client._experiment_api.experiment_service_create_experiment(body).experiment_id

    return _once(connection.host, f"the experiment {name}", find, make)


def _started(connection: Connection, name: str, job: dict[str, Any]) -> str:
    """The id of a run that was started once, also where the response was lost."""
    client, host = connection.client, connection.host
    # a name of its own, by which it is found where the response is lost
    name = f"{name} ({uuid.uuid4().hex[:5]})"
    over = time.monotonic() + kubeflow.SECONDS_TO_REPEAT
    while True:
        try:
            with translate_errors(host):
                run_id: str = client.run_pipeline(**job, job_name=name).run_id
                return run_id
        except KubeflowUnavailableError as error:
            # a gateway without a server behind it has passed nothing on: the request may be repeated
            unavailable = error.status == UNAVAILABLE
            found = _listed(connection, name, job["experiment_id"], 0 if unavailable else SECONDS_TO_APPEAR)
            if found is not None:
                return found
            if not unavailable or time.monotonic() >= over:
                raise KubeflowUnavailableError(
                    f"{error} Whether the run '{name}' was started is not known: genreflow runs "
                    f"--host {host} lists it."
                ) from error
        time.sleep(kubeflow.SECONDS_BETWEEN_TRIES)


def _listed(connection: Connection, name: str, experiment_id: str, seconds: float) -> str | None:
    """The id of the run of that name; None where none appears within so many seconds."""

    def look() -> str | None:
        with translate_errors(connection.host):
            page = connection.client.list_runs(
                page_size=20, sort_by="created_at desc", experiment_id=experiment_id
            )
        return next((run.run_id for run in page.runs or [] if run.display_name == name), None)

    over = time.monotonic() + seconds
    while True:
        try:
            found = repeat_while_unavailable(look)
        except GenreflowError:
            return None
        if found is not None or time.monotonic() >= over:
            return found
        time.sleep(cluster.POLL_SECONDS)


def _check_release(connection: Connection, pipeline: Compiled) -> None:
    """Nothing where Kubeflow Pipelines is new enough, or does not report its release.

    Raises:
        SettingsError: it is older than what the pipeline was compiled for.
    """
    oldest, why = pipeline.oldest_release()
    if connection.release is not None and connection.release < oldest:
        have, need = (".".join(map(str, release)) for release in (connection.release, oldest))
        raise SettingsError(
            f"Kubeflow Pipelines at {connection.host} is {have}, and this pipeline, which {why}, needs "
            f"{need} or newer: upgrade it, or omit those settings (docs/kubeflow.md)."
        )


def _check_tracking(settings: "RunSettings | ComparisonSettings") -> None:
    """Nothing where the pods get an MLflow server that they share.

    Raises:
        SettingsError: they get none, or one that only this machine reaches.
    """
    from pipelines.pods import environment, names_tracking, tracking_of_this_machine

    tracking = environment(settings.resources).get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith(("http://", "https://")):
        return
    if not tracking and names_tracking(settings.resources):  # out of a secret
        return
    if tracking_of_this_machine(settings.resources):
        words = "is an address of this machine only: a pod reaches itself there"
    elif tracking:
        words = f"is {tracking} for them: each would keep a store of its own"
    else:
        words = "names none: each would keep a store of its own"
    raise SettingsError(
        f"The pods need one MLflow server that all of them reach, and MLFLOW_TRACKING_URI {words}. "
        "Set it in this shell, or with --set resources.environment.MLFLOW_TRACKING_URI=http://…"
    )
