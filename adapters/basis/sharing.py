r"""Sharing numbers of phi between and within modules (LR-LoRA table 20).

A level says which numbers belong to the groups, a scope says what a group is:

| level | one for each group | one for each module |
|---|---|---|
| `none` | | everything |
| `grid` | grid points, where learned | amplitudes, bandwidths, line |
| `bandwidth` | bandwidths | amplitudes, grid points, line |
| `amplitude` | amplitudes | bandwidths, grid points, line |
| `all` | everything, a learned input scale too | |

Scopes, from coarse to fine: `all` is one group; `kind` has one for each kind of module (all
`q_proj` of a stack), `layer` one for each block, `module` one for each module, which is sharing
nothing. Within a module, `head` has one for each attention head: the rows of queries, keys and
values, the columns of the output projection, and one for a module without heads; `column` and
`row` have one for each column and row of W.

Between modules, one of a group owns the numbers that the others read. Within a module, phi holds
copies, and a level below `all` leaves one of the other numbers for all of them. With sinc, fixed
grid and $|M|$ modules in $g$ groups, `none` counts $2G|M|$, `bandwidth` and `amplitude`
$G(|M| + g)$, `all` $2Gg$.

Modules of a group must have equal phis: those with another family or size form their own group.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import nn

from adapters.placement.module_names import block_of, kind_of
from basis_zoo import InputScale, Nonlinearity
from basis_zoo.nonlinearity import NUMBERS

if TYPE_CHECKING:
    from adapters.torch_types import ModulesOf

_SHARED = {
    "none": (),
    "grid": ("raw_grid",),
    "bandwidth": ("raw_bandwidth",),
    "amplitude": ("amplitude",),
    "all": NUMBERS,
}
LEVELS = tuple(_SHARED)
"""What may be shared."""
COARSE_SCOPES = ("all", "kind", "layer")
"""Groups of modules."""
FINE_SCOPES = ("head", "column", "row")
"""Groups within a module."""
SCOPES = (*COARSE_SCOPES, "module", *FINE_SCOPES)
"""What has a phi of its own, from coarse to fine."""


class Blocks(NamedTuple):
    """Equal blocks of rows, or of columns, of a matrix: each has a phi of its own."""

    number: int = 1
    columns: bool = False


def blocks_of(scope: str, shape: tuple[int, int], heads: Blocks | None) -> Blocks:
    """The blocks of a matrix (out, in) under `scope`; `heads` are those of its heads, if any."""
    if scope == "row":
        return Blocks(shape[0])
    if scope == "column":
        return Blocks(shape[1], columns=True)
    return heads or Blocks() if scope == "head" else Blocks()


def copied(level: str) -> tuple[str, ...]:
    """The numbers that each block has for itself under `level`."""
    return _SHARED[level]


def group_of(name: str, scope: str) -> str:
    """The group of the module called `name`; modules outside all blocks are layers of their own."""
    if scope == "all":
        return ""
    if scope == "kind":
        return kind_of(name)
    if scope != "layer":
        return name
    block = block_of(name)
    return name if block is None else block.name


class HasPhi(Protocol):
    """A layer with phis and input scales by adapter."""

    basis_phi: "ModulesOf[Nonlinearity]"
    basis_scale: "ModulesOf[InputScale]"


class Borrower(nn.Module):
    """A module that reads some of its numbers from another one of its kind, the lender.

    The lender alone registers them. So one number has one name, in files and to optimizers, and
    what replaces the lender's parameter (loading does) replaces it for all.
    """

    @property
    def lenders(self) -> dict[str, nn.Module]:
        """Where borrowed numbers come from, by name."""
        lenders: dict[str, nn.Module] = self.__dict__.get("_lenders", {})
        return lenders

    def __getattr__(self, name: str) -> Any:
        lender = self.__dict__.get("_lenders", {}).get(name)
        return super().__getattr__(name) if lender is None else getattr(lender, name)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """What is registered here, then what is borrowed; of a model, only what is registered."""
        yield from super().named_parameters(prefix, recurse, remove_duplicate)
        for name, lender in self.lenders.items() if recurse else ():  # FSDP asks what is its own
            yield f"{prefix}.{name}" if prefix else name, getattr(lender, name)


class SharedPhi(Borrower, Nonlinearity):
    """A phi that borrows."""


class SharedScale(Borrower, InputScale):
    """An input scale that borrows."""


def tie(layers: Mapping[str, HasPhi], adapter: str, level: str, scope: str) -> None:
    """Let the modules of each group read the numbers of the group's first module.

    Raises:
        ValueError: A group spreads over several devices.
    """
    groups: dict[tuple[Any, ...], list[HasPhi]] = defaultdict(list)
    for name, layer in layers.items():
        if adapter in layer.basis_phi:
            phi = layer.basis_phi[adapter]
            shapes = tuple((n, p.shape) for n, p in phi.named_parameters())
            groups[(group_of(name, scope), phi.phi, shapes)].append(layer)
    for (group, *_), (first, *others) in groups.items():
        for layer in others:
            phi, lender = layer.basis_phi[adapter], first.basis_phi[adapter]
            _borrow(phi, SharedPhi, lender, _SHARED[level], group)
            if level == "all" and adapter in layer.basis_scale and adapter in first.basis_scale:
                scale, of_first = layer.basis_scale[adapter], first.basis_scale[adapter]
                _borrow(scale, SharedScale, of_first, ("log_scale",), group)


def _borrow(
    module: nn.Module, kind: type[Borrower], lender: nn.Module, names: tuple[str, ...], group: str
) -> None:
    trained = dict(module.named_parameters())  # buffers are fixed, and equal already
    for name in (n for n in names if n in trained):
        mine, shared = trained[name], getattr(lender, name)
        if mine is shared:
            continue
        if mine.device != shared.device:
            raise ValueError(
                f"sharing `{name}` in group {group or 'all'!r} needs its modules on one device, "
                f"got {shared.device} and {mine.device}: take sharing_scope 'layer', or no device "
                "map"
            )
        module.__class__ = kind  # in place: others hold this module already
        delattr(module, name)
        module.__dict__.setdefault("_lenders", {})[name] = lender
