"""The EpiFoundation encoder and its three heads: alignment to genes, cell types, expression."""

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput, can_return_tuple

from .attention_epifoundation import Packing, attend, flash_attention_fits
from .configuration_epifoundation import FIRST_GENE_ID, EpiFoundationConfig

# What a saved folder tells the Auto classes; every class of this file can be loaded from any such folder.
AUTO_MAP = {
    "AutoConfig": "configuration_epifoundation.EpiFoundationConfig",
    "AutoModel": "modeling_epifoundation.EpiFoundationModel",
    "AutoModelForPreTraining": "modeling_epifoundation.EpiFoundationForPeakToGeneAlignment",
    "AutoModelForSequenceClassification": "modeling_epifoundation.EpiFoundationForCellClassification",
    "AutoModelForExpressionPrediction": "modeling_epifoundation.EpiFoundationForExpressionPrediction",
}

# The attention of a model for which nobody chose one: the fastest that its tensors and this machine allow.
AUTOMATIC = "automatic"
IGNORED_LABEL = -100  # marks a label that takes no part in the loss, as everywhere in Transformers
# Fine-tuning for expression starts from the pre-trained decoder, all but its last linear map.
DECODER_TO_FINE_TUNE = {r"^alignment_decoder\.(?!output)": "expression_decoder."}
# Weights that other heads keep beside the encoder; leaving them out of a load is no reason for a warning.
OF_GENES = [r"^gene_(embeddings|norm|bias)", r"^batch_embeddings\.", r"^(alignment|expression)_decoder\."]
OF_CLASSIFIER = [r"^classifier\."]
GENES_PER_CHUNK = 4096  # genes decoded at a time for all cells: bounds memory at (cells, 4096, gene_decoder_size)


@dataclass
class EpiFoundationHeadOutput(ModelOutput):
    """What a head returns.

    Attributes:
        loss: mean over the labels that take part, or None without labels.
        logits: (cells, genes, 2), (cells, labels) or (cells, genes), see the head.
        cell_embeddings: (cells, hidden).
        hidden_states: on request, the input of the first layer and the output of each, (cells, tokens, hidden).
        attentions: on request and with ``attn_implementation="eager"``, (cells, heads, tokens, tokens) per layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cell_embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class NormedEmbedding(nn.Module):
    """An embedding table followed by a LayerNorm."""

    def __init__(self, num_rows: int, config: EpiFoundationConfig, padding_idx: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_rows, config.hidden_size, padding_idx=padding_idx)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids -> (..., hidden)."""
        return self.norm(self.embedding(ids))

    def look_up(self, ids: Tensor) -> Tensor:
        """The same for a table with fewer rows than `ids`: each row is normalised once, not once per use."""
        rows = torch.arange(self.embedding.num_embeddings, device=ids.device)
        return F.embedding(ids, self(rows))


class EpiFoundationAttention(nn.Module):
    """Multi-head self-attention among the peaks of each cell. Peaks form a set: there are no positions."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.config = config
        self.is_causal = False
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, packing: Packing, query_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(tokens, hidden) -> the context of all tokens, or of those at `query_positions`, one per cell."""
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, self.head_size))
        query, key, value = qkv.unbind(dim=1)
        if query_positions is not None:
            query = query.index_select(0, query_positions)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        context, weights = attend(query, key, value, packing, self._implementation(query), dropout)
        return self.o_proj(context.flatten(1)), weights

    def _implementation(self, query: Tensor) -> str:
        implementation = self.config._attn_implementation
        if implementation == AUTOMATIC:
            return "flash_attention_2" if flash_attention_fits(query) else "sdpa"
        return implementation


class EpiFoundationLayer(GradientCheckpointingLayer):
    """A transformer layer that normalises after each residual sum (post-norm), as the official model does."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.attention = EpiFoundationAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: Tensor, packing: Packing, query_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(tokens, hidden) -> the same, or only the rows at `query_positions`; and the attention weights."""
        context, weights = self.attention(hidden_states, packing, query_positions)
        residual = hidden_states if query_positions is None else hidden_states.index_select(0, query_positions)
        hidden_states = self.attention_norm(residual + self.dropout(context))
        expanded = self.dropout(self.activation(self.up_proj(hidden_states)))
        return self.feed_forward_norm(hidden_states + self.dropout(self.down_proj(expanded))), weights


class EpiFoundationPreTrainedModel(PreTrainedModel):
    """What all classes share: loading, saving with the code, initial weights."""

    config: EpiFoundationConfig
    base_model_prefix = "epifoundation"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NormedEmbedding", "EpiFoundationLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            # As torch draws them, with a spread that follows the width. The one spread for all widths that is usual
            # in Transformers leaves a narrow model so nearly constant that alignment hardly starts.
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        if isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)  # the default of torch
        elif isinstance(module, EpiFoundationForPeakToGeneAlignment) and module.gene_bias is not None:
            init.zeros_(module.gene_bias)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # every call goes through `attend`, which reads the configuration each time

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        if attn_implementation in (None, AUTOMATIC):
            return AUTOMATIC
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of peak embeddings, (vocab_size, hidden)."""
        return self._encoder.peak_embeddings.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the table of peak embeddings."""
        self._encoder.peak_embeddings.embedding = cast(nn.Embedding, value)

    @property
    def _encoder(self) -> "EpiFoundationModel":
        return cast(EpiFoundationModel, self.base_model)

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Save weights, configuration and the code, so that the folder loads where the package is not installed.

        See ``PreTrainedModel.save_pretrained`` for the arguments.
        """
        self.config.auto_map = dict(AUTO_MAP)
        # The parent copies the code of a class that names its Auto class, in time for `push_to_hub=True`.
        super().save_pretrained(save_directory, *args, **kwargs)


class EpiFoundationModel(EpiFoundationPreTrainedModel):
    """The encoder: a cell's open peaks in, one embedding per peak in context and one per cell out."""

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.peak_embeddings = NormedEmbedding(config.vocab_size, config, padding_idx=config.pad_token_id)
        self.chromosome_embeddings = (
            NormedEmbedding(config.num_chromosomes, config, padding_idx=0) if config.use_chromosome_embeddings else None
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.input_norm = nn.BatchNorm1d(
            config.hidden_size, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )
        self.layers = nn.ModuleList(EpiFoundationLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def add_chromosomes(self, embeddings: Tensor, chromosome_ids: Tensor | None) -> Tensor:
        """Add to peaks or genes, (n, hidden), the embedding of the chromosome each lies on.

        Raises:
            ValueError: if the model uses chromosomes and none are given.
        """
        if self.chromosome_embeddings is None:
            return embeddings
        if chromosome_ids is None:
            raise ValueError(
                "this model adds chromosome embeddings, but no chromosome ids came with the input; the tokenizer "
                "returns them as 'chromosome_ids' and holds those of genes in 'gene_chromosome_ids'"
            )
        return embeddings + self.chromosome_embeddings.look_up(chromosome_ids)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cu_seq_lens_q: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cell_embeddings_only: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode cells. Padding takes no part in any computation, so cells do not depend on their neighbours.

        Args:
            input_ids: (cells, tokens) ids of ``[CLS]`` and of the open peaks, in any order after ``[CLS]``;
                or packed, (1, tokens of all cells), with `cu_seq_lens_q`.
            chromosome_ids: the chromosome of each token, shaped as `input_ids`.
            attention_mask: (cells, tokens), 1 at a token and 0 at padding; by default all but ``[PAD]``.
            inputs_embeds: (cells, tokens, hidden) rows of the peak table in place of `input_ids`.
            cu_seq_lens_q: (cells + 1,) int32 bounds of the cells in a packed input.
            output_hidden_states: also return the input of the first layer and the output of each layer.
            output_attentions: also return the attention weights; needs ``attn_implementation="eager"``.
            cell_embeddings_only: leave `last_hidden_state` out (None). With ``pooling="cls"`` the last layer is then
                computed for ``[CLS]`` alone, which changes no number.

        Returns:
            `last_hidden_state`, the regions in context, in the layout of the input with zeros at padding;
            `pooler_output`, (cells, hidden), the cell embeddings.

        Raises:
            ValueError: if neither or both of `input_ids` and `inputs_embeds` are given, or chromosomes are missing.
        """
        output_hidden_states = _given_or(output_hidden_states, self.config.output_hidden_states)
        output_attentions = _given_or(output_attentions, self.config.output_attentions)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both and not neither")
        packing = self._packing(input_ids, attention_mask, inputs_embeds, cu_seq_lens_q)
        hidden_states = self._embed(packing, input_ids, chromosome_ids, inputs_embeds)

        is_cls_enough = cell_embeddings_only and self.config.pooling == "cls"
        skip_last = is_cls_enough and not (output_hidden_states or output_attentions) and len(self.layers) > 0
        all_hidden_states, all_attentions = [hidden_states], []
        for layer in self.layers[:-1] if skip_last else self.layers:
            hidden_states, weights = layer(hidden_states, packing)
            all_hidden_states.append(hidden_states)
            all_attentions.append(weights)
        if skip_last:
            hidden_states, _ = self.layers[-1](hidden_states, packing, packing.first_tokens)
            cell_embeddings = self.norm(hidden_states)
        else:
            hidden_states = self.norm(hidden_states)
            cell_embeddings = self._pool(hidden_states, packing)
        return BaseModelOutputWithPooling(
            last_hidden_state=None if cell_embeddings_only else packing.unpack(hidden_states),
            pooler_output=cell_embeddings,
            hidden_states=tuple(packing.unpack(h) for h in all_hidden_states) if output_hidden_states else None,
            attentions=self._checked_attentions(all_attentions) if output_attentions else None,
        )

    def _packing(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        boundaries: Tensor | None,
    ) -> Packing:
        if boundaries is not None:
            if attention_mask is not None:
                raise ValueError(
                    "a packed input holds no padding: leave attention_mask out when cu_seq_lens_q is given"
                )
            tokens = input_ids if input_ids is not None else inputs_embeds
            assert tokens is not None
            return Packing.from_boundaries(boundaries, num_tokens=tokens.shape[0] * tokens.shape[1])
        if attention_mask is None and input_ids is not None:
            attention_mask = cast(Tensor, input_ids != self.config.pad_token_id)
        elif attention_mask is None and inputs_embeds is not None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        assert attention_mask is not None
        return Packing.from_mask(attention_mask)

    def _embed(
        self,
        packing: Packing,
        input_ids: Tensor | None,
        chromosome_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        if inputs_embeds is not None:
            peaks = self.peak_embeddings.norm(packing.pack(inputs_embeds))
        else:
            assert input_ids is not None
            peaks = self.peak_embeddings(packing.pack(input_ids))
        if chromosome_ids is not None:
            chromosome_ids = packing.pack(chromosome_ids)
        # The statistics of input_norm are those of real tokens: padding was left behind in `pack`.
        return self.input_norm(self.dropout(self.add_chromosomes(peaks, chromosome_ids)))

    def _pool(self, hidden_states: Tensor, packing: Packing) -> Tensor:
        if self.config.pooling == "mean":
            return packing.mean(hidden_states)
        return hidden_states.index_select(0, packing.first_tokens)

    def _checked_attentions(self, attentions: list[Tensor | None]) -> tuple[Tensor, ...]:
        weights = tuple(w for w in attentions if w is not None)
        if len(weights) < len(attentions):
            raise ValueError(
                "output_attentions needs the weights, which only attn_implementation='eager' computes; load the "
                f"model with it (it has {self.config._attn_implementation!r})"
            )
        return weights


class CellClassifier(nn.Module):
    """Two hidden layers and an output: (cells, hidden) -> (cells, labels)."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(2))
        self.output = nn.Linear(config.hidden_size, cast(int, config.num_labels))

    def forward(self, cell_embeddings: Tensor) -> Tensor:
        """Score each label for each cell."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            cell_embeddings = norm(F.relu(layer(cell_embeddings)))
        return self.output(cell_embeddings)


class GeneDecoder(nn.Module):
    """What a cell's embedding says about a gene: a small network on the pair of both.

    The official decoder joins cell, batch and gene query into one long vector before a linear map. Here each part has
    its own piece of that map, and the pieces' outputs are summed: the same numbers, but the gene's part is computed
    once for all cells and the cell's part once for all genes.
    """

    def __init__(self, config: EpiFoundationConfig, num_outputs: int) -> None:
        super().__init__()
        size = config.gene_decoder_size
        self.gene_proj = nn.Linear(config.hidden_size, size)
        self.query_proj = nn.Linear(size, size)
        self.cell_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.batch_proj = nn.Linear(config.hidden_size, size, bias=False) if config.use_batch_embeddings else None
        self.activation = nn.PReLU()
        self.output = nn.Linear(size, num_outputs)

    def read_cells(self, cell_embeddings: Tensor, batch_embeddings: Tensor | None) -> Tensor:
        """(cells, hidden) -> the cells' part, (cells, size). Without batch embeddings their part is zero."""
        cells = self.cell_proj(cell_embeddings)
        if self.batch_proj is None or batch_embeddings is None:
            return cells
        return cells + self.batch_proj(batch_embeddings)

    def read_genes(self, gene_embeddings: Tensor) -> Tensor:
        """(genes, hidden) -> the genes' part, (genes, size)."""
        return self.query_proj(self.gene_proj(gene_embeddings).sigmoid())

    def forward(self, cells: Tensor, genes: Tensor) -> Tensor:
        """Join parts that broadcast against each other, (..., size) -> (..., outputs)."""
        return self.output(self.activation(cells + genes))


class EpiFoundationGeneModel(EpiFoundationPreTrainedModel):
    """An encoder with gene embeddings: what alignment and expression prediction have in common."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.epifoundation = EpiFoundationModel(config)
        self.gene_embeddings = NormedEmbedding(config.gene_vocab_size, config, padding_idx=config.gene_pad_token_id)
        self.gene_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.gene_norm = nn.BatchNorm1d(
            config.hidden_size, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )
        self.batch_embeddings = NormedEmbedding(config.num_batches, config) if config.use_batch_embeddings else None

    def resize_gene_embeddings(self, gene_vocab_size: int) -> nn.Embedding:
        """Give the gene table another number of rows; the first rows are kept, new ones drawn afresh.

        Returns:
            The new table.
        """
        table = self._get_resized_embeddings(self.gene_embeddings.embedding, gene_vocab_size, mean_resizing=False)
        self.gene_embeddings.embedding = table
        self.config.gene_vocab_size = gene_vocab_size
        return table

    def _decode(
        self,
        decoder: GeneDecoder,
        cell_embeddings: Tensor,
        gene_ids: Tensor | None,
        gene_chromosome_ids: Tensor | None,
        batch_ids: Tensor | None,
    ) -> Tensor:
        """(cells, hidden) -> (cells, genes, outputs); zeros where `gene_ids` is padding."""
        batches = None
        if self.batch_embeddings is not None and batch_ids is not None:
            batches = self.batch_embeddings(batch_ids)
        cells = decoder.read_cells(cell_embeddings, batches)
        if gene_ids is None:
            gene_ids = torch.arange(FIRST_GENE_ID, self.config.gene_vocab_size, device=cells.device)
            if gene_chromosome_ids is not None and len(gene_chromosome_ids) == self.config.gene_vocab_size:
                gene_chromosome_ids = gene_chromosome_ids[FIRST_GENE_ID:]
        if gene_ids.ndim == 1:
            genes = decoder.read_genes(self._embed_genes(gene_ids, gene_chromosome_ids))
            return torch.cat([decoder(cells[:, None], chunk[None]) for chunk in genes.split(GENES_PER_CHUNK)], dim=1)
        if len(gene_ids) != len(cells):
            raise ValueError(
                f"gene_ids has {len(gene_ids)} rows for {len(cells)} cells: give one row per cell, (cells, genes), "
                "or the same genes for all, (genes,)"
            )
        is_gene = gene_ids != self.config.gene_pad_token_id
        cell_of_gene, place = is_gene.nonzero(as_tuple=True)
        if gene_chromosome_ids is not None:
            gene_chromosome_ids = gene_chromosome_ids[is_gene]
        genes = decoder.read_genes(self._embed_genes(gene_ids[is_gene], gene_chromosome_ids))
        # Not cells[cell_of_gene]: on several threads the gradient of that is summed in an order that varies.
        logits = decoder(cells.index_select(0, cell_of_gene), genes)
        return logits.new_zeros(*gene_ids.shape, logits.shape[-1]).index_put((cell_of_gene, place), logits)

    def _labels_of_genes(self, labels: Tensor, gene_ids: Tensor | None) -> Tensor:
        """The labels, with those of padding left out of the loss whatever they are."""
        if gene_ids is None or gene_ids.ndim == 1:
            return labels
        return labels.masked_fill(gene_ids == self.config.gene_pad_token_id, IGNORED_LABEL)

    def _embed_genes(self, gene_ids: Tensor, chromosome_ids: Tensor | None) -> Tensor:
        genes = self.epifoundation.add_chromosomes(self.gene_embeddings(gene_ids), chromosome_ids)
        return self.gene_norm(self.gene_dropout(genes))


class EpiFoundationForPeakToGeneAlignment(EpiFoundationGeneModel):
    """Pre-training: predict from a cell's open peaks which genes the same cell expresses (paper, eq. 8 to 10)."""

    _auto_class = "AutoModelForPreTraining"
    _keys_to_ignore_on_load_unexpected = [*OF_CLASSIFIER, r"^expression_decoder\."]  # noqa: RUF012

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.alignment_decoder = GeneDecoder(config, num_outputs=2)
        self.gene_bias = nn.Parameter(torch.zeros(config.gene_vocab_size)) if config.use_gene_bias else None
        self.post_init()

    def resize_gene_embeddings(self, gene_vocab_size: int) -> nn.Embedding:
        """As in the base class; the bias of a new gene is zero."""
        if self.gene_bias is not None:
            bias = self.gene_bias.new_zeros(gene_vocab_size)
            kept = min(gene_vocab_size, len(self.gene_bias))
            bias[:kept] = self.gene_bias.detach()[:kept]
            self.gene_bias = nn.Parameter(bias)
        return super().resize_gene_embeddings(gene_vocab_size)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        gene_ids: Tensor | None = None,
        gene_chromosome_ids: Tensor | None = None,
        batch_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationHeadOutput:
        """Score for each gene that the cell does not, or does, express it.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            gene_ids: (cells, genes) to be scored, padded with `gene_pad_token_id`; or (genes,), the same for all cells
                and without padding; or None for every gene of the vocabulary.
            gene_chromosome_ids: the chromosome of each gene, shaped as `gene_ids`; without `gene_ids` the
                tokenizer's `gene_chromosome_ids` as they are.
            batch_ids: (cells,) experimental batch of each cell, joined in pre-training. Leave it out elsewhere, also
                in evaluation: where it is given it counts, as in the official code.
            labels: (cells, genes): 1 expressed, 0 not, -100 left out of the loss.
            num_items_in_batch: number of labels that the sum of losses is divided by, given by the Trainer under
                gradient accumulation; by default those of this call.

        Returns:
            `loss`, cross entropy per gene; `logits`, (cells, genes, 2); `cell_embeddings`, (cells, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **_cells_only(kwargs))
        logits = self._decode(self.alignment_decoder, out.pooler_output, gene_ids, gene_chromosome_ids, batch_ids)
        if self.gene_bias is not None:
            column = self.gene_bias[:, None]
            bias = column[FIRST_GENE_ID:] if gene_ids is None else F.embedding(gene_ids, column)
            logits = logits + F.pad(bias, (1, 0))  # to the logit of "expressed" alone
        loss = None
        if labels is not None:
            labels = self._labels_of_genes(labels, gene_ids)
            loss = _cross_entropy(logits.flatten(0, 1), labels.flatten(), num_items_in_batch)
        return _head_output(loss, logits, out)


class EpiFoundationForCellClassification(EpiFoundationPreTrainedModel):
    """Cell-type annotation: one label per cell."""

    _auto_class = "AutoModelForSequenceClassification"
    _keys_to_ignore_on_load_unexpected = OF_GENES

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.epifoundation = EpiFoundationModel(config)
        self.classifier = CellClassifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationHeadOutput:
        """Score each label for each cell.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: (cells,) index of the cell type; -100 where it is unknown.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, cross entropy per labelled cell; `logits`, (cells, labels); `cell_embeddings`, (cells, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **_cells_only(kwargs))
        logits = self.classifier(out.pooler_output)
        loss = None if labels is None else _cross_entropy(logits, labels.flatten(), num_items_in_batch)
        return _head_output(loss, logits, out)


class EpiFoundationForExpressionPrediction(EpiFoundationGeneModel):
    """Predict the expression level of genes from open peaks (paper, eq. 13 and 14).

    Loaded from a pre-trained alignment model, its decoder starts from the pre-trained decoder; only the last linear
    map, to one level instead of two logits, is new.
    """

    _auto_class = "AutoModelForExpressionPrediction"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = [*OF_CLASSIFIER, r"^alignment_decoder\.", r"^gene_bias"]  # noqa: RUF012

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.expression_decoder = GeneDecoder(config, num_outputs=1)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as every model; see ``PreTrainedModel.from_pretrained``."""
        if "key_mapping" in kwargs:
            return super().from_pretrained(*args, **kwargs)
        loaded = super().from_pretrained(*args, key_mapping=DECODER_TO_FINE_TUNE, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Transformers would undo the renaming when this model is saved; from here on it is an expression model.
        model._weight_conversions = None
        return loaded

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        gene_ids: Tensor | None = None,
        gene_chromosome_ids: Tensor | None = None,
        batch_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationHeadOutput:
        """Predict a level for each gene in each cell.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            gene_ids: as in `EpiFoundationForPeakToGeneAlignment.forward`.
            gene_chromosome_ids: the chromosome of each gene, shaped as `gene_ids`.
            batch_ids: (cells,) experimental batch of each cell, if the model was fine-tuned with it.
            labels: (cells, genes) expression levels, not negative; -100 is left out of the loss.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, mean squared error per gene; `logits`, (cells, genes) levels; `cell_embeddings`, (cells, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **_cells_only(kwargs))
        levels = self._decode(self.expression_decoder, out.pooler_output, gene_ids, gene_chromosome_ids, batch_ids)
        levels = levels.squeeze(-1)
        loss = None
        if labels is not None:
            loss = _squared_error(levels, self._labels_of_genes(labels, gene_ids), num_items_in_batch)
        return _head_output(loss, levels, out)


def _given_or(value: bool | None, default: bool | None) -> bool:
    return bool(default if value is None else value)


def _cells_only(kwargs: dict[str, Any]) -> dict[str, Any]:
    # return_dict belongs to the head, whose own decorator has dealt with it.
    return {**kwargs, "cell_embeddings_only": True, "return_dict": True}


def _head_output(loss: Tensor | None, logits: Tensor, out: BaseModelOutputWithPooling) -> EpiFoundationHeadOutput:
    return EpiFoundationHeadOutput(loss, logits, out.pooler_output, out.hidden_states, out.attentions)


def _mean_over_labels(total: Tensor, is_label: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Divide a summed loss by the number of labels, here or in the whole accumulated batch."""
    if num_items is None:
        num_items = is_label.sum().clamp(min=1)
    elif isinstance(num_items, Tensor):
        num_items = num_items.to(total.device)
    return total / num_items


def _cross_entropy(logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return _mean_over_labels(total, labels != IGNORED_LABEL, num_items)


def _squared_error(levels: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    is_label = labels != IGNORED_LABEL
    error = torch.where(is_label, levels.float() - labels.float(), 0.0)
    return _mean_over_labels(error.square().sum(), is_label, num_items)


__all__ = [
    "EpiFoundationForCellClassification",
    "EpiFoundationForExpressionPrediction",
    "EpiFoundationForPeakToGeneAlignment",
    "EpiFoundationHeadOutput",
    "EpiFoundationModel",
    "EpiFoundationPreTrainedModel",
]
