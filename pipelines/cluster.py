"""The pipeline on Kubeflow: submit, schedule, wait."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.errors import GenreflowError, SettingsError

if TYPE_CHECKING:
    from pipelines.settings import RunSettings

SECONDS_TO_WAIT = 7 * 24 * 3600
GOOD_STATES = ("succeeded",)


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
        SettingsError: the pods are not told of an MLflow server that they share.
        GenreflowError: the API does not answer or refuses, or the awaited run did not succeed.
    """
    if cron and wait:
        raise SettingsError("--wait waits for one run, and --cron starts many; leave one of the two away.")
    import kfp
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
            client = kfp.Client(host=host, namespace=namespace or "kubeflow")
            group = client.create_experiment(experiment or settings.experiment, namespace=namespace)
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
            ended = client.wait_for_run_completion(run.run_id, timeout=SECONDS_TO_WAIT)
        except kfp_server_api.ApiException as error:
            raise GenreflowError(f"Kubeflow at {host} refused: {error.status} {error.reason}.") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GenreflowError(f"Kubeflow at {host} does not answer ({type(error).__name__}).") from error
    state = str(ended.state).lower()
    if state not in GOOD_STATES:
        raise GenreflowError(f"Run {run.run_id} ended as {state}; see {result['url']}.")
    return result | {"state": state}
