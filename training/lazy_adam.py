"""AdamW that leaves alone the rows of embedding tables without a gradient: no time is spent, no memory kept for them.

A batch reads a few thousand of a million peaks, while the peak table is 96 % of a model's parameters.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from epifoundation import EpiFoundationPreTrainedModel
from epifoundation.modeling_epifoundation import EpiFoundationGeneModel


class LazyAdamW(torch.optim.AdamW):
    """AdamW for dense gradients; for sparse ones, which `make_tables_sparse` asks for, its lazy form.

    Lazy means, as in ``torch.optim.SparseAdam``, that a row's moments and weights change only in steps in which the row
    has a gradient; in between they neither decay nor move on. A row that has one in each step is treated exactly as
    in AdamW. Weight decay, too, reaches only rows with a gradient. Moments are kept for rows that ever had one.

    Sparse gradients work on one process, and on several with the backend gloo, but not with NCCL. For the arguments see
    ``torch.optim.AdamW``; `amsgrad` and `maximize` are not offered.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        lazy = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for parameter, gradient, group in lazy:
            self._update_rows(parameter, gradient.coalesce(), group)
            parameter.grad = None  # the parent takes no sparse ones
        try:
            super().step()
        finally:
            for parameter, gradient, _ in lazy:
                parameter.grad = gradient
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base class, which would turn row numbers into floats."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "slots" in state:
                state["slots"] = state["slots"].to(torch.int64)

    def _update_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """The equations of AdamW (Loshchilov and Hutter 2019, algorithm 2) on the rows of a gradient."""
        rows, values = gradient.indices()[0], gradient.values()
        if not len(rows):
            return
        state = self._state_of(table)
        state["step"] += 1
        slots = _slots_of(state, rows)
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        mean = state["exp_avg"].index_select(0, slots).lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, slots).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, slots, mean)
        state["exp_avg_sq"].index_copy_(0, slots, square)
        spread = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weights = table.index_select(0, rows).mul_(1 - float(group["lr"]) * group["weight_decay"])
        weights.addcdiv_(mean, spread, value=-float(group["lr"]) / (1 - beta1**step))
        table.index_copy_(0, rows, weights)

    def _state_of(self, table: Tensor) -> dict[str, Any]:
        """Moments without a row at first; slot 0 of a row says that it has none yet, so slots count from 1."""
        state: dict[str, Any] = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["slots"] = torch.zeros(len(table), dtype=torch.int64, device=table.device)
            state["exp_avg"] = table.new_zeros(1, *table.shape[1:])
            state["exp_avg_sq"] = table.new_zeros(1, *table.shape[1:])
        return state


def _slots_of(state: dict[str, Any], rows: Tensor) -> Tensor:
    """Where the moments of `rows` lie; rows that have none yet get zeros."""
    new = rows[state["slots"].index_select(0, rows) == 0]
    if len(new):
        first = int(state["slots"].max()) + 1
        state["slots"][new] = torch.arange(first, first + len(new), device=rows.device)
        _make_room(state, first + len(new))
    slots: Tensor = state["slots"].index_select(0, rows)
    return slots


def _make_room(state: dict[str, Any], needed: int) -> None:
    room = len(state["exp_avg"])
    if needed > room:
        # A quarter more than needed, so that the copying does not add up, but never more than the table.
        grown = min(needed + needed // 4, len(state["slots"]) + 1)
        for name in ("exp_avg", "exp_avg_sq"):
            larger = state[name].new_zeros(grown, *state[name].shape[1:])
            larger[:room] = state[name]
            state[name] = larger


def make_tables_sparse(model: EpiFoundationPreTrainedModel) -> None:
    """Let the tables of peaks and genes have sparse gradients, which hold the rows that were read and no others."""
    model.get_input_embeddings().sparse = True
    if isinstance(model, EpiFoundationGeneModel):
        model.gene_embeddings.embedding.sparse = True


def clip_sparse_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_`` for gradients of which some are sparse; the norm before comes back."""
    values = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse:
            parameter.grad = gradient = gradient.coalesce()  # a row read twice has one gradient, not two
            gradient = gradient._values()
        if gradient is not None:
            values.append(gradient)
    total = torch.nn.utils.get_total_norm(values)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(values, factor.to(values[0].device))
    return total
