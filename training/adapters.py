"""Low-rank adaptation (Hu et al. 2021) of the encoder's layers, with embeddings and head trained as they are."""

import warnings
from typing import Any

from epifoundation import EpiFoundationPreTrainedModel

LAYERS = ("qkv_proj", "o_proj", "up_proj", "down_proj")
EMBEDDINGS = ("peak_embeddings", "chromosome_embeddings")
# BatchNorm would change with every batch while its statistics are not part of an adapter's checkpoint.
NOT_TRAINED = ("epifoundation", "gene_norm", "gene_dropout")


def with_lora(
    model: EpiFoundationPreTrainedModel, rank: int, alpha: int, *, dropout: float = 0.0, train_peaks: bool = True
) -> Any:
    """Put low-rank updates beside the linear maps of all layers; everything else but embeddings and head is frozen.

    BatchNorm must stay at its statistics: train with ``freeze_batch_norm=True``.

    Args:
        model: a model with a head; it becomes part of what is returned.
        rank: of the updates.
        alpha: the updates are scaled by ``alpha / rank``.
        dropout: of their input.
        train_peaks: also train the peak and chromosome embeddings, reported best for models of this kind.

    Returns:
        A ``peft.PeftModel``; its ``merge_and_unload()`` gives a plain model again.

    Raises:
        ImportError: if PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs the package peft: install 'epifoundation[peft]'") from error
    heads = [name for name, _ in model.named_children() if name not in NOT_TRAINED]
    embeddings = EMBEDDINGS if train_peaks else EMBEDDINGS[1:]
    names = {name.rsplit(".")[-1] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(LAYERS),
        modules_to_save=[*heads, *(name for name in embeddings if name in names)],
    )
    with warnings.catch_warnings():
        # PEFT asks the model for a property that Transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)
