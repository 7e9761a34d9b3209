r"""Sharing numbers of phi between modules (LR-LoRA table 20), by tying parameters.

A level says what is shared, a scope says among which modules:

| level | one for each group | one for each module |
|---|---|---|
| `none` | | everything |
| `grid` | grid points, where learned | amplitudes, bandwidths, line |
| `bandwidth` | bandwidths | amplitudes, grid points, line |
| `amplitude` | amplitudes | bandwidths, grid points, line |
| `all` | everything, a learned input scale too | |

Scopes: `all` is one group; `kind` has one for each kind of module (all `q_proj` of a stack);
`layer` one for each block. With sinc, fixed grid and $|M|$ modules in $g$ groups, `none` counts
$2G|M|$, `bandwidth` and `amplitude` $G(|M| + g)$, `all` $2Gg$.

Modules of a group must have equal phis: those with another family or size form their own group.
"""

from collections import defaultdict
from typing import NamedTuple, Protocol

from torch import nn

from adapters.module_names import block_of, kind_of

_SHARED = {
    "none": (),
    "grid": ("raw_grid",),
    "bandwidth": ("raw_bandwidth",),
    "amplitude": ("amplitude",),
    "all": ("amplitude", "raw_bandwidth", "raw_grid", "line"),
}
LEVELS = tuple(_SHARED)
"""What may be shared."""
SCOPES = ("all", "kind", "layer")
"""Among which modules."""


def group_of(name: str, scope: str) -> str:
    """The group of the module called `name`; modules outside all blocks are layers of their own."""
    if scope == "all":
        return ""
    if scope == "kind":
        return kind_of(name)
    block = block_of(name)
    return name if block is None else block.name


class HasPhi(Protocol):
    """A layer with phis and input scales by adapter."""

    basis_phi: nn.ModuleDict
    basis_scale: nn.ModuleDict


class Tie(NamedTuple):
    """A parameter that `module` takes over from `donor`."""

    module: nn.Module
    donor: nn.Module
    name: str

    def hold(self) -> None:
        """Tie anew what loading may have replaced; cheap where nothing has changed."""
        shared = getattr(self.donor, self.name)
        if getattr(self.module, self.name) is not shared:
            setattr(self.module, self.name, shared)


def tie(layers: dict[str, HasPhi], adapter: str, level: str, scope: str) -> list[Tie]:
    """Let the modules of each group hold the same parameters, those of the group's first module.

    Parameters may be replaced later, as by loading with `assign=True`: `Tie.hold` ties them anew.

    Args:
        layers: The adapted layers by name.
        adapter: The adapter's name.
        level: One of `LEVELS`.
        scope: One of `SCOPES`.

    Returns:
        Every tie made.

    Raises:
        ValueError: A group spreads over several devices.
    """
    ties: list[Tie] = []
    groups: dict[tuple, list[HasPhi]] = defaultdict(list)
    for name, layer in layers.items():
        if adapter in layer.basis_phi:
            phi = layer.basis_phi[adapter]
            shapes = tuple((n, p.shape) for n, p in phi.named_parameters())
            groups[(group_of(name, scope), phi.phi, shapes)].append(layer)
    for (group, *_), (first, *others) in groups.items():
        for layer in others:
            held = [(layer.basis_phi[adapter], first.basis_phi[adapter], _SHARED[level])]
            if level == "all" and adapter in layer.basis_scale and adapter in first.basis_scale:
                scales = layer.basis_scale[adapter], first.basis_scale[adapter]
                held.append((*scales, ("log_scale",)))
            for module, donor, names in held:
                trained = dict(module.named_parameters())  # buffers are fixed, and equal already
                ties += [Tie(module, donor, n) for n in names if n in trained]
        for made in ties:
            _require_one_device(made, group)
            made.hold()
    return ties


def _require_one_device(made: Tie, group: str) -> None:
    mine, shared = getattr(made.module, made.name), getattr(made.donor, made.name)
    if mine.device != shared.device:
        raise ValueError(
            f"sharing `{made.name}` in group {group or 'all'!r} needs its modules on one device, "
            f"got {shared.device} and {mine.device}: take sharing_scope 'layer', or no device map"
        )
