"""A registry answers by name and never overwrites. Imports nothing heavy."""

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

_ALL: "list[Registry[Any]]" = []
_OURS = ("basis_zoo", "adapters", "studies")


class NamedDataclass(Protocol):
    """A dataclass that knows the name under which it is registered."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


M = TypeVar("M")
T = TypeVar("T", bound=NamedDataclass)


SYNONYMS = {
    "r": "rank lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "modules targets target",
    "num_basis": "g num_functions n_basis grid_size",
    "learning_rate": "lr",
    "batch_size": "batch bs per_device_train_batch_size train_batch_size",
    "eval_batch_size": "eval_batch per_device_eval_batch_size",
    "epochs": "epoch num_epochs num_train_epochs",
    "max_steps": "steps",
    "eval_every": "eval_steps",
    "weight_decay": "wd decay",
    "warmup_ratio": "warmup warmup_steps",
    "schedule": "scheduler lr_scheduler lr_scheduler_type",
    "gradient_accumulation": "grad_accum gradient_accumulation_steps accumulation",
    "max_grad_norm": "clip grad_clip gradient_clipping",
    "train_rows": "train_size train_samples max_train_samples",
    "valid_rows": "valid_size eval_rows max_eval_samples",
    "test_rows": "test_size test_samples",
    "max_length": "max_len seq_len max_seq_length",
    "backbone": "model base_model",
    "task": "data dataset",
    "seeds": "seed",
    "at_least": "min minimum min_seeds",
    "at_most": "max maximum max_seeds",
    "resolution": "equivalence rope smallest_effect",
    "dtype": "precision",
    "attention": "attn_implementation",
}
"""What a name is called elsewhere, in PEFT, in transformers or in short."""


NEAR = 0.6
"""How alike a name must be to be meant, by `difflib`."""
MOST_HINTS = 3
"""Names that are shown where several are as near."""


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` for what of `names` is meant or nearest, or nothing.

    Case does not count. Of a dotted name, such as train.lr, the last part may be a synonym.
    """
    spelled = {each.lower(): each for each in names}
    text = str(name).lower()
    before, dot, last = text.rpartition(".")
    translations = (
        f"{before}{dot}{own}" for own, others in SYNONYMS.items() if last in others.split()
    )
    close = [each for each in translations if each in spelled]
    if not close:
        ratios = {each: difflib.SequenceMatcher(None, each, text).ratio() for each in spelled}
        nearest = max(ratios.values(), default=0.0)
        close = [each for each, ratio in ratios.items() if ratio == nearest >= NEAR]
    meant = " or ".join(repr(spelled[each]) for each in close[:MOST_HINTS])
    return f" Did you mean {meant}?" if meant else ""


def unknown(kind: str, name: object, names: Iterable[str]) -> str:
    """The message that no `kind` is called `name`: what was meant, and what there is."""
    names = sorted(names)
    registered = ", ".join(names) or "none"
    return f"unknown {kind} {name!r}.{did_you_mean(name, names)} Registered: {registered}"


def no_option(owner: str, option: object, names: Iterable[str]) -> str:
    """The message that `owner`, such as "method 'lora'", has no such option."""
    names = list(names)
    options = ", ".join(names) or "none"
    return f"{owner} has no option {option!r}.{did_you_mean(option, names)} Its options: {options}"


class Registry(Generic[M]):
    """Names to members.

    Args:
        kind: What is registered, for messages: `task`.
        base: What every member is an instance of.
        origin: Where a member comes from, for the message that its name is taken; by default the
            class of the member.
    """

    def __init__(
        self,
        kind: str,
        base: type,
        origin: Callable[[M], str] = lambda member: _place(type(member)),
    ) -> None:
        self._kind = kind
        self._base = base
        self._origin = origin
        self._members: dict[str, M] = {}
        self._foreign: set[str] = set()
        """Names of members that do not ship."""
        _ALL.append(self)

    def add(self, name: str, member: M) -> M:
        """Make `member` known by `name`.

        Raises:
            ValueError: The name is taken or not a lower-case word.
            TypeError: The member is not of the registry's kind.
        """
        self._check(name, member)
        if not (isinstance(name, str) and name.isidentifier() and name == name.lower()):
            raise ValueError(f"the name of a {self._kind} is a lower-case word, got {name!r}")
        present = self._members.get(name)
        if present is not None and not self._same(present, member):
            raise ValueError(
                f"{self._kind} {name!r} is already registered as {self._origin(present)}; "
                f"give {self._origin(member)} another name"
            )
        self._members[name] = member
        if _importing().partition(".")[0] not in _OURS:
            self._foreign.add(name)
        return member

    def find(self, name: str) -> M:
        """The member registered under `name`.

        Raises:
            ValueError: There is none; the message suggests the nearest name.
        """
        if name not in self._members:
            raise ValueError(self.unknown(name))
        return self._members[name]

    def unknown(self, name: object) -> str:
        """The message that there is no `name`: what was meant, and what there is."""
        return unknown(self._kind, name, self.names())

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def _check(self, name: str, member: M) -> None:
        if not isinstance(member, self._base):
            raise TypeError(
                f"{self._kind} {name!r} must be a {self._base.__name__}, got {member!r}"
            )

    def _same(self, present: M, member: M) -> bool:
        """Whether `member` may replace `present`, as it is the same thing again."""
        return False


def foreign() -> set[tuple[str, str]]:
    """Kind and name of every member that does not ship, whatever has been imported."""
    return {
        (registry._kind, name)
        for registry in _ALL
        for name in registry._foreign & registry._members.keys()
    }


def _importing() -> str:
    """The innermost module that is being run; "" from a call after all imports."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")) if frame.f_code.co_name == "<module>" else ""


class ClassRegistry(Registry[type[T]]):
    """Names to classes of frozen dataclasses, which are made with options.

    Every member extends `base`. The import of the module `shipped` registers the members that ship;
    it is imported before the first member is looked up or added.
    """

    def __init__(self, kind: str, base: type, shipped: str | None = None) -> None:
        super().__init__(kind, base, origin=_place)
        self._shipped = shipped

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that adds a member under `name`.

        Raises:
            ValueError: The name is taken or not a lower-case word.
            TypeError: The class does not extend the registry's base, or no name is given.
        """
        if not isinstance(name, str):
            raise TypeError(f"a {self._kind} needs a name, a string before its class; got {name!r}")

        def add(member: type[T]) -> type[T]:
            self._load()
            self.add(name, member)
            member.name = name
            return member

        return add

    def get(self, name: str, **options: Any) -> T:
        """An instance of the member `name` made with `options`.

        Raises:
            ValueError: Unknown name, unknown option, or an option the member refuses.
        """
        member = self.get_class(name)
        fields = [f.name for f in dataclasses.fields(member) if f.init]
        for option in options:
            if option not in fields:
                raise ValueError(no_option(f"{self._kind} {name!r}", option, fields))
        try:
            return member(**options)
        except TypeError as error:
            raise ValueError(f"{self._kind} {name!r} refuses {options}: {error}") from error

    def get_class(self, name: str) -> type[T]:
        """The class registered under `name`.

        Raises:
            ValueError: There is none; the message suggests the nearest name.
        """
        self._load()
        return self.find(name)

    def names(self) -> list[str]:
        """The registered names, sorted."""
        self._load()
        return super().names()

    def _load(self) -> None:
        shipped, self._shipped = self._shipped, None
        if shipped is not None:
            importlib.import_module(shipped)

    def _check(self, name: str, member: type[T]) -> None:
        if not (isinstance(member, type) and issubclass(member, self._base)):
            raise TypeError(
                f"{self._kind} {name!r} must be a subclass of {self._base.__name__}, got {member!r}"
            )

    def _same(self, present: type[T], member: type[T]) -> bool:
        return _place(present) == _place(member)  # its file was read again


def _place(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"
