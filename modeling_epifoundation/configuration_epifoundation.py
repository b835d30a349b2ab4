"""Configuration of every EpiFoundation model."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

FIRST_GENE_ID = 4  # after the special tokens of the gene vocabulary

SMALLEST = {
    "vocab_size": 1,
    "gene_vocab_size": 1,
    "num_chromosomes": 1,
    "num_batches": 0,
    "hidden_size": 1,
    "num_hidden_layers": 0,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "gene_decoder_size": 1,
    "max_peaks": 1,
    "max_genes": 2,
    "num_expression_bins": 2,
}


@strict
class EpiFoundationConfig(PreTrainedConfig):
    r"""
    What defines an EpiFoundation model, with the values of the paper as defaults.

    Fields are checked when the configuration is made and when it is saved; a wrong type raises
    ``StrictDataclassFieldValidationError``, an impossible value or combination
    ``StrictDataclassClassValidationError`` (both of ``huggingface_hub.errors``; neither is a ``ValueError``).

    Args:
        vocab_size: rows of the peak embedding table: the peaks of the vocabulary and the special tokens
            (published models: 524,151 peaks + 4).
        gene_vocab_size: rows of the gene embedding table: genes and special tokens
            (published models: 36,601 genes of the 10x reference GRCh38-2020-A + 4).
        num_chromosomes: rows of the chromosome embedding table: chromosomes and special tokens
            (paper: 22 autosomes, X and Y; + 4).
        num_batches: number of experimental batches that have an embedding; 0 without batch embeddings.
        hidden_size: width of the encoder (paper: d = 512).
        num_hidden_layers: encoder layers (paper: N_L = 6).
        num_attention_heads: attention heads (paper: 8).
        intermediate_size: width of the feed-forward part of a layer (official settings: 1,024).
        hidden_act: activation of the feed-forward part (official code: ReLU).
        hidden_dropout_prob: dropout after embeddings, attention and feed-forward, in [0, 1) (paper: 0.15).
        attention_probs_dropout_prob: dropout of the attention weights, in [0, 1) (paper: 0.15). Above zero it
            leaves the fused attention of a CPU, where training becomes several times slower.
        layer_norm_eps: added to the variance in every LayerNorm (official code: 1e-5).
        batch_norm_eps: added to the variance in the BatchNorm of peak and gene embeddings (official code: 6.1e-5).
        batch_norm_momentum: weight of the newest batch in the running statistics (official code: 0.1).
        initializer_range: standard deviation of freshly drawn embeddings.
        pooling: how the tokens of a cell become its embedding: ``"cls"`` takes the output at ``[CLS]`` (paper),
            ``"mean"`` the average over all tokens of the cell.
        gene_decoder_size: width of the peak-to-gene decoder (official code: 128).
        use_chromosome_embeddings: add a chromosome embedding to peaks and genes (paper; ablated in its table 4).
        use_batch_embeddings: join a batch embedding to the cell embedding in the gene decoders
            (paper, pre-training; ablated in its table 4).
        use_gene_bias: add a learned starting value to each gene's logit of being expressed. Set to the genes'
            log-odds it spares the decoder from learning how frequent each gene is; the official model has none.
        max_peaks: peaks of a cell that are read at most, ``[CLS]`` not counted (paper: L_peak = 12,000).
        max_genes: genes drawn per cell in pre-training (paper: L_gene = 8,000).
        num_expression_bins: levels of expression in fine-tuning (paper: N_bin = 10).
        pad_token_id: id of ``[PAD]`` in the peak table.
        mask_token_id: id of ``[MASK]``.
        cls_token_id: id of ``[CLS]``.
        eos_token_id: id of ``[EOS]``; the official vocabulary holds it, no model uses it.
        gene_pad_token_id: id of padding in the gene table.
    """

    model_type = "epifoundation"
    keys_to_ignore_at_inference = ["cell_embeddings", "hidden_states", "attentions"]  # noqa: RUF012

    vocab_size: int = 524_155
    gene_vocab_size: int = 36_605
    num_chromosomes: int = 28
    num_batches: int = 0
    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    hidden_act: str = "relu"
    hidden_dropout_prob: float | int = 0.15
    attention_probs_dropout_prob: float | int = 0.15
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 6.1e-5
    batch_norm_momentum: float = 0.1
    initializer_range: float = 0.02
    pooling: Literal["cls", "mean"] = "cls"
    gene_decoder_size: int = 128
    use_chromosome_embeddings: bool = True
    use_batch_embeddings: bool = False
    use_gene_bias: bool = False
    max_peaks: int = 12_000
    max_genes: int = 8_000
    num_expression_bins: int = 10
    pad_token_id: int | None = 0
    mask_token_id: int | None = 1
    cls_token_id: int | None = 2
    eos_token_id: int | None = 3
    gene_pad_token_id: int = 0

    def validate_architecture(self) -> None:
        """Refuse sizes and ids that cannot work together."""
        super().validate_architecture()
        for name, least in SMALLEST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("layer_norm_eps", "batch_norm_eps", "initializer_range"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be an activation that transformers knows, got {self.hidden_act!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}): each head gets an equal share"
            )
        if self.use_batch_embeddings and self.num_batches < 1:
            raise ValueError(
                "use_batch_embeddings needs num_batches, the number of experimental batches in the training data, "
                f"to be at least 1; it is {self.num_batches}"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("pad_token_id", "mask_token_id", "cls_token_id", "eos_token_id"):
            token_id = getattr(self, name)
            if token_id is not None and not 0 <= token_id < self.vocab_size:
                raise ValueError(f"{name} must lie in the peak table of {self.vocab_size} rows, got {token_id}")
        if not 0 <= self.gene_pad_token_id < self.gene_vocab_size:
            raise ValueError(
                f"gene_pad_token_id must lie in the gene table of {self.gene_vocab_size} rows, "
                f"got {self.gene_pad_token_id}"
            )


__all__ = ["EpiFoundationConfig"]
