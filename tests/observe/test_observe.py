"""Dashboard, alert rules and their documentation speak of metrics that the bridge has, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_bridge.core.board import new_board
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.model import compile_model
from boardlet_bridge.core.state import Birth, Board, Limits, Link
from boardlet_bridge.runtime.metrics import Metrics
from boardlet_bridge.runtime.pace import Pace
from boardlet_cli.site import Site
from prometheus_client.metrics_core import Metric
from provision import debs
from provision.missing import Missing

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "bridge/observe"
GREENHOUSE = compile_model("greenhouse", yaml.safe_load((ROOT / "crds/samples/greenhouse.yaml").read_text())["spec"])
NAME = re.compile(r"\bboardlet_[a-z_]+\b")


def measured() -> Board:
    """A greenhouse that answers."""
    made = new_board("k7m2q9xa", KeyRing(bytes(32), bytes(16)), Limits())
    made.link, made.birth = Link.LIVE, Birth({}, 1024, GREENHOUSE.digest, b"", False)
    made.reported["light"] = 420.0
    return made


def families() -> dict[str, Metric]:
    """The bridge's metrics as they are scraped, by the name that a query uses."""
    metrics = Metrics()
    none: Counter[Any] = Counter()
    metrics.watch(
        *(lambda: 0.0, lambda: 0.0, lambda: 0.0, lambda: 0.0, {"s": 1}, {"wrongSeal": 1}),
        *(lambda: Counter({("Ready", "True", "Synced"): 1}) | none, lambda: {1: 1}, lambda: {"broker": ""}),
        *(lambda: 1.0, lambda: 0.0, lambda: 0.0),
        *(lambda: [(("default", "g1"), measured(), GREENHOUSE)], 1),
    )
    Pace().watch(metrics.registry, lambda: 0.0)
    return {f.name + ("_total" if f.type == "counter" else ""): f for f in metrics.registry.collect()}


def named_in(expression: str) -> set[str]:
    """The metrics of a query; a histogram is asked for by its parts."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in NAME.findall(expression)}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((OBSERVE / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def dashboard() -> list[str]:
    panels = json.loads((OBSERVE / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture(scope="module")
def promtool() -> debs.Program:
    try:
        return debs.installed("promtool") or debs.program("prometheus", "promtool")
    except Missing as missing:
        pytest.skip(str(missing))


def test_every_metric_is_documented_and_no_other() -> None:
    """docs/observe.md has each metric of the bridge with its type and labels, and none that is not there."""
    text = (ROOT / "docs/observe.md").read_text().partition("\n## Metrics")[2].partition("\n## ")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]
    documented = {row[0].strip("`"): (row[1], row[2]) for row in rows}
    made = {name: family.type for name, family in families().items()}
    assert {name: kind for name, (kind, _) in documented.items()} == made
    for name, family in families().items():
        labels = {label for sample in family.samples for label in sample.labels}
        said = set(re.findall(r"`([a-z]+)`", documented[name][1]))
        assert labels <= said, name
        assert not [sample.name for sample in family.samples if sample.name.endswith("_created")]


def test_every_query_is_of_metrics_that_exist() -> None:
    """Alert rules and dashboard name metrics of the bridge only; the dashboard shows every one."""
    known = set(families())
    for expression in [rule["expr"] for rule in rules()] + dashboard():
        named = named_in(expression)
        assert named, expression
        assert named <= known, expression
    shown = {name for expression in dashboard() for name in named_in(expression)}
    assert shown == known


def test_every_alert_is_documented_and_tested() -> None:
    """docs/observe.md says what to do at each alert; each is seen firing and seen quiet by `promtool test rules`."""
    alerts = {rule["alert"] for rule in rules()}
    text = (ROOT / "docs/observe.md").read_text().partition("\n## Alerts")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == alerts
    tests = yaml.safe_load((OBSERVE / "rules.test.yaml").read_text())["tests"]
    quiet = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ())}
    fired = set(
        re.findall(r'alertname="(\w+)"', json.dumps([t.get("promql_expr_test") for t in tests]).replace("\\", ""))
    )
    assert quiet == alerts
    assert fired == alerts


def test_promtool_takes_the_rules(promtool: debs.Program) -> None:
    """The rules parse, and fire and keep quiet as rules.test.yaml says."""
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]):
        run = [promtool.path, *command]
        done = subprocess.run(
            run, cwd=OBSERVE, env=promtool.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_queries(promtool: debs.Program, tmp_path: Path) -> None:
    """Each query of the dashboard is PromQL."""
    made = [{"record": f"test:{n}", "expr": e.replace('"$instance"', '"a"')} for n, e in enumerate(dashboard())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": made}]}))
    command = [promtool.path, "check", "rules", "--lint=none", tmp_path / "rules.yaml"]
    done = subprocess.run(command, env=promtool.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def scrape(site: Site) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.bridge.port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_a_scrape_says_what_is_so(site: Site, promtool: debs.Program) -> None:
    """A bridge with one Ready board: Prometheus reads what it says, its light too; a broker that goes is seen at the
    next scrape, and the board's light is no more."""
    site.cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}}
    body["spec"] = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}}
    site.cluster.run("create", "-f", "-", stdin=json.dumps(body))
    virtual = site.add_board("k7m2q9xa")
    virtual.start()
    site.cluster.run("wait", "--for=condition=Ready", "board/g1", "--timeout=60s")
    virtual.set_adc(34, 840)
    site.cluster.run("wait", "--for=jsonpath={.status.reported.light}=420", "board/g1", "--timeout=60s")
    text = scrape(site)
    command = [str(promtool.path), "check", "metrics"]
    done = subprocess.run(
        command, env=promtool.env, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = text.splitlines()
    assert {"boardlet_boards 1.0", "boardlet_boards_connected 1.0", "boardlet_broker_up 1.0"} <= set(lines)
    assert 'boardlet_board_conditions{reason="Synced",status="True",type="Ready"} 1.0' in lines
    assert 'boardlet_part_ready{part="broker"} 1.0' in lines
    labels = f'board="g1",model="greenhouse",namespace="{site.cluster.namespace}",property="light",unit="lx"'
    assert [line for line in lines if line.startswith("boardlet_property_value")] == [
        f"boardlet_property_value{{{labels}}} 420.0",
        "boardlet_property_values_omitted 0.0",
    ]
    assert "boardlet_connects_total 1.0" in lines
    site.cluster.run("patch", "board", "g1", "--type=merge", "-p", '{"spec":{"properties":{"led":true}}}')
    site.cluster.run("wait", "--for=jsonpath={.status.reported.led}=true", "board/g1", "--timeout=60s")
    samples = dict(line.rsplit(" ", 1) for line in scrape(site).splitlines() if line[:1] != "#")
    assert float(samples["boardlet_edit_seconds_count"]) == 1
    assert 0 < float(samples["boardlet_edit_seconds_sum"]) < 60
    assert float(samples["boardlet_status_write_seconds_count"]) >= 2
    assert 0 <= float(samples["boardlet_write_budget_used_ratio"]) < 1
    site.broker.stop()
    site.cluster.run("wait", "--for=condition=Connected=Unknown", "board/g1", "--timeout=60s")
    lines = scrape(site).splitlines()
    assert 'boardlet_part_ready{part="broker"} 0.0' in lines
    assert "boardlet_broker_up 0.0" in lines
    assert 'boardlet_board_conditions{reason="BrokerUnreachable",status="Unknown",type="Connected"} 1.0' in lines
    assert not any(line.startswith("boardlet_property_value{") for line in lines)
