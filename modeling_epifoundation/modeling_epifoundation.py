"""The EpiFoundation encoder and its three heads: alignment to genes, cell types, expression."""

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput, can_return_tuple

from .attention_epifoundation import Packing
from .configuration_epifoundation import FIRST_GENE_ID, EpiFoundationConfig
from .decoders_epifoundation import CellClassifier, GeneDecoder
from .layers_epifoundation import AUTOMATIC, EpiFoundationLayer, NormedEmbedding
from .losses_epifoundation import IGNORED_LABEL, cross_entropy, squared_error

# What a saved folder tells the Auto classes; every class of this file can be loaded from any such folder. A head of
# another file adds itself when it is saved.
AUTO_MAP = {
    "AutoConfig": "configuration_epifoundation.EpiFoundationConfig",
    "AutoModel": "modeling_epifoundation.EpiFoundationModel",
    "AutoModelForPreTraining": "modeling_epifoundation.EpiFoundationForPeakToGeneAlignment",
    "AutoModelForSequenceClassification": "modeling_epifoundation.EpiFoundationForCellClassification",
    "AutoModelForExpressionPrediction": "modeling_epifoundation.EpiFoundationForExpressionPrediction",
}

# Fine-tuning for expression starts from the pre-trained decoder, all but its last linear map.
DECODER_TO_FINE_TUNE = {r"^alignment_decoder\.(?!output)": "expression_decoder."}
# Weights that other heads keep beside the encoder; leaving them out of a load is no reason for a warning.
OF_GENES = [r"^gene_(embeddings|norm|bias)", r"^batch_embeddings\.", r"^(alignment|expression)_decoder\."]
OF_CLASSIFIER = [r"^(assay_)?classifier\."]
OF_SELF_SUPERVISION = [
    r"^(lm_head|discriminator|batch_classifier|gene_encoder|gene_projection|peak_projection|imputation)\.",
    r"^(logit_scale|typical_gene_counts)$",
]
GENES_PER_CHUNK = 4096  # genes decoded at a time for all cells: bounds memory at (cells, 4096, gene_decoder_size)


@dataclass
class EpiFoundationHeadOutput(ModelOutput):
    """What a head returns.

    Attributes:
        loss: mean over the labels that take part, or None without labels.
        logits: (cells, genes, 2), (cells, labels), (cells, genes) or others, see the head.
        cell_embeddings: (cells, hidden).
        hidden_states: on request, the input of the first layer and the output of each, (cells, tokens, hidden).
        attentions: on request and with ``attn_implementation="eager"``, (cells, heads, tokens, tokens) per layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cell_embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class EpiFoundationPreTrainedModel(PreTrainedModel):
    """What all classes share: loading, saving with the code, initial weights."""

    config: EpiFoundationConfig
    # Inputs whose entries, all but -100, are what each part of the loss is a mean over: see `EpiFoundationTrainer`.
    loss_labels: tuple[str, ...] = ("labels",)
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

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in the base class; all rows are then those of the tokenizer, additional ones among them."""
        table: nn.Embedding = super().resize_token_embeddings(*args, **kwargs)
        self.config.additional_vocab_size = table.num_embeddings - self.config.vocab_size
        return table

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
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        has_norm = config.use_embedding_norms
        num_rows = config.vocab_size + config.additional_vocab_size
        self.peak_embeddings = NormedEmbedding(num_rows, config, config.pad_token_id, has_norm)
        self.chromosome_embeddings = (
            NormedEmbedding(config.num_chromosomes, config, 0, has_norm) if config.use_chromosome_embeddings else None
        )
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size) if config.max_position_embeddings else None
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob if config.use_input_norm else 0.0)
        self.input_norm = (
            nn.BatchNorm1d(config.hidden_size, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)
            if config.use_input_norm
            else nn.Identity()
        )
        self.layers = nn.ModuleList(EpiFoundationLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_final_norm else nn.Identity()
        )
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
            inputs_embeds: (cells, tokens, hidden) rows of the peak table in place of `input_ids`; without one for
                ``[CLS]`` where the model has none.
            cu_seq_lens_q: (cells + 1,) int32 bounds of the cells in a packed input.
            output_hidden_states: also return the input of the first layer and the output of each layer.
            output_attentions: also return the attention weights; needs ``attn_implementation="eager"``.
            cell_embeddings_only: leave `last_hidden_state` out (None). With ``pooling="cls"`` the last layer is then
                computed for ``[CLS]`` alone, which changes no number.

        Returns:
            `last_hidden_state`, the regions in context, in the layout of the input with zeros at padding;
            `pooler_output`, (cells, hidden), the cell embeddings.

        Raises:
            ValueError: if neither or both of `input_ids` and `inputs_embeds` are given, chromosomes are missing, or a
                cell has more tokens than there are positions.
        """
        output_hidden_states = _given_or(output_hidden_states, self.config.output_hidden_states)
        output_attentions = _given_or(output_attentions, self.config.output_attentions)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both and not neither")
        packing = self._packing(input_ids, attention_mask, inputs_embeds, cu_seq_lens_q)
        hidden_states = self._embed(packing, input_ids, chromosome_ids, inputs_embeds)

        is_cls_enough = cell_embeddings_only and self.config.pooling == "cls"
        skip_last = is_cls_enough and not (output_hidden_states or output_attentions) and len(self.layers) > 0
        all_hidden_states, all_attentions = [], []
        for layer in self.layers[:-1] if skip_last else self.layers:
            if output_hidden_states:  # else they are free again after the layer, as are the weights
                all_hidden_states.append(hidden_states)
            hidden_states, weights = layer(hidden_states, packing)
            if output_attentions:
                all_attentions.append(weights)
        if output_hidden_states:
            all_hidden_states.append(hidden_states)
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
        allow_empty = not self.config.use_cls_token
        is_cls = None
        if allow_empty and input_ids is not None and self.config.cls_token_id is not None:
            is_cls = input_ids == self.config.cls_token_id
        if boundaries is not None:
            if attention_mask is not None:
                raise ValueError(
                    "a packed input holds no padding: leave attention_mask out when cu_seq_lens_q is given"
                )
            tokens = input_ids if input_ids is not None else inputs_embeds
            assert tokens is not None
            packing = Packing.from_boundaries(boundaries, tokens.shape[0] * tokens.shape[1], allow_empty)
            return packing if is_cls is None else packing.keeping(~is_cls)
        if attention_mask is None and input_ids is not None:
            attention_mask = cast(Tensor, input_ids != self.config.pad_token_id)
        elif attention_mask is None and inputs_embeds is not None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        assert attention_mask is not None
        if is_cls is not None:
            attention_mask = attention_mask.bool() & ~is_cls
        return Packing.from_mask(attention_mask, allow_empty)

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
        if self.position_embeddings is not None:
            if packing.longest > self.config.max_position_embeddings:
                raise ValueError(
                    f"a cell has {packing.longest:,} tokens, this model has positions for "
                    f"{self.config.max_position_embeddings:,}: lower max_peaks of the tokenizer"
                )
            peaks = peaks + self.position_embeddings(packing.places)
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
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *OF_CLASSIFIER,
        *OF_SELF_SUPERVISION,
        r"^expression_decoder\.",
    ]

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
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        logits = self._decode(self.alignment_decoder, out.pooler_output, gene_ids, gene_chromosome_ids, batch_ids)
        if self.gene_bias is not None:
            column = self.gene_bias[:, None]
            bias = column[FIRST_GENE_ID:] if gene_ids is None else F.embedding(gene_ids, column)
            logits = logits + F.pad(bias, (1, 0))  # to the logit of "expressed" alone
        loss = None
        if labels is not None:
            labels = self._labels_of_genes(labels, gene_ids)
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), num_items_in_batch)
        return head_output(loss, logits, out)


class EpiFoundationForCellClassification(EpiFoundationPreTrainedModel):
    """Cell-type annotation: one label per cell."""

    _auto_class = "AutoModelForSequenceClassification"
    _keys_to_ignore_on_load_unexpected = [*OF_GENES, *OF_SELF_SUPERVISION, r"^assay_classifier\."]  # noqa: RUF012

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
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        logits = self.classifier(out.pooler_output)
        loss = None if labels is None else cross_entropy(logits, labels.flatten(), num_items_in_batch)
        return head_output(loss, logits, out)


class EpiFoundationForExpressionPrediction(EpiFoundationGeneModel):
    """Predict the expression level of genes from open peaks (paper, eq. 13 and 14).

    Loaded from a pre-trained alignment model, its decoder starts from the pre-trained decoder; only the last linear
    map, to one level instead of two logits, is new.
    """

    _auto_class = "AutoModelForExpressionPrediction"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *OF_CLASSIFIER,
        *OF_SELF_SUPERVISION,
        r"^alignment_decoder\.",
        r"^gene_bias",
    ]

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
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        levels = self._decode(self.expression_decoder, out.pooler_output, gene_ids, gene_chromosome_ids, batch_ids)
        levels = levels.squeeze(-1)
        loss = None
        if labels is not None:
            loss = squared_error(levels, self._labels_of_genes(labels, gene_ids), num_items_in_batch)
        return head_output(loss, levels, out)


def _given_or(value: bool | None, default: bool | None) -> bool:
    return bool(default if value is None else value)


def cells_only(kwargs: dict[str, Any]) -> dict[str, Any]:
    # return_dict belongs to the head, whose own decorator has dealt with it.
    return {**kwargs, "cell_embeddings_only": True, "return_dict": True}


def head_output(loss: Tensor | None, logits: Tensor | None, out: BaseModelOutputWithPooling) -> EpiFoundationHeadOutput:
    """What a head returns beside what the encoder did."""
    return EpiFoundationHeadOutput(loss, logits, out.pooler_output, out.hidden_states, out.attentions)


__all__ = [
    "EpiFoundationForCellClassification",
    "EpiFoundationForExpressionPrediction",
    "EpiFoundationForPeakToGeneAlignment",
    "EpiFoundationHeadOutput",
    "EpiFoundationModel",
    "EpiFoundationPreTrainedModel",
]
