"""`boardlet site`: what is the same for every board of a site, typed once."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer
from boardlet_bridge.core.root_key import FIRST_KEY_NUMBER, RootKeys

from boardlet_cli import sitefile, tls
from boardlet_cli.cluster import KubectlFailed, of_user
from boardlet_cli.options import SiteOption
from boardlet_cli.sitefile import ROOT_KEY, WIFI_PASSWORD, SiteError, SiteFile

app = typer.Typer(no_args_is_help=True, help="A site's broker, network and root key, typed once.")


@app.command(
    "init",
    epilog="Examples:\n\n\b\n"
    "  boardlet site init --broker 10.0.0.5 --wifi north\n"
    "  boardlet site init --broker 10.0.0.5 --wifi north --broker-ca ca.crt\n"
    "  boardlet site init --broker 10.0.0.5:1883 --wifi north --secret boardlet-system/boardlet-site",
)
def init(
    broker: Annotated[str, typer.Option(help="The broker as boards reach it, HOST or HOST:PORT.")],
    wifi: Annotated[str | None, typer.Option(help="Name of the Wi-Fi network; its password is asked for.")] = None,
    wifi_password_file: Annotated[
        Path | None, typer.Option(help="File with the Wi-Fi password, instead of asking.", exists=True, dir_okay=False)
    ] = None,
    root_key: Annotated[
        Path | None, typer.Option(help="File with the root key of a site that has one; default: a new key.")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="NAMESPACE/NAME of a Secret to keep key and password in, instead of files.")
    ] = None,
    broker_ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate (PEM) of who signs the broker's: boards speak TLS.", exists=True, dir_okay=False
        ),
    ] = None,
    broker_name: Annotated[str | None, typer.Option(help="What that certificate is for, if not for HOST.")] = None,
    ntp: Annotated[str | None, typer.Option(help=f"Whom boards ask for the time then; default {tls.NTP}.")] = None,
    model: Annotated[str, typer.Option(help="BoardModel of new Boards.")] = "greenhouse",
    namespace: Annotated[str | None, typer.Option(help="Namespace of Boards.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of your kubeconfig.")] = None,
    file: Annotated[Path, typer.Option(help="The site file to write.")] = Path(sitefile.NAME),
) -> None:
    """Write a site file, and put its secrets into files of mode 0600 or into a Secret of the cluster."""
    if file.exists():
        raise SiteError(f"{file} is there already: edit it, or name another with --file")
    if secret is not None and secret.count("/") != 1:
        raise typer.BadParameter("must be NAMESPACE/NAME", param_hint="--secret")
    sitefile.address(broker, "--broker")
    if broker_ca is None and (broker_name or ntp):
        raise typer.BadParameter("is needed for TLS", param_hint="--broker-ca")
    if broker_ca is not None:
        tls.load(broker_ca, broker_name, ntp)
    key = _one(sitefile.keys_of(root_key), root_key) if root_key else sitefile.new_key()
    password = _password(wifi, wifi_password_file)
    files = {} if secret else _keep_in_files(file.parent, key, password, root_key)
    if secret:
        _keep_in_secret(secret, key, password, context)
    authority = _beside(broker_ca, file.parent) if broker_ca else None
    site = SiteFile(
        *(broker, model, namespace, context, wifi),
        **files,
        secret=secret,
        broker_ca_file=authority,
        broker_name=broker_name,
        ntp=ntp,
        path=file,
    )
    file.write_text(sitefile.dump(site))
    print(f"wrote {file}; root key {sitefile.fingerprint(bytes.fromhex(key))} in {secret or files['root_key_file']}")
    print("keep a copy of the root key in a safe: every board's key follows from it, and the bridge needs it too")


@app.command("show", epilog="Example:\n\n\b\n  boardlet site show")
def show(
    site: SiteOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show the settings that `boardlet flash` would take, and whether their secrets can be read; never the secrets."""
    found = sitefile.find(site)
    if found is None:
        raise SiteError("there is no site file: `boardlet site init` writes one")
    cluster = of_user(found.context, found.namespace)
    facts = {"file": str(found.path), "broker": found.broker, "model": found.model, "namespace": found.namespace}
    facts |= {"context": found.context, "wifi": found.wifi, "secret": found.secret}
    facts |= {"brokerCA": found.broker_ca_file, "brokerName": found.broker_name}
    found.tls()
    facts["rootKey"] = ", ".join(sitefile.fingerprint(root.key) for root in found.root_keys(cluster))
    facts["wifiPassword"] = "set" if found.wifi and found.wifi_password(cluster) else None
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value is not None:
            print(f"{name:13} {value}")


def others_may_read(path: Path) -> bool:
    """Whether anybody but its owner may read the file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _password(wifi: str | None, file: Path | None) -> str | None:
    if file is not None:
        if wifi is None:
            raise typer.BadParameter("is of no use without --wifi", param_hint="--wifi-password-file")
        return sitefile.text_of(file)
    if wifi is None:
        return None
    if not sys.stdin.isatty():
        raise typer.BadParameter("is needed where nobody can be asked", param_hint="--wifi-password-file")
    asked: str = typer.prompt(f"password of {wifi} (none for an open network)", default="", hide_input=True)
    return asked


def _one(keys: RootKeys, file: Path) -> str:
    if len(keys) > 1 or keys[0].first != FIRST_KEY_NUMBER:
        raise SiteError(f"{file} has key numbers: name it in {sitefile.NAME} as rootKeyFile, or in the Secret, by hand")
    return keys[0].key.hex()


def _beside(path: Path, folder: Path) -> str:
    # As the site file names it: it is looked for from there.
    return path.name if path.parent.resolve() == folder.resolve() else str(path.resolve())


def _keep_in_files(folder: Path, key: str, password: str | None, given: Path | None) -> dict[str, str]:
    kept = {}
    if given is not None and given.parent.resolve() == folder.resolve():
        kept["root_key_file"] = given.name
    else:
        sitefile.write_secret_file(folder / ROOT_KEY, key)
        kept["root_key_file"] = ROOT_KEY
    if password:
        sitefile.write_secret_file(folder / WIFI_PASSWORD, password)
        kept["wifi_password_file"] = WIFI_PASSWORD
    return kept


def _keep_in_secret(secret: str, key: str, password: str | None, context: str | None) -> None:
    # On standard input, because arguments can be read by everybody on this machine. `create` never overwrites a key.
    namespace, _, name = secret.partition("/")
    values = {ROOT_KEY: key, **({WIFI_PASSWORD: password} if password else {})}
    try:
        cluster = of_user(context, None)
        cluster.run("create", "-f", "-", stdin=json.dumps(sitefile.secret_object(name, namespace, values)))
    except KubectlFailed as error:
        raise SiteError(f"cannot make the Secret {secret}: {error}") from error
