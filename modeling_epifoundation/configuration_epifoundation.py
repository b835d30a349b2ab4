"""Configuration of every EpiFoundation model."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

# Raised when a checkpoint of the version before could no longer be read as it is.
FORMAT_VERSION = 1
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
    "additional_vocab_size": 0,
    "max_position_embeddings": 0,
    "num_trainable_layers": 0,
    "projection_size": 1,
    "max_peaks": 1,
    "max_genes": 2,
    "num_expression_bins": 2,
}


POSITIVE = (
    *("layer_norm_eps", "batch_norm_eps", "initializer_range", "discriminator_norm_eps"),
    *("peak_to_gene_weight", "replaced_peaks_weight", "masked_peaks_weight"),
)


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
        use_embedding_norms: a LayerNorm after the peak and the chromosome embedding (Atacformer: none).
        use_input_norm: dropout and BatchNorm after the sum of these embeddings (Atacformer: neither).
        use_final_norm: a LayerNorm after the last layer (Atacformer: none).
        use_cls_token: cells begin with ``[CLS]``. Where not (Atacformer), a ``[CLS]`` that comes with the input is
            passed over like padding, and a cell without peaks has the embedding zero.
        max_position_embeddings: learned positions of the tokens in their cell, in the order they come in; 0 for none,
            as peaks form a set (an option of Atacformer).
        additional_vocab_size: rows of the peak table behind those of the tokenizer, for tokens that it never gives
            (Atacformer: unknown, beginning, separator).
        use_batch_embeddings: join a batch embedding to the cell embedding in the gene decoders
            (paper, pre-training; ablated in its table 4).
        use_gene_bias: add a learned starting value to each gene's logit of being expressed; where expression is
            imputed, give both linear maps of the head a bias. Set to the genes' log-odds or mean levels it spares the
            head from learning how frequent each gene is; the official models have none.
        tie_word_embeddings: the scores of masked peaks are products with the peak table itself.
        peak_to_gene_weight: of peak-to-gene alignment in the sum of objectives of pre-training.
        replaced_peaks_weight: of replaced peaks in this sum.
        masked_peaks_weight: of masked peaks in this sum.
        discriminator_size: width of the detector of replaced peaks; by default `hidden_size`.
        discriminator_norm_eps: added to the variance in its LayerNorm.
        adversarial_weight: of the batches in the loss of batch correction (Atacformer: lambda_adv).
        gradient_reversal: factor of the gradient that the encoder gets from them, reversed (grl_alpha).
        standardize_adversary: bring the dimensions of cell embeddings to the same spread before batches are told from
            them, by a BatchNorm; the official adversary reads them as they are.
        num_trainable_layers: last layers of the encoder that learn in batch correction; 0 for all.
        gene_encoder: configuration of the encoder of genes in contrastive alignment, as a dictionary with
            ``model_type``, of any encoder in Transformers; by default a small BERT, see `default_gene_encoder`.
        use_typical_gene_counts: genes are ranked by their counts divided by what is usual for them; the model keeps
            that beside its weights.
        projection_size: width of the space that both modalities are brought to.
        initial_logit_scale: logarithm of the factor of cosines in its loss at the start (CLIP: 2.6592).
        assay_names: names of the assays that bulk samples are told apart by.
        num_imputed_genes: genes whose expression is imputed; by default all of `gene_vocab_size`.
        max_peaks: peaks of a cell that are read at most, ``[CLS]`` not counted (paper: L_peak = 12,000).
        max_genes: genes drawn per cell in pre-training (paper: L_gene = 8,000); in contrastive alignment those read,
            the most expressed ones.
        num_expression_bins: levels of expression in fine-tuning (paper: N_bin = 10).
        pad_token_id: id of ``[PAD]`` in the peak table.
        mask_token_id: id of ``[MASK]``.
        cls_token_id: id of ``[CLS]``.
        eos_token_id: id of ``[EOS]``; the official vocabulary holds it, no model uses it.
        gene_pad_token_id: id of padding in the gene table.
        format_version: how weights and configuration are laid out; a checkpoint without it has 1.
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
    use_embedding_norms: bool = True
    use_input_norm: bool = True
    use_final_norm: bool = True
    use_cls_token: bool = True
    max_position_embeddings: int = 0
    additional_vocab_size: int = 0
    use_batch_embeddings: bool = False
    use_gene_bias: bool = False
    tie_word_embeddings: bool = True
    peak_to_gene_weight: float | int = 1.0
    replaced_peaks_weight: float | int = 1.0
    masked_peaks_weight: float | int = 1.0
    discriminator_size: int | None = None
    discriminator_norm_eps: float = 1e-5
    adversarial_weight: float | int = 1.0
    gradient_reversal: float | int = 1.0
    standardize_adversary: bool = False
    num_trainable_layers: int = 0
    gene_encoder: dict[str, Any] | None = None
    use_typical_gene_counts: bool = False
    projection_size: int = 256
    initial_logit_scale: float | int = 2.6592
    assay_names: list[str] | None = None
    num_imputed_genes: int | None = None
    max_peaks: int = 12_000
    max_genes: int = 8_000
    num_expression_bins: int = 10
    pad_token_id: int | None = 0
    mask_token_id: int | None = 1
    cls_token_id: int | None = 2
    eos_token_id: int | None = 3
    gene_pad_token_id: int = 0
    format_version: int = FORMAT_VERSION

    def validate_architecture(self) -> None:
        """Refuse sizes and ids that cannot work together."""
        super().validate_architecture()
        if not 1 <= self.format_version <= FORMAT_VERSION:
            raise ValueError(
                f"format_version {self.format_version} is not known here, where 1 to {FORMAT_VERSION} are: the "
                "checkpoint was written by a newer epifoundation; upgrade with 'pip install -U epifoundation'"
            )
        for name, least in SMALLEST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be an activation that transformers knows, got {self.hidden_act!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}): each head gets an equal share"
            )
        for name in ("discriminator_size", "num_imputed_genes"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, or None, got {size}")
        if self.gene_encoder is not None and "model_type" not in self.gene_encoder:
            raise ValueError(
                "gene_encoder must name its kind under 'model_type', such as 'bert', got the keys "
                f"{', '.join(self.gene_encoder) or 'none'}"
            )
        if self.pooling == "cls" and not self.use_cls_token:
            raise ValueError("pooling='cls' takes the output at [CLS], which use_cls_token=False drops: use 'mean'")
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
