"""weft: a container network for Kubernetes and every other CNI runtime."""

__version__ = "0.2.0"
