"""What each part of a node is told, for a node that is one of several things on a machine and may raise no limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

PAUSE: Final = "localhost/boardlet-pause:1"
DOMAIN: Final = "cluster.local"
_PODS: Final = "10.244.0.0/24"


def containerd(folder: Path, plugins: Path) -> str:
    """containerd's configuration: all its state in `folder`."""
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def network(folder: Path) -> dict[str, Any]:
    """The pods' network: a bridge, and masquerading on the way out."""
    ipam: dict[str, Any] = {"type": "host-local", "dataDir": f"{folder}/cni-ipam", "ranges": [[{"subnet": _PODS}]]}
    ipam["routes"] = [{"dst": "0.0.0.0/0"}]
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "boardlet", "plugins": [bridge, portmap]}


def kubelet(folder: Path, address: str, cgroup: str) -> dict[str, Any]:
    """KubeletConfiguration; names are found at the node's own address."""
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {address}\n")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "plane/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [address],
        "clusterDomain": DOMAIN,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "resolvConf": str(resolv),
        "evictionHard": {},
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        # Without CAP_SYS_RESOURCE limits, some sysctls and OOM scores stay as they are.
        "featureGates": {"KubeletInUserNamespace": True},
    }


def proxy(kubeconfig: Path, node: str, address: str) -> dict[str, Any]:
    """KubeProxyConfiguration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node,
        "bindAddress": address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": _PODS,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def corefile(address: str, kubeconfig: Path) -> str:
    """CoreDNS' configuration."""
    return f"""{DOMAIN}:53 {{
    bind {address}
    errors
    kubernetes {DOMAIN} {{
        kubeconfig {kubeconfig}
    }}
}}
"""
