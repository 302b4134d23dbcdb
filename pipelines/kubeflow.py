"""The KFP API: log-in, certificates, time limits, and its errors as sentences."""

import contextlib
import json
import logging
import os
import re
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from genreflow.core.errors import GenreflowError, SettingsError, one_line

if TYPE_CHECKING:
    import kfp
    import kfp_server_api

TOKEN, COOKIE = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
"""kfp's own variable; a token there is read again for every request, and so may be renewed meanwhile."""
LOG_IN = f"Log in with {TOKEN}, {TOKEN_FILE} or {COOKIE} (docs/kubeflow.md)"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name certificates of authorities: OpenSSL's, those of requests and of curl."""
SECONDS_A_RUN_MAY_TAKE = 7 * 24 * 3600
"""As long as a run is waited for, and as long as Argo may retry a step, counted from its first attempt."""
SECONDS_TO_CONNECT = 10
SECONDS_TO_ANSWER = 60
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of a server, or of the proxy in front of it, that may change in a while."""
SECONDS_TO_REPEAT = 90
SECONDS_BETWEEN_TRIES = 5
"""Of an idempotent request while the API is away: a restart of its pod."""
NOT_FOUND = 404
RELEASE = re.compile(r"^v?(\d+)\.(\d+)\b")

Answer = TypeVar("Answer")

log = logging.getLogger("genreflow")


class KubeflowUnavailableError(GenreflowError):
    """The KFP API does not respond now, or the connection was lost: the same request may succeed later.

    `status` is the HTTP status of the response; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class KubeflowRefusedError(GenreflowError):
    """The KFP API answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connection(NamedTuple):
    """The KFP API of an installation, logged in to."""

    host: str
    client: "kfp.Client"
    multi_user: bool
    namespace: str | None
    """The user's; None where none was named, and in a single-user installation, which knows none."""
    release: tuple[int, int] | None
    """Of Kubeflow Pipelines; None where the installation does not report it."""

    def page(self, run_id: str) -> str:
        """The address of a run in KFP's web page."""
        return f"{self.host.rstrip('/')}/#/runs/details/{run_id}"

    def own_namespace(self) -> str | None:
        """The user's namespace where the installation has several, else None.

        Raises:
            SettingsError: there are several, and none was named.
        """
        if self.multi_user and not self.namespace:
            raise SettingsError(
                f"Kubeflow at {self.host} serves several users, each with a namespace: name yours with "
                "--namespace."
            )
        return self.namespace


def connected(host: str, namespace: str | None = None, ca_cert: Path | None = None) -> Connection:
    """The API, by a client that sends the token and the cookie of this shell's environment, if any.

    Args:
        host: the URL of the KFP API.
        namespace: the user's namespace, in a multi-user installation; where None, the one in kfp's own
            configuration.
        ca_cert: certificates of authorities in PEM; where None, those that the variables in `CERTIFICATES`
            name. They are trusted besides the public ones.

    Raises:
        SettingsError: the URL has no scheme, or the file of the token or of certificates cannot be read.
        KubeflowUnavailableError: nothing answers there.
        GenreflowError: the certificate is not trusted, or the log-in is refused.
    """
    check_host(host)
    token_file = os.environ.get(TOKEN_FILE)
    if token_file and not os.access(token_file, os.R_OK):
        raise SettingsError(f"{TOKEN_FILE} names {token_file}, which cannot be read.")
    trusted = _trusted(ca_cert)

    def connect() -> tuple["kfp.Client", Any]:
        try:
            with translate_errors(host):
                client = _client(host, token_file, trusted)
                # kfp takes a page that is no JSON for an empty answer
                text = client._healthz_api.healthz_service_get_healthz(_preload_content=False).data
        except KubeflowRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            raise no_api(host, "which has no /apis/v2beta1/healthz") from error
        try:
            health = json.loads(text)
        except ValueError:
            health = None
        if not isinstance(health, dict):
            raise no_api(host)
        return client, health

    client, health = repeat_while_unavailable(connect, answered_only=True)
    multi_user = health.get("multi_user") is True
    if namespace and not multi_user:
        log.warning("Kubeflow at %s has a single user and no namespaces: --namespace is ignored.", host)
    release = RELEASE.match(str(health.get("tag_name") or ""))
    return Connection(
        host,
        client,
        multi_user,
        (namespace or client.get_user_namespace() or None) if multi_user else None,
        (int(release[1]), int(release[2])) if release else None,
    )


def repeat_while_unavailable(call: Callable[[], Answer], answered_only: bool = False) -> Answer:
    """What an idempotent call returns, repeated while the API is away.

    Args:
        answered_only: repeat it only after a response, such as a gateway's 503, and not where there was none:
            then a wrong address is the likelier reason.

    Raises:
        KubeflowUnavailableError: it was away for `SECONDS_TO_REPEAT`.
    """
    over = time.monotonic() + SECONDS_TO_REPEAT
    warned = False
    while True:
        try:
            return call()
        except KubeflowUnavailableError as error:
            if time.monotonic() >= over or (answered_only and error.status is None):
                raise
            if not warned:
                warned = True
                log.warning("%s Requests are repeated for %d seconds.", error, SECONDS_TO_REPEAT)
        time.sleep(SECONDS_BETWEEN_TRIES)


def _client(host: str, token_file: str | None, trusted: ssl.SSLContext | None) -> "kfp.Client":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp's word on backends older than 2.0
        import kfp
        import kfp_server_api
        import urllib3
        from kfp.client import ServiceAccountTokenVolumeCredentials

        class Rest(kfp_server_api.rest.RESTClientObject):
            """kfp's own waits for ever and knows no authorities but certifi's."""

            def __init__(self, configuration: Any) -> None:
                super().__init__(configuration)
                pools = self.pool_manager.connection_pool_kw
                pools["retries"] = urllib3.Retry(total=3, connect=0, read=0, redirect=3, status=0, other=0)
                if trusted is not None:
                    pools.pop("ca_certs", None)
                    pools["ssl_context"] = trusted

            def request(self, *arguments: Any, **named: Any) -> Any:
                named["_request_timeout"] = named.get("_request_timeout") or (
                    SECONDS_TO_CONNECT,
                    SECONDS_TO_ANSWER,
                )
                return super().request(*arguments, **named)

        class Client(kfp.Client):
            """With one connection for all parts of the API, looked at once it is there."""

            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                """One request, with its own error: kfp repeats it for 25 s and hides a refusal."""
                api = self._healthz_api.api_client
                api.rest_client = Rest(self._existing_config)
                return self._healthz_api.healthz_service_get_healthz()

        client = Client(
            host=host,
            existing_token=os.environ.get(TOKEN) or None,
            credentials=ServiceAccountTokenVolumeCredentials(token_file) if token_file else None,
            cookies=os.environ.get(COOKIE) or None,
        )
        api_client(client).rest_client = Rest(client._existing_config)
        return client


def no_api(host: str, why: str = "perhaps a login page") -> GenreflowError:
    """The error where something answers that is not the API."""
    return GenreflowError(
        f"What answers at {host} is not the KFP API, {why}. Check --host, which behind Kubeflow's own page "
        f"ends in /pipeline. {LOG_IN}."
    )


def api_client(client: "kfp.Client") -> "kfp_server_api.ApiClient":
    """What sends the requests of a client."""
    return client._run_api.api_client


def check_host(host: str) -> None:
    """Nothing where a URL names a server.

    Raises:
        SettingsError: it has no scheme, or no name.
    """
    if "://" not in host:
        raise SettingsError(f"--host is {host}, which has no scheme: write https://{host} or http://{host}.")
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"--host is {host}, which is no address of a server: write https://NAME or http://NAME:PORT."
        )


@contextlib.contextmanager
def translate_errors(host: str) -> Iterator[None]:
    """Turn what kfp and the network raise into a sentence.

    Raises:
        KubeflowUnavailableError: nothing answers, or not now.
        KubeflowRefusedError: the API answered with an error.
        GenreflowError: its certificate is not trusted, or what answers is not the API.
    """
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        if not error.status:
            raise _unreachable(host, RuntimeError(error.reason)) from error
        if error.status in TEMPORARY:
            raise KubeflowUnavailableError(
                f"Kubeflow at {host} does not answer: {error.status} {_message(error)}.", error.status
            ) from error
        advice = {
            401: f" {LOG_IN.replace('Log in', 'Log in anew')}.",
            403: f" Is the namespace right, and yours? {LOG_IN}.",
        }.get(error.status, "")
        raise KubeflowRefusedError(
            f"Kubeflow at {host} refused: {error.status} {_message(error)}.{advice}", error.status
        ) from error
    except (FileNotFoundError, PermissionError) as error:
        raise SettingsError(f"{error.filename} cannot be read ({error.strerror}).") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _unreachable(host, error) from error


def _unreachable(host: str, error: BaseException) -> GenreflowError:
    """The error with why no answer came."""
    import urllib3

    cause = getattr(error, "reason", None) or error
    name, port = urlsplit(host).hostname, urlsplit(host).port
    port = port or (443 if host.startswith("https://") else 80)
    text = str(cause)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return GenreflowError(f"Kubeflow at {host} is not trusted: {_certificate(text, str(name))}.")
    if isinstance(cause, urllib3.exceptions.SSLError | ssl.SSLError) or "SSLError" in text:
        return GenreflowError(
            f"A TLS connection to Kubeflow at {host} cannot be established "
            f"({one_line(cause)[:200].rstrip('.')}): if it does not use TLS, write http:// instead of https://."
        )
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        why = f"there is no host {name}: check --host, and whether a VPN is needed"
    elif "Connection refused" in text:
        why = (
            f"nothing listens on port {port} of {name}: check the port, and whether kubectl port-forward runs"
        )
    elif isinstance(cause, urllib3.exceptions.NewConnectionError):
        why = f"no connection to {name}: {text.rpartition('] ')[2].rstrip('.')}"
    elif isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
        why = f"no connection to port {port} of {name} within {SECONDS_TO_CONNECT} seconds"
    elif isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError):
        why = f"no answer within {SECONDS_TO_ANSWER} seconds"
    elif isinstance(cause, urllib3.exceptions.ProtocolError | ConnectionError):
        why = "the connection was closed"
    else:
        why = type(cause).__name__
    return KubeflowUnavailableError(f"Kubeflow at {host} does not answer: {why}.")


def _certificate(text: str, name: str) -> str:
    """What is wrong with a certificate, from OpenSSL's words."""
    if "mismatch" in text or "not valid for" in text:
        return f"its certificate is of other names than {name}"
    if "expired" in text:
        return "its certificate has expired"
    if "not yet valid" in text:
        return "its certificate is not valid yet: is this machine's clock right?"
    return (
        "its certificate is signed by no authority that is known here: name the authority's own certificate "
        f"with --ca-cert, {CERTIFICATES[0]} or {CERTIFICATES[2]}"
    )


def _message(error: "kfp_server_api.ApiException") -> str:
    """KFP's own words on an error where it has some, else the status line's."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else (error.body or "")
    try:
        document = json.loads(body)
        text = document.get("message") or document.get("error_message") or document.get("error")
    except (ValueError, AttributeError):
        text = None if "<" in body else body
    return one_line(RuntimeError(text or error.reason or "")).rstrip(".")


def _trusted(ca_cert: Path | None) -> ssl.SSLContext | None:
    """The authorities to trust; None where nothing but the public ones was named."""
    named = {"--ca-cert": str(ca_cert)} if ca_cert else {}
    named = named or {variable: os.environ[variable] for variable in CERTIFICATES if os.environ.get(variable)}
    if not named:
        return None
    import certifi

    context = ssl.create_default_context(cafile=certifi.where())
    for what, place in named.items():
        try:
            if Path(place).is_dir():
                context.load_verify_locations(capath=place)
            else:
                context.load_verify_locations(cafile=place)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, FileNotFoundError) else "no certificates in PEM"
            raise SettingsError(f"{what} names {place}, which cannot be used ({why}).") from error
    return context
