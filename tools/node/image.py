"""An image of one program, made without any builder, as `docker save` writes one."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def single(program: Path, name: str, archive: Path) -> Path:
    """Write the archive of an image `name` that holds and runs nothing but a static program; returns its path."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, arcname=program.name)
    data = layer.getvalue()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"manifest.json": json.dumps(manifest).encode(), config_name: config, "layer.tar": data}
    with tarfile.open(archive, "w") as tar:
        for part, content in parts.items():
            info = tarfile.TarInfo(part)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive
