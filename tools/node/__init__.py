"""A whole Kubernetes node for tests: kubelet, containerd, kube-proxy and DNS, its control plane apart, boards outside.

Three network namespaces, as three places: `cloud` has the control plane, `site` the node, `field` the boards. A link
joins cloud and site, another site and field; nothing of it is seen on the machine itself, and all of it ends with the
one process that holds the node's namespaces. It needs root.
"""

from .node import Node
from .programs import Programs, find

__all__ = ["Node", "Programs", "find"]
