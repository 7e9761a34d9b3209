"""What kinds share that train a language model on the tokens of an answer."""

from collections.abc import Sequence

from torch import Tensor

from studies.tasks.encoding import Example
from studies.tasks.kinds.prepared import Outputs, Prepared
from studies.tasks.kinds.tokens import PadLessons, masked_next_token_loss, next_token_loss


class TrainedOnLessons(Prepared):
    """Rows made by `tokens.lessons`, and the loss of their labelled tokens."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = PadLessons(pad_token_id)

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, length) tokens, mask and labels."""
        return self._pad(examples, lengths)

    def loss(
        self, outputs: Outputs, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Mean over the step's labelled tokens."""
        return next_token_loss(outputs, labels, num_items_in_batch)

    def fixed_loss(
        self, outputs: Outputs, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The same, all positions in."""
        return masked_next_token_loss(outputs, labels, num_items_in_batch)
