"""The section `task` of a study: which data, and how it is read."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from studies.sections import Bool, Float, Int, Line, NamedSection

Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[Int, Field(ge=1)]
Side = Annotated[Int, Field(ge=2)]


def _columns(least: int, most: int | None, what: str) -> BeforeValidator:
    """Takes one column, or from `least` to `most` of them."""

    def check(given: Any) -> Any:
        several = isinstance(given, list | tuple)
        names = given if several else [given]
        fits = not several or (least <= len(given) and (most is None or len(given) <= most))
        if not fits or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"expected one column or a list of {what}, got {given!r}")
        return tuple(given) if several else given

    return BeforeValidator(check)


def _label_names(given: Any) -> Any:
    """Takes two or more names, numbers or truth values, as labels are written in files."""
    if given is None:
        return None
    several = isinstance(given, list | tuple) and len(given) > 1
    if not several or not all(isinstance(name, str | int | float) for name in given):
        raise ValueError(f"expected a list of two or more labels, got {given!r}")
    names = tuple(str(name).strip() for name in given)
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"expected labels that differ, none empty, got {given!r}")
    return names


class TaskSpec(NamedSection):
    """The data that is trained and tested on; `studies.tasks` checks what one task needs."""

    name: Annotated[Line, Field(examples=["movie_sentences", "./rows.csv", "owner/name:subset"])]
    """A shipped task's name, a local table or folder, or a hub id."""
    train_rows: Annotated[Count | None, Field(examples=[2000])] = None
    """Rows that are trained on; null: the task's own number."""
    valid_rows: Annotated[Count | None, Field(examples=[500])] = None
    """Rows that choices are made on; null: the task's own number."""
    test_rows: Annotated[Count | None, Field(examples=[2500])] = None
    """Rows that the arms are compared on; null: the task's own number."""
    max_length: Count = 128
    """Tokens a text is cut to."""
    text: Annotated[
        str | tuple[str, ...],
        _columns(1, 2, "one or two"),
        Field(examples=["text", ["question", "sentence"]]),
    ] = "text"
    """Column of the text, or the two columns of a pair, for tables and hub data sets."""
    label: Text = "label"
    """Column of the label, for tables and hub data sets."""
    labels: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_label_names),
        Field(examples=[["negative", "positive"]]),
    ] = None
    """The classes of a table or hub data set, in order; labels that differ from one in case, or in
    how a number or truth value is written, count as it. Null: as found, one spelling a class."""
    label_start: Annotated[Int | None, Field(ge=0, le=1, examples=[1])] = None
    """Whether the numbers of right choices count from 0 or from 1; null: as the rows tell."""
    missing: Literal["refuse", "drop", "keep"] = "refuse"
    """What becomes of rows of a table or hub data set that lack a value: refused by number, or left
    out and counted; keep: as refuse, but one text of several in a pair or template may be empty,
    and so may the last choices from the third on."""
    stratify: Bool = True
    """Whether all splits of a table or hub data set have its classes in like shares; false: they
    are drawn without regard to the class. Shipped tasks are split without."""
    template: Annotated[Text | None, Field(examples=["Q: {question}\\nA:"])] = None
    """Prompt with `{column}` for each column's value: makes a table or hub data set a
    multiple-choice task (with `choices`) or an instruction task (without); null: neither. In one
    with a `{{`, `{{` and `}}` are braces."""
    choices: Annotated[
        str | tuple[str, ...] | None,
        _columns(2, None, "two or more"),
        Field(examples=[["first", "second"]]),
    ] = None
    """Columns of the choices, or the one column with a list of them; `label` then holds the right
    one's place, letter or text."""
    data: Annotated[Line | None, Field(examples=["data/alpaca.json"])] = None
    """Local file or folder with the task's own data; null: the hub or a package archive."""
    train_on_inputs: Annotated[Bool | None, Field(examples=[True])] = None
    """Whether a language model is trained on the prompt's tokens too; null: the task's default."""
    scoring: Literal["sum", "normalised"] | None = None
    """Which log-likelihood of a choice decides `accuracy`: its sum over tokens, or that sum divided
    by the choice's number of characters; null: the task's own rule."""
    evaluate: Literal["loglikelihood", "generation", "both"] = "loglikelihood"
    """How multiple-choice answers are found."""
    max_new_tokens: Count = 32
    """Length of generated answers, in tokens."""
    beams: Count = 1
    """Beams of generated answers; 1 is greedy."""
    image_size: Annotated[Count | None, Field(examples=[224])] = None
    """Side of the square that images are cut to, in pixels; null: the backbone's own."""
    augment: Bool = False
    """Random crops and flips of training images."""
    prompts: Annotated[tuple[str, ...], Field(examples=[["a photo of a {}."]])] = ()
    """Templates with `{}` for a class's name, for CLIP; none: the task's own."""

    shape: Annotated[tuple[Side, Side] | None, Field(examples=[[64, 64]])] = None
    """Outputs and inputs of a matrix to approximate; null: 64 and 64, or all of the file's."""
    scale: Annotated[Float, Field(gt=0)] = 1.0
    """Root mean square of the entries of a matrix that is drawn."""
    decay: Annotated[Float, Field(gt=0)] = 1.0
    """matrix_decaying: singular value i is i to the power of minus this."""
    rank: Annotated[Count | None, Field(examples=[8])] = None
    """matrix_low_rank: how many equal singular values there are; null: a quarter of all."""
    noise: Annotated[Float, Field(ge=0, lt=1)] = 0.1
    """matrix_low_rank: the noise's share of the squared norm."""
    density: Annotated[Float, Field(gt=0, le=1)] = 0.1
    """matrix_sparse: the share of entries that are not 0."""
    files: Annotated[
        tuple[Line, ...] | None,
        Field(min_length=1, max_length=2, examples=[["before.safetensors", "after.safetensors"]]),
    ] = None
    """matrix_of_files: a checkpoint, or two: what the second has more than the first."""
    tensor: Annotated[Line | None, Field(examples=["model.layers.0.mlp.up_proj.weight"])] = None
    """matrix_of_files: the name of the weight in them."""

    @field_validator("prompts")
    @classmethod
    def _have_a_place(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not all("{}" in prompt for prompt in prompts):
            raise ValueError(f"every one must contain {{}}, got {list(prompts)!r}")
        return prompts

    @property
    def columns(self) -> tuple[str, ...]:
        """The one or two columns of text."""
        return (self.text,) if isinstance(self.text, str) else self.text
