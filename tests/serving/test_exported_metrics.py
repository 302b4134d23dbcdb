"""Every metric of the alerts and of the dashboard is exported by a running service, with the labels used."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
import requests
import yaml
from manifests import MANIFESTS
from services import Service

from tests.conftest import ROOT

MONITORING = MANIFESTS / "components" / "monitoring"
OF_THE_PLATFORM = {"up", "kube_deployment_status_replicas_available", "kube_deployment_spec_replicas",
                   "kube_cronjob_status_last_successful_time"}  # fmt: skip
"""Of Prometheus itself and of kube-state-metrics."""
FROM_SCRAPING = {"namespace", "pod", "job", "instance", "service", "le"}
"""Labels that Prometheus adds."""
WORDS = {"by", "or", "and", "unless", "on", "ignoring"}
"""Of PromQL, where no parenthesis follows."""


def alerts() -> dict[str, dict[str, str]]:
    """Expression and runbook of each alert."""
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"][0]["rules"]
    return {
        one["alert"]: {"expr": one["expr"], "runbook": one["annotations"]["runbook_url"]} for one in rules
    }


def dashboard() -> dict[str, str]:
    """Expressions of the dashboard by panel."""
    panels = json.loads((MONITORING / "genreflow.json").read_text())["panels"]
    return {f"{panel['title']} {one['refId']}": one["expr"] for panel in panels for one in panel["targets"]}


def series(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of a PromQL expression, each with the labels that it is selected or grouped by."""
    groups = re.findall(r"\bby \(([^)]*)\)", expression)
    grouped = {label.strip() for group in groups for label in group.split(",")}
    bare = re.sub(r"\bby \([^)]*\)|\[[^]]*\]", " ", re.sub(r'"[^"]*"', '""', expression))
    found = []
    for name, selector in re.findall(r"\b([a-z_][a-z0-9_]*)\b(?!\s*\()(\{[^}]*\})?", bare):
        if name not in WORDS:
            found.append((name, grouped | set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))))
    return found


@pytest.fixture(scope="module")
def exported(service: Service) -> dict[str, set[str]]:
    """Metrics of a service that has answered, and the labels that each has somewhere."""
    content = service.song.read_bytes()
    assert service.post("classify", content, "a.flac").status_code == 200
    assert service.post("timeline", content, "a.flac").status_code == 200
    text = requests.get(f"{service.address}/metrics", timeout=60).text
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels in re.findall(r"^([a-z_]+)(?:\{([^}]*)\})? ", text, re.MULTILINE):
        found[name] |= set(re.findall(r'([a-z_]+)="', labels))
    return found


def test_what_alerts_and_dashboard_query_is_exported(exported: dict[str, set[str]]) -> None:
    expressions = {name: one["expr"] for name, one in alerts().items()} | dashboard()
    seen = set()
    for where, expression in expressions.items():
        used = series(expression)
        assert used, where
        for name, labels in used:
            if name in OF_THE_PLATFORM:
                continue
            seen.add(name)
            assert name in exported, f"{where}: {name} is not exported"
            assert labels - FROM_SCRAPING <= exported[name], (
                f"{where}: {name} has no {labels - exported[name]}"
            )
    # nothing that the service exports of its own is on no dashboard
    own = {name.rpartition("_")[0] for name in exported if name.startswith("genreflow_")}
    assert own == {name.rpartition("_")[0] for name in seen if name.startswith("genreflow_")}


def test_expressions_are_taken_apart() -> None:
    expression = 'sum by (a, b) (rate(x_total{c="1", d=~"2.."}[5m])) / sum(rate(y_sum[5m])) > 0.1'
    assert series(expression) == [("x_total", {"a", "b", "c", "d"}), ("y_sum", {"a", "b"})]


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    entries = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert set(alerts()) == set(entries)
    for name, one in alerts().items():
        file, _, anchor = one["runbook"].partition("#")
        assert (ROOT / file).is_file()
        assert anchor == name.lower()


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = json.loads((MONITORING / "genreflow.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = set()
    for panel in board["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"], panel["title"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert Path(MONITORING / "kustomization.yaml").read_text().count("genreflow.json") == 1
