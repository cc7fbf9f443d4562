"""The options of `boardlet flash`, and what they mean together with a site file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from boardlet_bridge.core.root_key import RootKeys

from boardlet_cli import fleet, sitefile
from boardlet_cli.cluster import Cluster, of_user
from boardlet_cli.flashing import run
from boardlet_cli.options import AsJson, Context, Namespace, PortArgument, RootKey, SiteOption
from boardlet_cli.order import Order
from boardlet_cli.report import for_user
from boardlet_cli.sitefile import SiteError, SiteFile
from boardlet_cli.tls import NTP, Tls, load

SHORT: Final = "Make a Board of a microcontroller: image, agent, identity, object."
EXAMPLES: Final = (
    "Examples:\n\n\b\n"
    "  boardlet flash /dev/ttyUSB0 --name greenhouse-7 --dry-run\n"
    "  boardlet flash --name greenhouse-8 --image ESP32_GENERIC-20260401-v1.29.0.bin\n"
    "  boardlet flash /dev/ttyACM0 --name greenhouse-9 --broker 10.0.0.5 --root-key root.key \\\n"
    "      --wifi north --wifi-password-file wifi.txt\n"
    "  boardlet flash --from boards.csv\n"
    "  boardlet flash /dev/ttyUSB0 --claim\n"
    "  boardlet flash --from box.csv --claim\n\n"
    "Exit codes: 0 Ready (or the dry run is done), 1 a step failed, 2 wrong usage, 3 this machine lacks something, "
    "4 no board or several, 5 no image or one that does not fit, 6 the image could not be written, 7 flashed but not "
    "Ready, 8 a step of your own comes first (STM32: DFU), 130 interrupted. Whatever it was: run the same command "
    "again, it goes on from what is done."
)

LATER: Final = "is for boards whose name, id and model are said when they are approved"
NEEDED: Final = "is needed where there is no site file (`boardlet site init` writes one)"


def flash(
    port: PortArgument = None,
    name: Annotated[str, typer.Option(help="Name of the Board object; created if it is not there.")] = "",
    broker: Annotated[
        str | None,
        typer.Option(help="The broker as boards reach it, HOST or HOST:PORT; default: the site file's."),
    ] = None,
    root_key: RootKey = None,
    site: SiteOption = None,
    model: Annotated[
        str | None, typer.Option(help="BoardModel of a new Board object; default: the site file's, else greenhouse.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    board_id: Annotated[
        str | None, typer.Option(help="The board's id; default: the one it has, else a new one.")
    ] = None,
    wifi: Annotated[
        str | None, typer.Option(help="Name of the Wi-Fi network; default: the site file's, else the one it has.")
    ] = None,
    wifi_password_file: Annotated[
        Path | None,
        typer.Option(help="File with the Wi-Fi password; an open network has none.", exists=True, dir_okay=False),
    ] = None,
    broker_ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate (PEM) of who signs the broker's: the board speaks TLS. Default: the site file's.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    broker_psk: Annotated[
        bool,
        typer.Option("--broker-psk", help="The board speaks TLS by a key of its own, without a certificate."),
    ] = False,
    broker_name: Annotated[
        str | None, typer.Option(help="Name that the broker's certificate is for; default: the site file's, else HOST.")
    ] = None,
    ntp: Annotated[
        str | None,
        typer.Option(help=f"Whom the board asks for the time, which TLS needs; default: the site file's, else {NTP}."),
    ] = None,
    claim: Annotated[
        bool,
        typer.Option("--claim", help="Give it the site's claim instead of an identity: it asks to come in by itself."),
    ] = False,
    claim_number: Annotated[
        int, typer.Option(help="Number of that claim, as the bridge's enrollment_claim_number.", min=1, max=2**31 - 1)
    ] = 1,
    image: Annotated[
        str | None,
        typer.Option(
            help="Put this image of MicroPython on the chip, whatever runs there: a file, or a name of "
            "`boardlet images list`. Default: the pinned one, and only if the chip has no MicroPython that will do."
        ),
    ] = None,
    erase: Annotated[bool, typer.Option("--erase", help="Erase the whole chip before, files and all.")] = False,
    no_romfs: Annotated[
        bool,
        typer.Option("--no-romfs", help="Put the agent's files onto the flash, though the board has room in ROMFS."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    wait_s: Annotated[int, typer.Option(help="Seconds to wait until the Board is Ready.", min=1)] = 60,
    boards: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Flash every board of this CSV or YAML file: port, name, and perhaps model, board_id, image; "
            "with --claim port alone, and perhaps image.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="How many of them at a time.", min=1)] = fleet.JOBS,
    as_json: AsJson = False,
) -> None:
    """Take a chip, blank or not, to a Board that is Ready: MicroPython, agent, identity, Board object."""
    if boards is not None:
        if port or name or board_id:
            raise typer.BadParameter("names port, name and id of each board itself", param_hint="--from")
        if claim and model:
            raise typer.BadParameter(LATER, param_hint="--claim")
        options = _given(
            broker=broker,
            root_key=root_key,
            site=site,
            model=model,
            namespace=namespace,
            context=context,
            wifi=wifi,
            wifi_password_file=wifi_password_file,
            broker_ca=broker_ca,
            broker_psk=broker_psk,
            broker_name=broker_name,
            ntp=ntp,
            claim=claim,
            claim_number=claim_number if claim else None,
            image=image,
            erase=erase,
            no_romfs=no_romfs,
            dry_run=dry_run,
            wait_s=wait_s,
        )
        raise typer.Exit(fleet.run(fleet.load(boards, claim), options, jobs, as_json))
    if not name and not claim:
        raise typer.BadParameter("is needed, or --claim", param_hint="--name")
    if claim and (name or board_id or model):
        raise typer.BadParameter(LATER)
    if wifi_password_file and not wifi:
        raise typer.BadParameter("is of no use without --wifi", param_hint="--wifi-password-file")
    settings = sitefile.find(site)
    cluster = of_site(settings, context, namespace)
    tls = _tls(broker_ca, broker_psk, broker_name, ntp, settings)
    order = Order(
        port,
        name,
        model or (settings.model if settings else "greenhouse"),
        *_broker(broker, settings, tls.port if tls else sitefile.MQTT_PORT),
        root_keys=_root_keys(root_key, settings, cluster),
        board_id=board_id,
        wifi=_wifi(wifi, wifi_password_file, settings, cluster),
        image=image,
        erase=erase,
        claim=claim_number if claim else 0,
        model_named=model is not None,
        tls=tls,
        romfs=not no_romfs,
    )
    with for_user(as_json) as report:
        run(order, cluster, dry_run, wait_s, report)


def _given(**options: object) -> list[str]:
    # As they were given, for the command that flashes one board of many.
    words: list[str] = []
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def of_site(settings: SiteFile | None, context: str | None, namespace: str | None) -> Cluster:
    """The user's cluster, by option, site file or kubeconfig, not asked yet; raises `Missing`."""
    if settings is not None:
        context, namespace = context or settings.context, namespace or settings.namespace
    return of_user(context, namespace)


def _tls(authority: Path | None, psk: bool, name: str | None, ntp: str | None, settings: SiteFile | None) -> Tls | None:
    if psk and (authority or name or ntp):
        raise typer.BadParameter("needs no certificate, no name and no time", param_hint="--broker-psk")
    held = Tls(None) if psk else settings.tls() if settings else None
    if authority is None and (held is None or held.authority is None) and not psk:
        if name or ntp:
            raise typer.BadParameter("is needed for that", param_hint="--broker-ca")
        return held
    if authority is not None:
        held = load(authority, settings.broker_name if settings else None, settings.ntp if settings else None)
    assert held is not None
    return replace(held, name=name or held.name, ntp=ntp or held.ntp)


def _broker(chosen: str | None, settings: SiteFile | None, usual: int) -> tuple[str, int]:
    if chosen is None and settings is None:
        raise typer.BadParameter(NEEDED, param_hint="--broker")
    try:
        return sitefile.address(
            chosen if chosen is not None else settings.broker if settings else "", "--broker", usual
        )
    except SiteError as error:
        raise typer.BadParameter(str(error), param_hint="--broker") from error


def _root_keys(chosen: Path | None, settings: SiteFile | None, cluster: Cluster) -> RootKeys:
    if chosen is not None:
        return sitefile.keys_of(chosen)
    if settings is None:
        raise typer.BadParameter(NEEDED, param_hint="--root-key")
    return settings.root_keys(cluster)


def _wifi(
    chosen: str | None, password_file: Path | None, settings: SiteFile | None, cluster: Cluster
) -> tuple[str, str] | None:
    if chosen is not None:
        return chosen, sitefile.text_of(password_file) if password_file else ""
    if settings is not None and settings.wifi:
        return settings.wifi, settings.wifi_password(cluster)
    return None
