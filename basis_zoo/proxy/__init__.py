"""Proxies: phi evaluated at a cost that depends neither on the family nor on G."""

from basis_zoo.proxy.chebyshev import ChebyshevProxy
from basis_zoo.proxy.exact import ExactProxy
from basis_zoo.proxy.fit import CapturedFit, ProxyFitter, fit_proxy, proxy_size, range_radius
from basis_zoo.proxy.plans import Fit, Proxy
from basis_zoo.proxy.table import TableProxy

__all__ = [
    "CapturedFit",
    "ChebyshevProxy",
    "ExactProxy",
    "Fit",
    "Proxy",
    "ProxyFitter",
    "TableProxy",
    "fit_proxy",
    "proxy_size",
    "range_radius",
]
