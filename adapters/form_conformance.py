"""What every form must do, measured: `python -m adapters check FILE`.

A form is checked with a family and a scope, on one small layer whose numbers are random.
"""

import copy
import tempfile
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer
from adapters.forms import Form, Operands, PhiFunction, get_form
from basis_zoo.conformance import ConformanceError, Outcome
from basis_zoo.conformance.check import at_most, require
from basis_zoo.conformance.run import outcome_of
from basis_zoo.nonlinearity import NUMBERS

_OUT, _IN, _RANK, _ROWS = 24, 16, 3, 7
_STARTS: tuple[dict[str, Any], ...] = (
    {"start": "anchored"},
    {"start": "identity_anchored", "linear": True},
)
"""Starts in the order in which they are tried."""


class _Recorded(PhiFunction):
    """phi itself, which remembers the largest |x| that it was asked at."""

    def __init__(self, exact: PhiFunction, largest: list[float]) -> None:
        super().__init__(exact._proxy)
        self._largest = largest

    def __call__(self, x: Tensor) -> Tensor:
        self._largest.append(float(x.detach().abs().max()))
        return super().__call__(x)

    def of_product(self, b: Tensor, a: Tensor) -> Tensor:
        self._largest.append(float((b @ a).detach().abs().max()))
        return super().of_product(b, a)

    def singles(self) -> list[PhiFunction]:
        return [_Recorded(single, self._largest) for single in super().singles()]


class Subject:
    """A form by its name, with `options` of `BasisConfig`, on one linear layer."""

    def __init__(self, form: str, device: str = "cpu", **options: Any) -> None:
        given = {"target_modules": ["0"], "r": _RANK, "num_basis": 6, "form": form, **options}
        self.config = self._config(given)
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(_IN, _OUT), nn.Tanh()).requires_grad_(False)
        self.base, self.x = base.to(device), torch.randn(_ROWS, _IN).to(device)

    @staticmethod
    def _config(given: dict[str, Any]) -> BasisConfig:
        for start in _STARTS[:-1]:
            try:
                return BasisConfig(**{**start, **given})
            except ValueError:
                continue
        return BasisConfig(**{**_STARTS[-1], **given})

    @property
    def form(self) -> Form:
        """The form."""
        return get_form(self.config.form, **self.config.form_options)

    def model(self, *, random: bool = True, dtype: torch.dtype = torch.float32) -> PeftModel:
        """The layer with a new adapter, as it starts or with random numbers."""
        torch.manual_seed(1)
        model = get_peft_model(copy.deepcopy(self.base).to(dtype), copy.deepcopy(self.config))
        for parameter in model.parameters():
            if random and parameter.requires_grad:
                nn.init.normal_(parameter, std=0.4)
        return model

    @cached_property
    def layer(self) -> BasisLayer:
        """The layer of a model with random numbers."""
        return layer_of(self.model())

    @property
    def operands(self) -> Operands:
        """What the layer's form computes with, in float64."""
        of = self.layer.operands("default")
        weight = self.layer.matrix(self.layer.get_base_weight()).double()
        with torch.no_grad():
            return Operands(
                of.b.double(), of.a.double(), weight, of.interval, self.form.freeze(weight)
            )

    def phi(self) -> PhiFunction:
        """The layer's phi itself, in float64."""
        return PhiFunction.exact(self.layer.basis_phi["default"])

    def definition(self, x: Tensor, phi: PhiFunction) -> Tensor:
        """What the update adds to the output, without s, in float64."""
        return self.form.apply(x.double(), self.operands, phi, 1.0)


def layer_of(model: nn.Module) -> BasisLayer:
    """The one adapted layer."""
    return next(m for m in model.modules() if isinstance(m, BasisLayer))


def _largest(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max())


def check_start(subject: Subject) -> str:
    """A new adapter changes nothing, and then learns."""
    model = subject.model(random=False)
    y = model(subject.x)
    off = at_most(_largest(y - subject.base(subject.x)), 1e-5, "change before the first step")
    y.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    require(any(bool(g.any()) for g in gradients), "no trained number has a gradient")
    return off


def check_oracle(subject: Subject) -> str:
    """The update is what the form's oracle says."""
    of, phi = subject.operands, subject.layer.basis_phi["default"]
    singles = [phi] if phi.copies == 1 else [phi.single(k) for k in range(phi.copies)]
    one_by_one = [one.cpu() for one in map(copy.deepcopy, singles)]
    functions = [lambda v, one=one: one(torch.from_numpy(v)).detach().numpy() for one in one_by_one]
    own_copies = subject.form.copies(_RANK) > 1
    require(own_copies or phi.copies == 1, "copies of phi that the form does not declare")
    options: dict[str, Any] = {"interval": of.interval}
    if not subject.form.mergeable:
        options["x"] = subject.x.double().cpu().numpy()
    weight = of.weight
    assert weight is not None
    b, a, w = (t.detach().cpu().numpy() for t in (of.b, of.a, weight))
    want = subject.form.oracle(b, a, w, functions if own_copies else functions[0], **options)
    if subject.form.mergeable:
        got = subject.form.update(of, subject.phi())
    else:
        got = subject.definition(subject.x, subject.phi())
    right = torch.from_numpy(want)
    error = _largest(got.cpu() - right) / max(1e-12, _largest(right))
    return at_most(error, 1e-6, "relative error against the oracle")


def check_gradients(subject: Subject) -> str:
    """Gradients of B, A and phi are those of finite differences."""
    of, phi = subject.operands, copy.deepcopy(subject.layer.basis_phi["default"])
    leaves = {"B": of.b, "A": of.a, "amplitude": phi.amplitude.detach().double()}
    worst = 0.0
    for name, leaf in leaves.items():
        if not leaf.numel():
            continue

        def value(t: Tensor, name: str = name) -> Tensor:
            now = Operands(
                t if name == "B" else of.b, t if name == "A" else of.a, of.weight, *of[3:]
            )
            numbers = [t if name == "amplitude" else phi.amplitude.double(), *phi.numbers[1:]]
            function = PhiFunction.exact(phi, numbers)
            y = subject.form.apply(subject.x.double(), now, function, 1.0)
            weights = torch.linspace(1, 2, y.numel(), dtype=y.dtype, device=y.device)
            return (y * weights.view(y.shape)).sum()

        point = leaf.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(point), point, materialize_grads=True)
        direction = torch.randn(leaf.shape, dtype=leaf.dtype, generator=torch.manual_seed(2))
        direction = direction.to(leaf.device)
        step = 1e-6
        with torch.no_grad():
            ahead, behind = value(point + step * direction), value(point - step * direction)
        numeric = float(ahead - behind) / (2 * step)
        analytic = float((gradient * direction).sum())
        worst = max(worst, abs(numeric - analytic) / max(1.0, abs(numeric)))
    return at_most(worst, 1e-4, "error against finite differences")


def check_layer(subject: Subject) -> str:
    """A layer computes the definition, fused or by a proxy."""
    layer = subject.layer
    if subject.config.sharing_scope in ("row", "column"):
        want = _of_blocks(subject)
    else:
        want = subject.definition(subject.x, subject.phi())
    added = layer(subject.x) - layer.base_layer(subject.x)
    want = want * layer.scaling["default"]
    error = _largest(added - want) / max(1.0, _largest(want))
    return at_most(error, 2e-4, "error of the layer")


def _of_blocks(subject: Subject) -> Tensor:
    """What is added where each row or column has a phi."""
    of, phi = subject.operands, subject.layer.basis_phi["default"]
    x = of.b @ of.a
    columns = subject.config.sharing_scope == "column"
    values = phi(x.T if columns else x) if phi.copies > 1 else phi(x)
    update = values.T if columns and phi.copies > 1 else values
    weight = of.weight
    assert weight is not None
    added: Tensor = update * weight if subject.form.needs_weight else update
    return subject.x.double() @ added.T


def check_reach(subject: Subject) -> str:
    """phi is asked nowhere beyond what the form declares."""
    of, largest = subject.operands, [0.0]
    subject.definition(subject.x * 10, _Recorded(subject.phi(), largest))
    declared = subject.form.reach(of)
    bound = (of.b.norm(dim=1).max() * of.a.norm(dim=0).max()) if declared is None else declared
    return at_most(max(largest) / float(bound.max()), 1 + 1e-6, "largest |x| over the reach")


def check_merged(subject: Subject) -> str:
    """A merge changes nothing, and is undone bit for bit; or is refused by name."""
    model = subject.model()
    layer, y = layer_of(model), model(subject.x)
    if not subject.form.mergeable:
        for call in (model.merge_adapter, lambda: layer.get_delta_weight("default")):
            try:
                call()
            except ValueError as error:
                require(subject.config.form in str(error), f"the refusal names no form: {error}")
            else:
                raise ConformanceError("it is not mergeable, and was merged")
        return "refused by name"
    before = layer.get_base_weight().clone()
    model.merge_adapter()
    merged = at_most(_largest(model(subject.x) - y), 1e-5, "merged and unmerged differ by")
    model.unmerge_adapter()
    require(torch.equal(layer.get_base_weight(), before), "unmerging left another weight")
    return merged


def check_split(subject: Subject) -> str:
    """Two products, with W and with the update, give what one with W' gives; with dropout too."""
    want, off = subject.model().eval()(subject.x), 0.0
    for split, dropout in ((True, 0.0), (False, 1e-9)):
        model = subject.model()
        execution = layer_of(model).execution
        execution["default"] = execution["default"]._replace(split=split, dropout=dropout)
        off = max(off, _largest(model.train()(subject.x) - want))
    return at_most(off, 1e-4, "split and merged differ by")


def check_rank(subject: Subject) -> str:
    """The update has no larger rank than declared."""
    if not subject.form.mergeable:
        return "no matrix"
    update = subject.layer.update("default").detach().double()
    rank = int(torch.linalg.matrix_rank(update, rtol=1e-5))
    declared = subject.form.largest_rank(_RANK, (_OUT, _IN))
    require(rank <= declared, f"rank {rank}, declared {declared} for r {_RANK}")
    return f"rank {rank} of at most {declared}"


def check_saved(subject: Subject) -> str:
    """What is saved and loaded computes the same bits."""
    model = subject.model().eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(copy.deepcopy(subject.base), folder).eval()
    off = _largest(loaded(subject.x) - model(subject.x))
    return at_most(off, 0.0, "saved and loaded differ by")


def check_counts(subject: Subject) -> str:
    """As many numbers are trained as the form declares."""
    phi = subject.config.phi.build_nonlinearity()
    blocks = {"row": _OUT, "column": _IN}.get(subject.config.sharing_scope, 1)
    phi.repeat(NUMBERS, max(blocks, subject.form.copies(_RANK)))
    want = subject.form.factor_rank(_RANK) * (_OUT + _IN) + sum(p.numel() for p in phi.parameters())
    got = sum(p.numel() for p in subject.model().parameters() if p.requires_grad)
    require(got == want, f"{got} numbers are trained, declared are {want}")
    return f"{got} numbers"


def check_bfloat16(subject: Subject) -> str:
    """In bfloat16 it is off by no more than rounding."""
    y = subject.model(dtype=torch.bfloat16)(subject.x.bfloat16()).float()
    want = subject.model()(subject.x)
    error = float((y - want).detach().norm()) / float(want.detach().norm())
    return at_most(error, 0.03, "relative error in bfloat16")


CHECKS: tuple[Callable[[Subject], str], ...] = (
    check_start, check_oracle, check_gradients, check_layer, check_reach, check_merged, check_split,
    check_rank, check_saved, check_counts, check_bfloat16,
)  # fmt: skip
"""All checks; each returns what it measured, or raises."""


def run_checks(form: str, device: str = "cpu", **options: Any) -> list[Outcome]:
    """Run every check of `form` on `device`, made with `options` of `BasisConfig`.

    Raises:
        ValueError: The options cannot be used together.
    """
    subject, outcomes = Subject(form, device, **options), []
    where = options.get("sharing_scope", "module")
    for check in CHECKS:
        if check is check_oracle and where in ("row", "column"):
            continue  # an oracle has one phi; the layer is checked block by block
        name = check.__name__.removeprefix("check_")
        outcomes.append(outcome_of(name, where, partial(check, subject)))
    return outcomes
