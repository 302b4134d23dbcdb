"""Runs on Kubeflow once they are started: waited for, listed, retried, cancelled."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core.errors import GenreflowError, SettingsError
from pipelines import cluster_steps
from pipelines.kubeflow import (
    SECONDS_A_RUN_MAY_TAKE,
    Connection,
    KubeflowRefusedError,
    KubeflowUnavailableError,
    api_client,
    connected,
    no_api,
    repeat_while_unavailable,
    translate_errors,
)

if TYPE_CHECKING:
    import kfp

    from pipelines.step_states import StepState

SECONDS_TO_WAIT = SECONDS_A_RUN_MAY_TAKE
POLL_SECONDS = 5
UNAVAILABLE_SECONDS = 3600
"""How long the API may be away while a run is waited for: an upgrade of KFP, a lost VPN."""
SECONDS_BETWEEN_SENTENCES = 60
GOOD_STATE = "succeeded"
FINAL_STATES = (GOOD_STATE, "failed", "skipped", "canceled")
"""Of `V2beta1RuntimeState`. kfp's own `wait_for_run_completion` waits on where a run is cancelled."""
SINGLE_USER_NAMESPACE = "kubeflow"
"""Where a single-user installation runs its pods, unless installed elsewhere; the API does not report it."""
PAGE = 50
NOT_FOUND, INTERNAL = 404, 500
RETRIES_NEED_WAIT = "--retries acts while a run is waited for: add --wait, or use genreflow wait RUN."
Show = Callable[[Sequence["StepState"]], None]

log = logging.getLogger("genreflow")


def wait(
    run_id: str, host: str, ca_cert: Path | None = None, show: Show | None = None, retries: int = 0
) -> dict[str, Any]:
    """Wait for the end of a run that was started before.

    Args:
        show: called with all steps at every look.
        retries: how often the run goes on after a step whose pod was ended.

    Returns:
        `run_id`, `url` and `state`.

    Raises:
        GenreflowError: there is no such run, it did not succeed, or the API does not answer.
    """
    return wait_for_end(connected(host, ca_cert=ca_cert), run_id, show, retries)


def retry(
    run_id: str,
    host: str,
    wait: bool = False,
    ca_cert: Path | None = None,
    show: Show | None = None,
    retries: int = 0,
) -> dict[str, Any]:
    """Let a failed run go on from the steps that failed; those that succeeded are not run again.

    Returns:
        `run_id` and `url`, with `state` after waiting.

    Raises:
        SettingsError: `retries` without `wait`.
        GenreflowError: there is no such run, it did not fail, or the API does not answer; or the awaited run
            did not succeed.
    """
    if retries and not wait:
        raise SettingsError(RETRIES_NEED_WAIT)
    connection = connected(host, ca_cert=ca_cert)
    if not wait:
        _retry(connection, run_id)
        return result(connection, run_id)
    before = _run(connection, run_id)
    _retry(connection, run_id)
    return wait_for_end(connection, run_id, show, retries, before=_history(before))


def cancel(run_id: str, host: str, ca_cert: Path | None = None) -> str:
    """End a run, or disable a recurring run: a sentence that says which.

    Raises:
        GenreflowError: there is neither, the run has ended, or the API does not answer.
    """
    client = connected(host, ca_cert=ca_cert).client
    try:
        with translate_errors(host):
            run = client.get_run(run_id)
    except KubeflowRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return _disable(client, host, run_id)
    state = str(run.state).lower()
    if state in FINAL_STATES:
        raise GenreflowError(f"Run {run_id} {_ended(state)} already.")
    with translate_errors(host):
        client.terminate_run(run_id)
    return f"Run {run_id} is being cancelled."


def _disable(client: "kfp.Client", host: str, recurring_run_id: str) -> str:
    try:
        with translate_errors(host):
            client.disable_recurring_run(recurring_run_id)
    except KubeflowRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        raise GenreflowError(
            f"Kubeflow at {host} has no run and no recurring run {recurring_run_id}: genreflow runs lists "
            "them."
        ) from error
    return f"Recurring run {recurring_run_id} is disabled: it starts no more runs."


def runs(
    host: str,
    namespace: str | None = None,
    recurring: bool = False,
    limit: int = 20,
    ca_cert: Path | None = None,
) -> list[dict[str, Any]]:
    """The latest runs, or the recurring runs, as plain JSON values, the newest first.

    Args:
        limit: at most so many.

    Raises:
        GenreflowError: the API does not answer or refuses.
    """
    connection = connected(host, namespace, ca_cert)
    namespace, client = connection.own_namespace(), connection.client
    found: list[dict[str, Any]] = []
    token = ""
    with translate_errors(host):
        while True:
            size = min(PAGE, limit - len(found))
            listed = client.list_recurring_runs if recurring else client.list_runs
            page = listed(page_token=token, page_size=size, sort_by="created_at desc", namespace=namespace)
            rows = (page.recurring_runs if recurring else page.runs) or []
            found += [_recurring_row(row) if recurring else _row(row) for row in rows]
            token = page.next_page_token
            if not token or len(found) >= limit:
                return found[:limit]


def _row(run: Any) -> dict[str, Any]:
    seconds = (run.finished_at - run.created_at).total_seconds() if _has_ended(run) else None
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": str(run.state).lower(),
        "created": run.created_at.isoformat(timespec="seconds"),
        "seconds": seconds,
        "recurring_run_id": run.recurring_run_id,
    }


def _has_ended(run: Any) -> bool:
    # a run that goes on has 1970 there
    return run.finished_at is not None and run.finished_at >= run.created_at


def _recurring_row(run: Any) -> dict[str, Any]:
    schedule = run.trigger.cron_schedule if run.trigger else None
    return {
        "recurring_run_id": run.recurring_run_id,
        "name": run.display_name,
        "state": str(run.status).lower(),
        "created": run.created_at.isoformat(timespec="seconds"),
        "cron": schedule.cron if schedule else None,
    }


def result(connection: Connection, run_id: str) -> dict[str, Any]:
    """A run as the command line prints it."""
    return {"run_id": run_id, "url": connection.page(run_id)}


def wait_for_end(
    connection: Connection,
    run_id: str,
    show: Show | None,
    retries: int,
    pods: cluster_steps.Pods | None = None,
    before: Sequence[Any] = (),
) -> dict[str, Any]:
    """The result of a run once it has succeeded.

    Args:
        pods: of the run; looked up where None.
        before: the states that the run had before it was retried; until another follows, it has not ended.

    Raises:
        GenreflowError: it ended otherwise, or it cannot be waited for any more; the run is named.
    """
    host, found = connection.host, result(connection, run_id)
    left = retries
    while True:
        with _name_run_in_errors(connection, run_id):
            run, pods = _final(connection, run_id, show, pods, before)
            state = str(run.state).lower()
            if state == GOOD_STATE:
                return found | {"state": state}
            failed = _failure(connection, run, pods) if state == "failed" else None
        if state not in FINAL_STATES:
            days = SECONDS_TO_WAIT // (24 * 3600)
            raise GenreflowError(
                f"Run {run_id} is still {state} after {days} days; see {found['url']}. "
                f"{_wait_command(host, run_id)}"
            )
        if failed is None or not failed.may_retry or not left:
            break
        left -= 1
        log.warning(
            "Step %s failed: %s. Retry %d of %d goes on from it.",
            failed.step, failed.reason.rstrip("."), retries - left, retries,
        )  # fmt: skip
        before = _history(run)
        with _name_run_in_errors(connection, run_id):
            _retry_again(connection, run_id)
    where = f" in step {failed.step}: {failed.reason.rstrip('.')}" if failed else ""
    raise GenreflowError(
        f"Run {run_id} ended as {state}{where}; see {found['url']}.{_advice(host, run_id, state, failed)}"
    )


def _advice(host: str, run_id: str, state: str, failed: "cluster_steps.Failure | None") -> str:
    if state != "failed":
        return ""
    if failed is not None and failed.cause == "memory":
        return (
            " A retry has the same limit: submit again with more, as --set resources.memory=8G; what "
            "succeeded comes from KFP's cache."
        )
    return f" genreflow retry {run_id} --host {host} goes on from there."


def _wait_command(host: str, run_id: str) -> str:
    """How to come back to a run that is not waited for any more."""
    return f"To wait on: genreflow wait {run_id} --host {host}."


def _pods(connection: Connection, run: Any) -> cluster_steps.Pods:
    """Where the pods of a run are, by its experiment; what they are called and do, by its pipeline version.

    What cannot be looked up is taken as usual: names for kubectl depend on it, and of a log the first try.
    """
    namespace, spec = connection.namespace, run.pipeline_spec
    version = run.pipeline_version_reference
    with contextlib.suppress(GenreflowError), translate_errors(connection.host):
        if connection.multi_user:
            namespace = connection.client.get_experiment(run.experiment_id).namespace
        if spec is None and version is not None:
            known = (version.pipeline_id, version.pipeline_version_id)
            spec = connection.client.get_pipeline_version(*known).pipeline_spec
    return cluster_steps.Pods(
        namespace or SINGLE_USER_NAMESPACE,
        cluster_steps.template_prefix(spec),
        cluster_steps.compiled_steps(spec),
    )


def _run(connection: Connection, run_id: str) -> Any:
    def look() -> Any:
        with translate_errors(connection.host):
            return connection.client.get_run(run_id)

    return repeat_while_unavailable(look)


def _ended(state: str) -> str:
    return {"skipped": "was skipped", "canceled": "was cancelled"}.get(state, state)


def _retry(connection: Connection, run_id: str) -> None:
    import kfp_server_api

    with translate_errors(connection.host):
        kfp_server_api.RunServiceApi(api_client(connection.client)).run_service_retry_run(run_id)


def _retry_again(connection: Connection, run_id: str) -> None:
    """Retry a run whose step failed perhaps because the API itself was restarted.

    Raises:
        GenreflowError: the API refuses, or was away for `UNAVAILABLE_SECONDS`.
    """
    over = time.monotonic() + UNAVAILABLE_SECONDS
    while True:
        try:
            return _retry(connection, run_id)
        except KubeflowUnavailableError as error:
            if time.monotonic() > over:
                raise
            log.warning("%s The retry is repeated.", error)
        except KubeflowRefusedError as error:
            # the response to the request before was lost, and the run goes on already
            with translate_errors(connection.host):
                if str(connection.client.get_run(run_id).state).lower() == "failed":
                    raise error from None
            return None
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _name_run_in_errors(connection: Connection, run_id: str) -> Iterator[None]:
    """Name the run, and how to come back to it, in whatever ends the waiting for it."""
    host = connection.host
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(
            f"Run {run_id} goes on: {connection.page(run_id)}\n{_wait_command(host, run_id)}\n"
            f"genreflow cancel {run_id} --host {host} ends it.\n"
        )
        raise
    except Exception as error:
        if isinstance(error, KubeflowRefusedError) and error.status == NOT_FOUND:
            raise
        words = str(error) if isinstance(error, GenreflowError) else f"{type(error).__name__}: {error}."
        raise GenreflowError(
            f"{words} Run {run_id} may go on without being waited for; see {connection.page(run_id)}. "
            f"{_wait_command(host, run_id)}"
        ) from error


def _final(
    connection: Connection,
    run_id: str,
    show: Show | None,
    pods: cluster_steps.Pods | None,
    before: Sequence[Any],
) -> tuple[Any, cluster_steps.Pods]:
    """The run as it ended, or as it is when `SECONDS_TO_WAIT` are over; and its pods.

    Args:
        pods: looked up where None.
        before: the states that the run had before it was retried; until another follows, it has not ended.

    Raises:
        KubeflowUnavailableError: the API was away for `UNAVAILABLE_SECONDS`.
        GenreflowError: the API refuses, or what answers is not the API.
    """
    host = connection.host
    over = time.monotonic() + SECONDS_TO_WAIT
    away_since: float | None = None
    warned: float | None = None
    while True:
        now = time.monotonic()
        try:
            with translate_errors(host):
                run = connection.client.get_run(run_id)
            if run.run_id is None:  # a login page, where the session of a cookie has ended
                raise no_api(host)
        except KubeflowUnavailableError as error:
            away_since = now if away_since is None else away_since
            if now - away_since > UNAVAILABLE_SECONDS or now > over:
                raise
            if warned is None or now - warned >= SECONDS_BETWEEN_SENTENCES:
                warned = now
                log.warning("%s Run %s is still waited for.", error, run_id)
        else:
            if away_since is not None:
                log.warning("Kubeflow at %s answers again.", host)
            away_since = warned = None
            pods = pods or _pods(connection, run)
            if show is not None:
                show(cluster_steps.states(run, pods))
            ended = str(run.state).lower() in FINAL_STATES and not (before and _history(run) == before)
            if ended or now > over:
                return run, pods
        time.sleep(POLL_SECONDS)


def _history(run: Any) -> list[Any]:
    return [(entry.update_time, entry.state) for entry in run.state_history or []]


def _failure(connection: Connection, run: Any, pods: cluster_steps.Pods) -> "cluster_steps.Failure | None":
    """Why a run failed; None where no step of it did."""
    pod = cluster_steps.failed_pod(run, pods)
    if pod is None:
        return None
    try:
        logs = (_log(connection, run.run_id, name) for name in pod.names)
        return cluster_steps.failure(pod.step, next((text for text in logs if text is not None), None))
    except NoLogsError:
        shown = _log_of_page(connection, run, pod, pods.namespace)
    return cluster_steps.failure(pod.step, shown) if shown else cluster_steps.unreadable(pod, pods.namespace)


class NoLogsError(Exception):
    """Logs cannot be read through this host, or not at this address."""


def _log(connection: Connection, run_id: str, pod: str) -> str | None:
    """The log of a pod from the API; None where there is none.

    Raises:
        NoLogsError: this host has no logs: KFP's page hands on to the API only what begins with its versions
            1 beta and 2 beta, and the logs' address does not.
        GenreflowError: the API was away for `UNAVAILABLE_SECONDS`, or refuses.
    """
    return _text(connection, f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")


def _log_of_page(
    connection: Connection, run: Any, pod: cluster_steps.FailedPod, namespace: str
) -> str | None:
    """The log of a pod from the server of KFP's page, which has an address of its own for logs.

    It reads the pod's log, or what Argo has archived of it. None where it shows neither: whether the pod is
    gone cannot be determined, as it responds to that, and to what it may not read, with the same status.

    Raises:
        KubeflowUnavailableError: it was away for `UNAVAILABLE_SECONDS`.
    """
    query = [("runid", run.run_id)]
    if run.created_at is not None:
        query.append(("createdat", run.created_at.date().isoformat()))
    if connection.multi_user:  # else it looks into its own, which it alone knows
        query.append(("podnamespace", namespace))
    for name in pod.names_for_page:
        with contextlib.suppress(NoLogsError, KubeflowRefusedError):
            text = _text(connection, "/k8s/pod/logs", [("podname", name), *query])
            if text:
                return text
    return None


def _text(connection: Connection, path: str, query: Sequence[tuple[str, str]] = ()) -> str | None:
    """What an address of the host responds with, as text; None where it has nothing.

    Raises:
        NoLogsError: the host has no such address.
        GenreflowError: the host was away for `UNAVAILABLE_SECONDS`, or refuses.
    """
    over = time.monotonic() + UNAVAILABLE_SECONDS
    while True:
        try:
            with translate_errors(connection.host):
                text: str = api_client(connection.client).call_api(
                    path,
                    "GET",
                    query_params=list(query),
                    response_type="str",
                    auth_settings=["Bearer"],
                    _return_http_data_only=True,
                )
            if text.lstrip()[:1] == "<":  # a page, not a log
                raise NoLogsError
            return text
        except KubeflowUnavailableError as error:
            if error.status == INTERNAL:  # also KFP's response where the pod is gone
                return None
            if time.monotonic() > over:
                raise
        except KubeflowRefusedError as error:
            if error.status in (401, 403):
                raise
            if error.status == NOT_FOUND:  # where the pod is gone KFP's response is 500
                raise NoLogsError from error
            return None
        time.sleep(POLL_SECONDS)
