"""An MLflow tracking server and its model registry, through MLflow's own client: versions, their tags and their files.

Nothing that comes from there is deserialised, and nothing is trusted: who calls checks what was fetched. What was sent
before is looked for by its tags, so that sending it again sends nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployr_cli.failures import CommandFailed

PLACE = "deployr"
"""The folder of an MLflow run's artifacts that holds one of our runs."""
RUN_TAG = "deployr.run_id"
BUNDLE_TAG = "deployr.bundle_sha256"
_NAME = re.compile(r"[\w][\w.\- ]{0,127}\Z")
_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(/(?P<number>\d{1,9})|@(?P<alias>[\w\-.]{1,128}))\Z")
_NOT_OF_METRICS = re.compile(r"[^\w\-. /]")
_EXPECTED_OF_CLIENT = {
    # Its own figures of use would be sent to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By its own settings a server that is down is waited for by minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_NO_ENTRY = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
_NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
_THERE_ALREADY = "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a registered model. ``source``: the URI of its artifacts; ``tags``: what whoever wrote it says."""

    name: str
    number: str
    source: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Name it as MLflow does."""
        return f"models:/{self.name}/{self.number}"


class MlflowRegistry:
    """One MLflow server, or a store of its own (``sqlite:…``).

    Args:
        uri: its tracking URI; None takes ``MLFLOW_TRACKING_URI``. Credentials are MLflow's: ``MLFLOW_TRACKING_TOKEN``,
            or ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or a Databricks profile.

    Raises:
        CommandFailed: no URI, a password in it, or no MLflow is installed.
    """

    def __init__(self, uri: str | None) -> None:
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not self._uri:
            raise CommandFailed("--tracking: expected MLflow's URI, such as https://mlflow.example.org")
        if urlsplit(self._uri).password is not None:
            raise CommandFailed("--tracking: expected no password in the URI; MLflow takes MLFLOW_TRACKING_PASSWORD")
        for name, value in _EXPECTED_OF_CLIENT.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise CommandFailed("expected MLflow's client; install it with pip install 'deployr[mlflow]'") from None
        self.shown = urlsplit(self._uri).hostname or self._uri.partition(":")[0]
        with self._asking():
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def version(self, uri: str) -> Version:
        """Give the version that ``models:/NAME/3`` or ``models:/NAME@ALIAS`` names.

        Raises:
            CommandFailed: there is none, or the server does not give it.
        """
        named = _VERSION.match(uri)
        if named is None:
            raise CommandFailed(f"{uri[:80]}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
        with self._asking(uri):
            found = (
                self._client.get_model_version(named["name"], named["number"])
                if named["number"]
                else self._client.get_model_version_by_alias(named["name"], named["alias"])
            )
            source = self._client.get_model_version_download_uri(found.name, found.version)
        return _version(found, source=source)

    def versions(self, name: str) -> tuple[Version, ...]:
        """Give the versions of a registered model that are runs of ours, oldest first; none where there is no model.

        Raises:
            CommandFailed: the server does not give them.
        """
        found: list[Any] = []
        token = None
        with self._asking(name):
            while True:
                page = self._client.search_model_versions(f"name = '{_checked(name)}'", page_token=token)
                found += page
                if not (token := page.token):
                    break
        ours = [_version(each, source=each.source) for each in found if RUN_TAG in (each.tags or {})]
        return tuple(sorted(ours, key=lambda version: int(version.number)))

    def publish(
        self,
        name: str,
        folder: Path,
        *,
        at: datetime,
        by: str,
        tags: Mapping[str, str],
        version_tags: Mapping[str, str],
        metrics: Mapping[str, float],
        said: str,
    ) -> Version:
        """Log a run of ours as a run of MLflow's, and register what it made as a new version.

        A run that was begun and not ended, because something broke, is taken up again.

        Args:
            name: the registered model; made if it is not there.
            folder: what becomes the run's artifacts.
            at: when the run was opened.
            by: who trained it.
            tags: of the run; `RUN_TAG` finds it again.
            version_tags: of the version beside ``tags``.
            metrics: what it was measured to be.
            said: the version's description.

        Raises:
            CommandFailed: the server does not take it.
        """
        with self._asking(name):
            from mlflow.entities import Metric, RunTag

            experiment = self._experiment(f"{PLACE}/{_checked(name)}")
            found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{tags[RUN_TAG]}'", max_results=1)
            began = int(at.timestamp() * 1000)
            run = (
                found[0]
                if found
                else self._client.create_run(
                    experiment, start_time=began, run_name=tags[RUN_TAG], tags={**tags, "mlflow.user": by}
                )
            )
            run_id = run.info.run_id
            if run.info.status != "FINISHED":
                figures = [Metric(_NOT_OF_METRICS.sub("_", key), value, began, 0) for key, value in metrics.items()]
                self._client.log_batch(run_id, metrics=figures, tags=[RunTag(*tag) for tag in tags.items()])
                self._client.log_artifacts(run_id, str(folder), artifact_path=PLACE)
                self._client.set_terminated(run_id, "FINISHED", end_time=began)
            self._expect_model(name)
            made = self._client.create_model_version(
                name,
                f"{run.info.artifact_uri.rstrip('/')}/{PLACE}",
                run_id=run_id,
                tags={**tags, **version_tags},
                description=said,
            )
        return _version(made, source=made.source or "")

    def mark(self, version: Version, tags: Mapping[str, str]) -> bool:
        """Let a version have these tags; give whether one was not so before."""
        changed = {key: value for key, value in tags.items() if version.tags.get(key) != value}
        with self._asking(version.uri):
            for key, value in changed.items():
                self._client.set_model_version_tag(version.name, version.number, key, value)
        return bool(changed)

    def point(self, name: str, alias: str, number: str | None) -> bool:
        """Let an alias name this version, or none; give whether it did not before."""
        if self.alias(name, alias) == number:
            return False
        with self._asking(name):
            if number is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, number)
        return True

    def alias(self, name: str, alias: str) -> str | None:
        """Give the number of the version that an alias names; None where it names none."""
        with self._asking(name):
            now = self._client.get_registered_model(name).aliases.get(alias)
        return None if now is None else str(now)

    def files(self, version: Version, folder: str = "") -> dict[str, int | None]:
        """Give the names of a version's files in one of its folders, with their sizes in bytes where they are told."""
        with self._asking(version.uri):
            from mlflow.artifacts import list_artifacts

            found = list_artifacts(artifact_uri=_joined(version.source, folder), tracking_uri=self._uri)
        return {each.path.rpartition("/")[2]: each.file_size for each in found if not each.is_dir}

    def fetch(self, version: Version, file: str, to: Path) -> None:
        """Fetch one file of a version; ``to`` is what it is called here.

        Raises:
            CommandFailed: it does not come whole.
        """
        with self._asking(f"{version.uri}/{file}"):
            from mlflow.artifacts import download_artifacts

            got = download_artifacts(
                artifact_uri=_joined(version.source, file), dst_path=str(to.parent), tracking_uri=self._uri
            )
            Path(got).replace(to)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _expect_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, tags={PLACE: "true"})
        except MlflowException as error:
            if error.error_code != _THERE_ALREADY:
                raise

    @contextmanager
    def _asking(self, about: str = "") -> Iterator[None]:
        """Say what went wrong in one line; MLflow's own messages hold addresses and answers, and are not passed on."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        head = f"MLflow at {self.shown}: {about + ': ' if about else ''}"
        try:
            yield
        except MlflowException as error:
            if error.error_code in _NO_ENTRY:
                raise CommandFailed(
                    f"{head}expected to be let in; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
                ) from None
            if error.error_code in _NOT_THERE:
                raise CommandFailed(f"{head}there is no such model, version, alias or file") from None
            raise CommandFailed(
                f"{head}did not do what was asked ({error.error_code}); is it up, and is it an MLflow server?"
            ) from None
        except RequestException as error:
            raise CommandFailed(f"{head}did not answer ({type(error).__name__}); is it up?") from None


def _version(found: Any, *, source: str) -> Version:
    return Version(name=str(found.name), number=str(found.version), source=source, tags=dict(found.tags or {}))


def _joined(source: str, file: str) -> str:
    return f"{source.rstrip('/')}/{file}" if file else source


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise CommandFailed("--name: expected letters, digits, dots, hyphens and blanks")
    return name
