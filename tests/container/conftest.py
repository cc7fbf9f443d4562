"""For the tests of this folder: podman, the bridge's image and its base, a broker's, and the bridge in a container."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest
from boardlet_cli.site import Site
from images import BASE, BUILD_S, CONF, Context, Engine, debian, laid
from provision.missing import Missing
from provision.process import free_port

OPT_IN = {"BOARDLET_NODE": "test_node.py", "BOARDLET_ARM64": "test_arm64.py"}  # `make node`, `make arm64`
collect_ignore = [test for variable, test in OPT_IN.items() if not os.environ.get(variable)]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    program = which("podman")
    if program is None:
        pytest.skip("podman: install it")
    folder = tmp_path_factory.mktemp("containers")
    (folder / "containers.conf").write_text(CONF)
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["CONTAINERS_CONF"] = str(folder / "containers.conf")
    made = Engine(program, env)
    if made.run("info", check=False).returncode:
        pytest.skip(f"{program} does not run here: {made.run('info', check=False).stderr[-200:]}")
    return made


@pytest.fixture(scope="session")
def base(engine: Engine) -> Iterator[str]:
    """The official base where it can be had, else one made of Debian's packages under its name."""
    imported = False
    if engine.run("pull", "--quiet", BASE, check=False, timeout_s=120).returncode:
        try:
            tar = debian("container-base", "python3,python3-venv,ca-certificates")
        except Missing as missing:
            pytest.skip(str(missing))
        engine.run("import", tar, BASE, timeout_s=BUILD_S)
        imported = True
    yield BASE
    if imported:
        engine.run("rmi", "--force", BASE, check=False)
    engine.run("image", "prune", "--force", check=False)


@pytest.fixture(scope="session")
def context(engine: Engine, base: str) -> Iterator[Context]:
    """What an image is built from."""
    with laid(engine, base) as made:
        yield made


@pytest.fixture(scope="session")
def image(context: Context) -> Iterator[str]:
    """The bridge's image."""
    name = f"boardlet-bridge-test:{uuid.uuid4().hex[:8]}"
    context.build(name)
    yield name
    context.engine.run("rmi", "--force", name, check=False)


@pytest.fixture(scope="session")
def broker_image(engine: Engine) -> Iterator[str]:
    """mosquitto as Debian packages it: the chart's own broker image has the same, a shell and inotifyd."""
    name = f"boardlet-broker-test:{uuid.uuid4().hex[:8]}"
    try:
        link = '--customize-hook=ln -s toybox "$1/usr/bin/inotifyd"'
        tar = debian("container-broker-inotifyd", "mosquitto,toybox", link)
    except Missing as missing:
        pytest.skip(str(missing))
    engine.run("import", tar, name, timeout_s=BUILD_S)
    yield name
    engine.run("rmi", "--force", name, check=False)


Serve = Callable[..., tuple[str, int]]


@pytest.fixture
def serve(engine: Engine, tmp_path: Path) -> Iterator[Serve]:
    """Runs an image instead of a site's own bridge, as docs/operations.md does; returns its name and HTTP port."""
    names: list[str] = []

    def run(site: Site, image: str, *more: str) -> tuple[str, int]:
        port = free_port()
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        settings = {**site.settings, "http_port": port, "http_host": "127.0.0.1"}
        for name in ("root_key_file", "broker_password_file", "kubeconfig"):
            content = Path(str(settings[name])).read_text()
            (secrets / name).write_text(content)
            (secrets / name).chmod(0o444)
            settings[name] = f"/secrets/{name}"
        env = [part for key, value in settings.items() for part in ("-e", f"BOARDLET_{key.upper()}={value}")]
        names.append(f"boardlet-{uuid.uuid4().hex[:8]}")
        engine.run(
            *("run", "-d", "--name", names[-1], "--network", "host", "--read-only", "--cap-drop", "all", *more),
            *("--security-opt", "no-new-privileges", "-v", f"{secrets}:/secrets:ro", *env, image),
        )
        return names[-1], port

    yield run
    for name in names:
        print(engine.run("logs", name, check=False).stderr[-3000:])
        engine.run("rm", "--force", name, check=False)
