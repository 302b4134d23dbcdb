"""The pipeline on Kubeflow: log in, submit, schedule, wait."""

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.errors import GenreflowError, SettingsError

if TYPE_CHECKING:
    import kfp

    from pipelines.settings import RunSettings

SECONDS_TO_WAIT = 7 * 24 * 3600
SECONDS_BETWEEN_LOOKS = 5
GOOD_STATE = "succeeded"
FINAL_STATES = (GOOD_STATE, "failed", "skipped", "canceled")
"""Of `V2beta1RuntimeState`. kfp's own `wait_for_run_completion` waits on where a run is cancelled."""
TOKEN, COOKIE = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
"""kfp's own variable; a token there is read again for every request, and so may be renewed meanwhile."""
LOG_IN = f"Log in with {TOKEN}, {TOKEN_FILE} or {COOKIE} (docs/kubeflow.md)"


def submit(
    settings: "RunSettings",
    host: str,
    namespace: str | None = None,
    experiment: str | None = None,
    cron: str | None = None,
    wait: bool = False,
) -> dict[str, Any]:
    """Compile the training pipeline and start it on Kubeflow, once or on a schedule.

    Args:
        settings: what to train on what; the source has to be one that the cluster's pods can reach.
        host: the KFP API's URL.
        namespace: the user's namespace, in a multi-user installation.
        experiment: the KFP experiment; MLflow's name for it where not given.
        cron: six fields (seconds first), as KFP's scheduler takes them.
        wait: until the run has ended; not with `cron`.

    Returns:
        `run_id` and `url` of the run, with `state` after waiting; `recurring_run_id` with `cron`.

    Raises:
        SettingsError: the pods are not told of an MLflow server that they share, or the file of the token
            cannot be read.
        GenreflowError: the API does not answer or refuses, or the awaited run did not succeed.
    """
    if cron and wait:
        raise SettingsError("--wait waits for one run, and --cron starts many; leave one of the two away.")
    import kfp_server_api
    import urllib3

    from pipelines.training import NAME, compile_to, environment

    tracking = environment(settings.resources).get("MLFLOW_TRACKING_URI", "")
    if not tracking.startswith(("http://", "https://")):
        raise SettingsError(
            "The pods need one MLflow server that all of them reach, and MLFLOW_TRACKING_URI "
            f"{f'is {tracking} for them' if tracking else 'names none'}: each would keep a store of its own. "
            "Set it in this shell, or with --set resources.environment.MLFLOW_TRACKING_URI=http://…"
        )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "training.yaml"
        compile_to(package, settings)
        try:
            # kfp prints where experiment and run are shown; stdout is for the result
            with contextlib.redirect_stdout(sys.stderr):
                client = _logged_in(host, namespace)
                group = client.create_experiment(experiment or settings.experiment, namespace=namespace)
                if group.experiment_id is None:  # kfp takes a page that is no JSON for an empty answer
                    raise GenreflowError(
                        f"What answers at {host} is not the KFP API, perhaps a login page. {LOG_IN}."
                    )
                if cron:
                    recurring = client.create_recurring_run(
                        experiment_id=group.experiment_id,
                        job_name=f"{NAME} {settings.profile}",
                        cron_expression=cron,
                        pipeline_package_path=str(package),
                        no_catchup=True,
                        max_concurrency=1,
                    )
                    return {"recurring_run_id": recurring.recurring_run_id}
                run = client.run_pipeline(
                    experiment_id=group.experiment_id,
                    job_name=f"{NAME} {settings.profile}",
                    pipeline_package_path=str(package),
                )
            result = {"run_id": run.run_id, "url": f"{host.rstrip('/')}/#/runs/details/{run.run_id}"}
            if not wait:
                return result
            state = _final_state(client, run.run_id)
        except kfp_server_api.ApiException as error:
            advice = f" {LOG_IN}." if error.status in (401, 403) else ""
            raise GenreflowError(
                f"Kubeflow at {host} refused: {error.status} {error.reason}.{advice}"
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GenreflowError(f"Kubeflow at {host} does not answer ({type(error).__name__}).") from error
    if state not in FINAL_STATES:
        days = SECONDS_TO_WAIT // (24 * 3600)
        raise GenreflowError(f"Run {run.run_id} is still {state} after {days} days; see {result['url']}.")
    if state != GOOD_STATE:
        raise GenreflowError(f"Run {run.run_id} ended as {state}; see {result['url']}.")
    return result | {"state": state}


def _logged_in(host: str, namespace: str | None) -> "kfp.Client":
    """A client that shows the token and the cookie of this shell's environment, where there are any.

    Raises:
        SettingsError: the file of the token cannot be read.
    """
    import kfp
    from kfp.client import ServiceAccountTokenVolumeCredentials

    class Client(kfp.Client):
        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            """Asked once, with its own error: kfp asks for 25 s and tells of a refusal as of silence."""
            return self._healthz_api.healthz_service_get_healthz()

    path = os.environ.get(TOKEN_FILE)
    if path and not os.access(path, os.R_OK):
        raise SettingsError(f"{TOKEN_FILE} names {path}, which cannot be read.")
    return Client(
        host=host,
        namespace=namespace or "kubeflow",
        existing_token=os.environ.get(TOKEN) or None,
        credentials=ServiceAccountTokenVolumeCredentials(path) if path else None,
        cookies=os.environ.get(COOKIE) or None,
    )


def _final_state(client: "kfp.Client", run_id: str) -> str:
    """The state in which the run ended, or is when `SECONDS_TO_WAIT` are over."""
    over = time.monotonic() + SECONDS_TO_WAIT
    while True:
        state = str(client.get_run(run_id).state).lower()
        if state in FINAL_STATES or time.monotonic() > over:
            return state
        time.sleep(SECONDS_BETWEEN_LOOKS)
