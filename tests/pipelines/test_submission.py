"""Submitting to Kubeflow, up to the HTTP edge: a real server that answers as the KFP API does."""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from certificates import Authority
from kfp import compiler, dsl, kubernetes
from kubeflow_api import Document, KubeflowApi

from components.image import BUILD_IMAGE, IMAGE, ROOT
from genreflow.core.errors import GenreflowError, SettingsError
from pipelines import cluster, kubeflow, submission
from pipelines.cli import app
from pipelines.reach import reachability_warnings, source_warnings
from pipelines.settings import settings
from pipelines.submission import compiled, submit

POST_RUN = "POST /apis/v2beta1/runs"
FIND_PIPELINE = "GET /apis/v2beta1/pipelines/names/genreflow-training"
MAKE_PIPELINE = "POST /apis/v2beta1/pipelines"
UPLOAD = "POST /apis/v2beta1/pipelines/upload_version"


def refusal(answer: Document) -> tuple[int, str]:
    """An answer of a real installation as the server gives it."""
    return answer["status"], json.dumps(answer["body"])


def test_a_run_of_an_uploaded_version_is_started(api: KubeflowApi) -> None:
    result = submit(settings(source="synthetic?clips=40"), api.url, experiment="genres")
    ((pipeline, version),) = api.versions
    assert result == {
        "run_id": "r1",
        "url": f"{api.url}/#/runs/details/r1",
        "pipeline_version": version,
    }
    assert version.startswith(f"{BUILD_IMAGE.partition(':')[2]}-encoder-")  # whose digest is of all code
    assert api.pipelines == {"genreflow-training": pipeline}
    assert api.experiments == {"genres": "e1"}
    (run,) = api.started
    assert run["pipeline_version_reference"] == {
        "pipeline_id": pipeline,
        "pipeline_version_id": f"id-of-{version}",
    }
    assert "pipeline_spec" not in run
    assert run["experiment_id"] == "e1"
    spec, *_ = yaml.safe_load_all(api.versions[pipeline, version])
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == run["runtime_config"]["parameters"].keys()
    assert run["runtime_config"]["parameters"]["source"] == "synthetic?clips=40"
    assert run["runtime_config"]["parameters"]["batch"] == 8


def test_a_version_is_uploaded_once_and_runs_have_settings_of_their_own(api: KubeflowApi) -> None:
    for epochs in (3, 5):
        submit(settings(assignments=[f"training.epochs={epochs}"]), api.url)
    assert api.calls(UPLOAD) == api.calls(MAKE_PIPELINE) == len(api.versions) == 1
    first, second = (
        json.loads(run["runtime_config"]["parameters"]["training_settings"]) for run in api.started
    )
    assert (first["epochs"], second["epochs"]) == (3, 5)


@pytest.mark.parametrize(
    "other",
    [
        "resources.cpu=3",
        "resources.environment.OMP_NUM_THREADS=2",
        "resources.volumes={data: /data}",
        "training.checkpoint_uri=s3://bucket/prefix",
        "family=linear",
    ],
)
def test_what_is_compiled_in_makes_a_version_of_its_own(other: str, api: KubeflowApi) -> None:
    usual, changed = compiled(settings()), compiled(settings(assignments=[other]))
    assert usual.version != changed.version
    assert compiled(settings(assignments=[other])).version == changed.version


def test_another_image_makes_a_version_of_its_own(api: KubeflowApi, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = compiled(settings()).version
    monkeypatch.setenv("GENREFLOW_IMAGE", "registry.example.org/genreflow@sha256:0")
    assert compiled(settings()).version != usual


def test_without_the_cache_no_step_is_taken_from_it(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["submit", "--host", api.url], standalone_mode=False)
    app(["submit", "--host", api.url, "--no-cache"], standalone_mode=False)
    cached, anew = api.versions.values()
    assert b"enableCache: true" in cached
    assert b"enableCache: true" not in anew


@pytest.mark.parametrize("cron", [None, "0 0 3 * * *"])
def test_service_account_and_pipeline_root_are_the_runs(
    cron: str | None, api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["submit", "--host", api.url, "--service-account", "trainer", "--pipeline-root", "s3://b/p"]
    app(typed + (["--cron", cron] if cron else []), standalone_mode=False)
    job = api.posted["recurringruns" if cron else "runs"]
    assert job["service_account"] == "trainer"
    assert job["runtime_config"]["pipeline_root"] == "s3://b/p"
    assert job["pipeline_version_reference"]["pipeline_id"] == "p1"


@pytest.mark.usefixtures("soon")
def test_what_another_submission_created_meanwhile_is_reused(
    api: KubeflowApi, real: Callable[[str], Document]
) -> None:
    submit(settings(), api.url)
    ((pipeline, version),) = api.versions
    missing = refusal(real("error_no_such_run"))
    api.answers = {
        FIND_PIPELINE: [missing, None],
        f"GET /apis/v2beta1/pipelines/{pipeline}/versions": [(200, "{}"), None],
        "GET /apis/v2beta1/experiments": [(200, "{}"), None],
    }
    assert submit(settings(), api.url)["pipeline_version"] == version
    assert api.calls(MAKE_PIPELINE) == api.calls(UPLOAD) == 2  # the second time answered by 409
    assert len(api.versions) == len(api.experiments) == 1
    assert len(api.started) == 2


def test_submissions_at_once_share_pipeline_and_version(api: KubeflowApi) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "submit", "--host", api.url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert results[0]["pipeline_version"] == results[1]["pipeline_version"]
    assert len(api.versions) == len(api.pipelines) == len(api.experiments) == 1
    assert len({run["display_name"] for run in api.started}) == 2


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "call",
    [
        "GET /apis/v2beta1/healthz",
        "GET /apis/v2beta1/experiments",
        FIND_PIPELINE,
        MAKE_PIPELINE,
        UPLOAD,
        POST_RUN,
    ],
)
def test_a_minute_of_503_delays_a_submission(
    call: str, api: KubeflowApi, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: tuple[int, str] = (503, "no healthy upstream")
    api.answers[call] = [away, away, away, None]
    assert submit(settings(), api.url)["run_id"] == "r1"
    said = caplog.text.count("503 no healthy upstream. Requests are repeated for 90 seconds.")
    assert said == (call != POST_RUN)
    assert api.answers[call] == [None]
    assert len(api.started) == 1
    monkeypatch.setattr(kubeflow, "SECONDS_TO_REPEAT", 0)
    api.answers[call] = [away]
    api.versions.clear()
    api.pipelines.clear()
    with pytest.raises(GenreflowError, match="does not answer: 503 no healthy upstream"):
        submit(settings(), api.url)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("call", [MAKE_PIPELINE, UPLOAD, "POST /apis/v2beta1/experiments"])
def test_a_request_whose_response_was_lost_is_executed_once(call: str, api: KubeflowApi) -> None:
    api.lost[call] = 1
    assert submit(settings(), api.url)["run_id"] == "r1"
    assert api.calls(call) == 2
    assert len(api.pipelines) == len(api.versions) == len(api.experiments) == 1


@pytest.mark.usefixtures("soon")
def test_a_run_whose_answer_was_lost_is_found_by_its_name(api: KubeflowApi) -> None:
    api.lost[POST_RUN] = 1
    assert submit(settings(), api.url, wait=True)["state"] == "succeeded"
    assert len(api.started) == api.calls(POST_RUN) == 1


@pytest.mark.parametrize(
    ("tag", "assignment", "refused"),
    [
        ("2.4.1", "resources.volumes={data: /data}", "is 2.4, and .* volumes or secrets, needs 2.5 or newer"),
        ("v1.8.22", "resources.cpu=2", "is 1.8, and .* needs 2.0 or newer"),
        ("2.5.0", "resources.volumes={data: /data}", None),
        ("2.4.1", "resources.cpu=2", None),
        ("unknown", "resources.volumes={data: /data}", None),
    ],
)
def test_a_kubeflow_that_is_too_old_is_refused(
    tag: str, assignment: str, refused: str | None, api: KubeflowApi
) -> None:
    api.health |= {"tag_name": tag}
    chosen = settings(assignments=[assignment])
    if refused is None:
        submit(chosen, api.url)
        return
    with pytest.raises(SettingsError, match=refused):
        submit(chosen, api.url)
    assert api.posted == {}


def test_a_security_context_needs_a_newer_kubeflow(tmp_path: Path) -> None:
    @dsl.component(base_image="image")
    def nothing() -> None:
        pass

    @dsl.pipeline
    def restricted() -> None:
        kubernetes.set_security_context(nothing(), run_as_user=1000)

    compiler.Compiler().compile(restricted, str(tmp_path / "restricted.yaml"))
    documents = list(yaml.safe_load_all((tmp_path / "restricted.yaml").read_text()))
    assert submission.Compiled("", documents, {}, "").oldest_release()[0] == (2, 16)


def test_an_installation_of_several_users_needs_a_namespace(api: KubeflowApi) -> None:
    api.health |= {"multi_user": True}
    for use in (lambda: submit(settings(), api.url), lambda: cluster.runs(api.url)):
        with pytest.raises(SettingsError, match=r"serves several users.*--namespace"):
            use()
    submit(settings(), api.url, namespace="me")
    assert api.posted["experiments"]["namespace"] == api.posted["pipelines"]["namespace"] == "me"


def test_a_namespace_that_is_not_the_users_gives_an_error_message(api: KubeflowApi) -> None:
    api.health |= {"multi_user": True}
    body = {"code": 7, "message": "Failed to list experiments: User 'me' is not authorized with reason: "}
    api.answers["GET /apis/v2beta1/experiments"] = [(403, json.dumps(body))]
    with pytest.raises(GenreflowError, match=r"403 .* Is the namespace right, and yours"):
        submit(settings(), api.url, namespace="nobodys")


def test_an_installation_of_a_single_user_gets_no_namespace(
    api: KubeflowApi, caplog: pytest.LogCaptureFixture
) -> None:
    submit(settings(), api.url, namespace="kubeflow")
    assert "single user and no namespaces: --namespace is ignored" in caplog.text
    assert not any(body.get("namespace") for body in api.posted.values())


@pytest.mark.usefixtures("soon")
def test_an_expired_token_gives_an_error_message(api: KubeflowApi) -> None:
    api.answers[POST_RUN] = [(401, json.dumps({"error": "Jwt is expired"}))]
    with pytest.raises(
        GenreflowError, match=r"refused: 401 Jwt is expired.*Log in anew with KF_PIPELINES_TOKEN"
    ):
        submit(settings(), api.url)


def test_folders_on_no_volume_and_an_image_of_no_registry_give_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: KubeflowApi
) -> None:
    chosen = settings(
        "quickstart", "/data/gtzan?x=1", assignments=["training.checkpoint_uri=/state/checkpoints"]
    )
    source, checkpoints, image = reachability_warnings(chosen)
    assert source.startswith("source is /data/gtzan, a path of this machine")
    assert "resources.volumes={my-claim: /data}" in source
    (below_root,) = source_warnings("--also-test", "/others", chosen.resources)
    assert "resources.volumes={my-claim: /others}" in below_root  # no claim is mounted at /
    assert checkpoints.startswith("training.checkpoint_uri is /state/checkpoints")
    assert f"The image {IMAGE} names no registry" in image
    mounted = settings(
        "quickstart",
        "/data/gtzan",
        assignments=["resources.volumes={data: /data, state: /state}", "training.checkpoint_uri=/state/c"],
    )
    for named in ("registry.example.org/genreflow:1", "localhost:5000/genreflow:1", "host:5000/g@sha256:0"):
        monkeypatch.setenv("GENREFLOW_IMAGE", named)
        assert reachability_warnings(mounted) == []
    monkeypatch.setenv("GENREFLOW_BUILD_IMAGE", "genreflow-build:1")
    (build,) = reachability_warnings(mounted)
    assert "The image genreflow-build:1 names no registry" in build
    assert "name it with GENREFLOW_BUILD_IMAGE" in build
    monkeypatch.setenv("GENREFLOW_IMAGE", "genreflow/pipeline:1")
    assert len(reachability_warnings(mounted)) == 1


@pytest.mark.parametrize("command", ["compile", "submit"])
def test_compile_and_submit_warn_of_what_pods_may_not_reach(
    command: str, api: KubeflowApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rest = ["-o", str(tmp_path / "run.yaml")] if command == "compile" else ["--host", api.url]
    app([command, *rest, "--source", "/data/gtzan", "--family", "mfcc_cnn"], standalone_mode=False)
    assert "source is /data/gtzan, a path of this machine" in caplog.text
    assert "names no registry" in caplog.text


LOGINS = [
    ("KF_PIPELINES_TOKEN", "secret", {"authorization": "Bearer secret"}),
    ("KF_PIPELINES_SA_TOKEN_PATH", "token", {"authorization": "Bearer in-the-file"}),
    ("KF_PIPELINES_COOKIE", "authservice_session=abc", {"Cookie": "authservice_session=abc"}),
]


@pytest.mark.parametrize(("variable", "value", "headers"), LOGINS)
@pytest.mark.parametrize("turned_away", [(401, "Unauthorized"), (403, "RBAC: access denied"), (200, "Login")])
def test_a_token_or_cookie_of_the_environment_is_shown_to_kubeflow(
    api: KubeflowApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    headers: dict[str, str],
    turned_away: tuple[int, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("token").write_text("in-the-file\n")
    api.wanted, api.turned_away = headers, turned_away
    with pytest.raises(GenreflowError, match="KF_PIPELINES_TOKEN"):
        submit(settings(), api.url)
    assert api.posted == {}
    monkeypatch.setenv(variable, value)
    assert submit(settings(), api.url, wait=True)["state"] == "succeeded"


def test_a_token_file_that_is_not_there_gives_an_error_message(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="KF_PIPELINES_SA_TOKEN_PATH"):
        submit(settings(), api.url)


def test_the_readmes_lines_submit_a_run(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    section = readme.partition("## On Kubeflow")[2].partition("\n## ")[0].splitlines()
    for line in section:
        if line.startswith("export "):
            name, _, value = shlex.split(line, comments=True)[1].partition("=")
            monkeypatch.setenv(name, value.replace("…", "secret"))
    (line,) = [line for line in section if line.startswith("genreflow submit ")]
    typed = shlex.split(line)[1:]
    typed[typed.index("--host") + 1] = api.url
    api.wanted = {"authorization": "Bearer secret"}
    api.health |= {"multi_user": True}
    app(typed, standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    (uploaded,) = api.versions.values()
    assert b"registry.example.org" in uploaded


def test_kfp_writes_nothing_among_the_results(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    submit(settings(), api.url)
    assert capsys.readouterr().out == ""


def test_a_schedule_becomes_a_recurring_run(api: KubeflowApi) -> None:
    assert submit(settings(), api.url, cron="0 0 3 * * *")["recurring_run_id"] == "r1"
    job = api.posted["recurringruns"]
    assert job["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert "runs" not in api.posted


def test_an_api_that_does_not_answer_gives_an_error_message(api: KubeflowApi) -> None:
    url = api.url
    api.shutdown()
    api.server_close()
    with pytest.raises(GenreflowError, match=r"does not answer: nothing listens on port \d+ of 127.0.0.1"):
        submit(settings(), url)


def test_a_host_that_is_not_there_is_distinguished_from_one_that_refuses(api: KubeflowApi) -> None:
    with pytest.raises(GenreflowError, match=r"there is no host kubeflow\.invalid: check --host"):
        submit(settings(), "https://kubeflow.invalid/pipeline")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, "not found"), "which has no /apis/v2beta1/healthz"),
        ((200, "<html>Login</html>"), "perhaps a login page"),
        ((200, '"ok"'), "perhaps a login page"),
    ],
)
def test_another_server_than_the_api_gives_an_error_message(
    answer: tuple[int, str], words: str, api: KubeflowApi
) -> None:
    api.answers["GET /apis/v2beta1/healthz"] = [answer]
    with pytest.raises(GenreflowError, match=f"is not the KFP API, {words}. Check --host"):
        submit(settings(), api.url)


def test_options_that_do_not_go_together_are_rejected(api: KubeflowApi) -> None:
    for use in (
        lambda: submit(settings(), api.url, retries=2),
        lambda: cluster.retry("r1", api.url, retries=2),
    ):
        with pytest.raises(SettingsError, match=r"--retries .* add --wait"):
            use()
    with pytest.raises(SettingsError, match="--pipeline-root is /artifacts, which names no bucket"):
        submit(settings(), api.url, pipeline_root="/artifacts")
    assert api.called == []


@pytest.mark.parametrize("host", ["kubeflow.example.org", "localhost:8080", "ftp://kubeflow", "https://"])
def test_a_host_without_a_scheme_gives_an_error_message(host: str, api: KubeflowApi) -> None:
    for use in (
        lambda: submit(settings(), host),
        lambda: cluster.runs(host),
        lambda: cluster.cancel("r1", host),
    ):
        with pytest.raises(SettingsError, match=f"--host is {host}, .*: write https://"):
            use()


def test_a_server_that_never_answers_gives_an_error_message(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow, "SECONDS_TO_ANSWER", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(GenreflowError, match=r"no answer within 0\.5 seconds"):
            cluster.runs(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 5


def test_kfps_own_message_is_shown(api: KubeflowApi, real: Callable[[str], Document]) -> None:
    for name in ("error_no_such_run", "error_pipeline_name_taken", "error_retry_of_succeeded"):
        answer = real(name)
        words = answer["body"].get("message") or answer["body"]["error_message"]
        api.answers["POST /apis/v2beta1/runs"] = [(answer["status"], json.dumps(answer["body"]))]
        with pytest.raises(GenreflowError, match=re.escape(f"refused: {answer['status']} {words}")):
            submit(settings(), api.url)
    api.answers["POST /apis/v2beta1/runs"] = [(400, "<html>Bad</html>")]
    with pytest.raises(GenreflowError, match="refused: 400 Bad Request"):
        submit(settings(), api.url)


@pytest.mark.usefixtures("soon")
def test_a_schedule_whose_response_was_lost_is_reported_as_uncertain(api: KubeflowApi) -> None:
    api.lost["POST /apis/v2beta1/recurringruns"] = 1
    with pytest.raises(GenreflowError, match="run was made is not known: genreflow runs --recurring"):
        submit(settings(), api.url, cron="@daily")


@pytest.mark.usefixtures("soon")
def test_a_start_that_is_listed_nowhere_is_reported_as_uncertain(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "SECONDS_TO_APPEAR", 0.1)
    api.answers[POST_RUN] = [(504, "")]
    with pytest.raises(
        GenreflowError, match=r"504 Gateway Timeout.*Whether the run '.*' was started is not known"
    ):
        submit(settings(), api.url)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def secure(api: KubeflowApi, authority: Authority) -> KubeflowApi:
    """The API behind a certificate of a private authority."""
    api.socket = authority.context("127.0.0.1").wrap_socket(api.socket, server_side=True)
    api.scheme = "https"
    return api


@pytest.mark.parametrize(
    "variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"]
)
def test_a_private_authority_is_trusted_where_it_is_named(
    variable: str, secure: KubeflowApi, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in kubeflow.CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(GenreflowError, match=r"is not trusted: .* no authority .* --ca-cert, SSL_CERT_FILE"):
        submit(settings(), secure.url)
    assert submit(settings(), secure.url, ca_cert=authority.file)["run_id"] == "r1"
    place = authority.folder if variable == "SSL_CERT_DIR" else authority.file
    monkeypatch.setenv(variable, str(place))
    assert submit(settings(), secure.url, wait=True)["state"] == "succeeded"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_no_certificates_gives_an_error_message(
    content: str | None, api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(SettingsError, match=r"--ca-cert names .*ca\.pem, which cannot be used"):
        submit(settings(), api.url, ca_cert=tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(SettingsError, match=r"SSL_CERT_FILE names .*ca\.pem, which cannot be used"):
        submit(settings(), api.url)


@pytest.mark.parametrize(
    ("name", "expired", "words"),
    [("kubeflow.example.org", False, "is of other names than 127.0.0.1"), ("127.0.0.1", True, "has expired")],
)
def test_what_is_wrong_with_a_certificate_is_reported(
    name: str, expired: bool, words: str, api: KubeflowApi, authority: Authority
) -> None:
    api.socket = authority.context(name, expired).wrap_socket(api.socket, server_side=True)
    with pytest.raises(GenreflowError, match=f"is not trusted: its certificate {words}"):
        submit(settings(), api.url.replace("http", "https"), ca_cert=authority.file)


def test_https_to_a_server_without_tls_gives_an_error_message(api: KubeflowApi) -> None:
    with pytest.raises(GenreflowError, match=r"A TLS connection .* write http://"):
        submit(settings(), api.url.replace("http", "https"))


def test_kfps_warnings_are_kept_from_the_terminal(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        submit(settings(), api.url)
    assert not [one for one in caught if issubclass(one.category, FutureWarning)]


@pytest.mark.parametrize("cron", ["0 3 * * *", "* * * *", "0 0 3 * * * 2027", "@dayly"])
def test_a_schedule_that_kfp_reads_otherwise_is_rejected(cron: str, api: KubeflowApi) -> None:
    fields = len(cron.split())
    with pytest.raises(SettingsError, match=rf"has {fields} fields?, .* six, seconds first"):
        submit(settings(), api.url, cron=cron)
    if fields == 5:
        with pytest.raises(SettingsError, match=re.escape(f"write '0 {cron}'")):
            submit(settings(), api.url, cron=cron)
    assert api.called == []


@pytest.mark.parametrize("cron", ["0 0 3 * * *", "@daily", "@every 6h"])
def test_schedules_that_kfp_accepts_are_accepted(cron: str, api: KubeflowApi) -> None:
    assert submit(settings(), api.url, cron=cron)["recurring_run_id"] == "r1"


def test_waiting_for_a_schedule_is_refused() -> None:
    with pytest.raises(SettingsError, match="--wait"):
        submit(settings(), "http://127.0.0.1:1", cron="0 0 3 * * *", wait=True)


@pytest.mark.parametrize("tracking", [None, "sqlite:///mlflow.db", "mlruns", "file:///mlruns"])
def test_pods_without_a_shared_mlflow_server_are_refused(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, tracking: str | None
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if tracking is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    with pytest.raises(SettingsError, match="one MLflow server"):
        submit(settings(), api.url)
    if tracking is not None:
        with pytest.raises(SettingsError, match=tracking):
            submit(settings(assignments=[f"resources.environment.MLFLOW_TRACKING_URI={tracking}"]), api.url)
    assert api.posted == {}
    server = "resources.environment.MLFLOW_TRACKING_URI=http://mlflow:5000"
    assert submit(settings(assignments=[server]), api.url)["run_id"] == "r1"


@pytest.mark.parametrize("tracking", ["http://127.0.0.1:5000", "http://localhost:5000", "https://[::1]:5000"])
def test_pods_get_no_mlflow_address_of_this_machine(
    tracking: str, api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI is an address of this machine only"):
        submit(settings(), api.url)
    own = f"resources.environment.MLFLOW_TRACKING_URI={tracking}"
    with pytest.raises(SettingsError, match="what a pod reaches there is itself"):
        submit(settings(assignments=[own]), api.url)
    assert api.posted == {}
    for given in (
        "resources.environment.MLFLOW_TRACKING_URI=http://mlflow:5000",
        "resources.secrets.mlflow={uri: MLFLOW_TRACKING_URI}",
    ):
        assert submit(settings(assignments=[given]), api.url)["run_id"] == "r1"
    assert len(api.versions) == 2
    assert not any(tracking.encode() in uploaded for uploaded in api.versions.values())
