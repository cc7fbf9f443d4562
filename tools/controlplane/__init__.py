"""A real Kubernetes control plane for the demo and the tests: kube-apiserver, etcd and kubectl, on loopback."""

from .programs import Programs, find
from .server import ADMIN, ControlPlane, running

__all__ = ["ADMIN", "ControlPlane", "Programs", "find", "running"]
