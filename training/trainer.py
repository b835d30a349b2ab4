"""The Hugging Face Trainer, with another collator for evaluation than for training."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import DataLoader
from transformers import Trainer


class EpiFoundationTrainer(Trainer):
    """A Trainer whose evaluation batches may be made differently: fixed genes, say, where training draws them.

    Args:
        *args: as for ``transformers.Trainer``.
        eval_data_collator: makes the batches of `evaluate` and `predict`; by default `data_collator`.
        **kwargs: as for ``transformers.Trainer``.
    """

    def __init__(
        self, *args: Any, eval_data_collator: Callable[[Sequence[Any]], dict[str, Any]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.eval_data_collator = eval_data_collator or self.data_collator

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As in the base class, with `eval_data_collator`."""
        return self._with_eval_collator(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As in the base class, with `eval_data_collator`."""
        return self._with_eval_collator(super().get_test_dataloader, *args, **kwargs)

    def _with_eval_collator(self, make: Callable[..., DataLoader[Any]], *args: Any, **kwargs: Any) -> DataLoader[Any]:
        train_collator = self.data_collator
        self.data_collator = self.eval_data_collator
        try:
            return make(*args, **kwargs)
        finally:
            self.data_collator = train_collator
